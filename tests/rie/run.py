"""Calls every function's binary once under Amazon's Runtime Interface Emulator, with its event from
`events/`.

Needs the binaries of `cargo build --workspace --bins` and nothing but Python's standard library.
Starts the local service in memory: the functions use its embedded DynamoDB, or another one at a
URL, and its mail outbox.
Compares each answer with expectations.py, prints every difference, and exits with 1 if there is
any.

The emulator comes with the SAM CLI. The default is the one in the virtual environment that .ci/run
creates.

Then freezes and thaws every function, as Lambda does between two requests, while its idle
connections die. Some are also frozen between init and their first call, when they have one
connection already.
"""

import argparse
import base64
import contextlib
import gzip
import http.server
import itertools
import json
import os
import platform
import re
import signal
import string
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
from pathlib import Path

from expectations import EXPECTED
from harness import (
    MAIL,
    ROOT,
    Decision,
    Function,
    Run,
    Service,
    Upstream,
    assert_equal,
    invoke,
    invoke_each,
    kind_of,
)
from proxy import Death, Proxies
from runtime import Started

# Variables that the template sets on the registries, besides the tables.
REGISTRIES = {
    "registry-npm": {"NPM_UPSTREAM": "https://packages.example.com/npm/"},
    "registry-pypi": {"PYPI_UPSTREAM": "https://packages.example.com/simple/", "PYPI_FILE_HOSTS": ""},
}

# How long the functions are frozen: longer than an idle connection may be used.
SECONDS_FROZEN = 4
# Any call must be answered in this time: a function's timeout in the template.
SECONDS_IN_TIME = 9

# Frozen between init and the first call: a function of each way in which `shared` serves one.
STARTED_IN_ADVANCE = [
    "console-api-keys",
    "email-tokens-register",
    "installations-list",
    "registry-npm",
    "tokens-authorize",
    "tokens-introspect",
]


def environment(name, expected, service):
    """The variables that the template sets for a function, not the script's own environment."""
    names = [key for key in service.env if key.startswith("AWS_")] + (["TOKENS_TABLE"] if expected.table else [])
    names += ["INSTALLATIONS_TABLE"] if expected.installations else []
    env = {key: service.env[key] for key in names}
    if name in REGISTRIES:
        env |= REGISTRIES[name] | {"ANONYMOUS_ACCESS": "deny", "PUBLIC_URL": ""}
    if expected.page:
        env |= {"PUBLIC_URL": MAIL["PUBLIC_URL"]}
    if expected.mail:
        # The environment file does not contain the outbox's URL.
        env |= MAIL | {"AWS_ENDPOINT_URL_SESV2": service.env["BASE_URL"] + "/_local/ses"}
    return env | {
        "PATH": os.defpath,
        "RUST_LOG": "info",
        "AWS_LAMBDA_FUNCTION_NAME": name,
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def new_event(name, service):
    """A function's event with new tokens and addresses, and the values of its placeholders."""
    text = (ROOT / "events" / f"{name}.json").read_text()
    values = service.values(set(re.findall(r"\$\{(\w+)\}", text)))
    return json.loads(string.Template(text).substitute(values)), values


def run_function(name, expected, emulator, bins, service, log_path):
    """Calls a function once, checks its answer and its log, and returns the status."""
    event, values = new_event(name, service)
    env = environment(name, expected, service)
    kind = kind_of(expected)
    answer = kind(invoke(emulator, bins / name, event, env, log_path), event, values)
    answer.check(expected, service)
    log = log_path.read_text(errors="replace")
    lines = [json.loads(line) for line in log.splitlines() if line.startswith('{"')]
    lines = [line for line in lines if line.get("message") == "request"]
    assert_equal(len(lines), 1, "number of log lines for the request")
    if kind is not Run:
        assert_equal(lines[0]["request_id"], event["requestContext"]["requestId"], "request_id in the log")
    assert_equal(lines[0]["status"], expected.status or 200, "status in the log")
    assert isinstance(lines[0]["latency_ms"], int), "latency_ms is missing in the log"
    if kind is Decision:
        assert_equal(lines[0]["principal"], answer.json["context"]["id"], "principal in the log")
    for secret in answer.secrets:
        assert secret not in log, "the log contains a secret"
    return answer.status


class Thawed:
    """A function whose connections go through proxies, so that they can die while it is frozen."""

    def __init__(self, name, start, service, upstream, proxies):
        expected = EXPECTED[name]
        self.name, self.expected, self.service = name, expected, service
        env = environment(name, expected, service)
        if name in REGISTRIES:
            variable, path = {"registry-npm": ("NPM_UPSTREAM", "/"), "registry-pypi": ("PYPI_UPSTREAM", "/simple/")}[
                name
            ]
            env[variable] = f"http://127.0.0.1:{upstream}{path}"
        self.proxies = []
        for variable in ["AWS_ENDPOINT_URL_DYNAMODB", "AWS_ENDPOINT_URL_SESV2", "NPM_UPSTREAM", "PYPI_UPSTREAM"]:
            if variable in env:
                url = urllib.parse.urlsplit(env[variable])
                proxy = proxies.to(url.port)
                env[variable] = url._replace(netloc=f"127.0.0.1:{proxy.port}").geturl()
                self.proxies.append(proxy)
        # As deployed: the emulator tells the function its deadline.
        env["AWS_LAMBDA_FUNCTION_TIMEOUT"] = "29" if name in REGISTRIES else "10"
        self.function = start(env)

    def call(self):
        """Calls the function and checks its answer."""
        # Their events give a name that must be free.
        if self.name in ("org-access-tokens-create", "org-access-tokens-update"):
            self.service.delete_access_tokens()
        event, values = new_event(self.name, self.service)
        if self.name in REGISTRIES:
            # Metadata, since a file is answered without the upstream.
            path = "/npm/widgets" if self.name == "registry-npm" else "/pypi/simple/widgets/"
            event["rawPath"] = event["requestContext"]["http"]["path"] = path
        started = time.monotonic()
        answer = self.function.call(event)
        seconds = time.monotonic() - started
        if self.name in REGISTRIES:
            assert_equal(answer["statusCode"], 200, f"status (body: {answer.get('body')})")
        else:
            kind_of(self.expected)(answer, event, values).check(self.expected, self.service)
        assert seconds < SECONDS_IN_TIME, f"the answer took {seconds:.1f} s"

    def download(self):
        """Requests a file of a registry, and expects it in the installation log."""
        event, values = new_event(self.name, self.service)
        started = time.monotonic()
        answer = self.function.call(event)
        seconds = time.monotonic() - started
        assert_equal(answer["statusCode"], 302, f"status (body: {answer.get('body')})")
        assert seconds < SECONDS_IN_TIME, f"the answer took {seconds:.1f} s"
        log = self.service.bot("GET", f"/v1/o/{self.service.env['ORG']}/guard/installations")
        tokens = [entry["token_id"] for entry in log["installations"]]
        assert_equal(tokens.count(values["TOKEN_ID"]), 1, "entries in the installation log")

    def calls(self):
        """What the function is asked after each short freeze."""
        return [self.call, self.download] if self.name in REGISTRIES else [self.call]

    def freeze(self, death):
        """Stops the function, as Lambda does after an answer; meanwhile its connections die."""
        pids = self.function.pids()
        assert len(pids) == 1, f"the processes of the function are {pids}"
        os.kill(pids[0], signal.SIGSTOP)
        for proxy in self.proxies:
            proxy.kill(death)

    def connections(self):
        """How many connections it has."""
        return sum(len(proxy.alive) for proxy in self.proxies)

    def thaw(self):
        """Continues the function."""
        for pid in self.function.pids():
            os.kill(pid, signal.SIGCONT)

    def unheard(self):
        """How many times the function has used a connection that was silently dead."""
        return sum(proxy.unheard for proxy in self.proxies)


class InAdvance(Started):
    """A function that is started before its first call, as the emulator never does."""

    def call(self, event):
        """Sends an event and returns the response."""
        return json.loads(super().call(json.dumps(event).encode())[1])

    def pids(self):
        """Its process."""
        return [self.process.pid]


def run_frozen_in_advance(names, bins, service, folder):
    """Freezes functions that have not been called yet, and expects their first call to succeed in
    time although the connection of their init is dead. Returns the failures."""
    failures = []
    with contextlib.ExitStack() as stack:
        upstream = stack.enter_context(http.server.ThreadingHTTPServer(("127.0.0.1", 0), Upstream))
        threading.Thread(target=upstream.serve_forever, daemon=True).start()
        stack.callback(upstream.shutdown)
        proxies = stack.enter_context(Proxies())
        for name, death in itertools.product(names, Death):

            def start(env, name=name):
                return InAdvance([bins / name], env, folder / f"in-advance-{name}.log")

            thawed = Thawed(name, start, service, upstream.server_port, proxies)
            with thawed.function as function:
                try:
                    function.wait()
                    # To DynamoDB, and to a registry's upstream, for which init does not wait.
                    expected = 2 if name in REGISTRIES else 1
                    for _ in range(100):
                        if thawed.connections() >= expected:
                            break
                        time.sleep(0.1)
                    assert_equal(thawed.connections(), expected, "connections after init")
                    thawed.freeze(death)
                    thawed.thaw()
                    thawed.call()
                except Exception as error:  # Report it and continue with the other functions.
                    failures.append(f"{name}: first call, connection {death.value}: {type(error).__name__}: {error}")
    return failures


def run_frozen(names, emulator, bins, service, folder):
    """Freezes and thaws every function while its idle connections die, and expects the next call to
    succeed in time. Returns the failures.

    After a short freeze the idle timeouts have not run out, as if the clock had stood still: the
    retries must do. After a long one no connection from before it may be used."""
    failures = {}
    with contextlib.ExitStack() as stack:
        upstream = stack.enter_context(http.server.ThreadingHTTPServer(("127.0.0.1", 0), Upstream))
        threading.Thread(target=upstream.serve_forever, daemon=True).start()
        stack.callback(upstream.shutdown)
        proxies = stack.enter_context(Proxies())
        functions = []
        for name in names:

            def start(env, name=name):
                return Function(emulator, bins / name, env, folder / f"frozen-{name}.log")

            function = Thawed(name, start, service, upstream.server_port, proxies)
            stack.enter_context(function.function)
            stack.callback(function.thaw)
            functions.append(function)

        def attempt(function, what, action):
            if function.name not in failures:
                try:
                    action()
                except Exception as error:  # Report it and continue with the other functions.
                    failures[function.name] = f"{what}: {type(error).__name__}: {error}"

        for function in functions:
            attempt(function, "first call", function.call)
            for death, call in itertools.product(Death, function.calls()):

                def short(function=function, death=death, call=call):
                    function.freeze(death)
                    function.thaw()
                    call()

                attempt(function, f"{call.__name__} after a short freeze, connections {death.value}", short)
        for death in Death:
            for function in functions:
                attempt(function, "freeze", lambda function=function, death=death: function.freeze(death))
            time.sleep(SECONDS_FROZEN)
            for function in functions:

                def thaw(function=function):
                    before = function.unheard()
                    function.thaw()
                    function.call()
                    assert_equal(function.unheard(), before, "uses of a connection that died")

                attempt(function, f"call after a long freeze, connections {death.value}", thaw)
    return [f"{name}: {failure}" for name, failure in sorted(failures.items())]


def run_metadata(emulator, bins, service, folder):
    """Requests npm metadata with and without compression: a binary body must be returned in
    Base64."""
    token = service.values({"TOKEN"})["TOKEN"]
    event = json.loads((ROOT / "events" / "registry-npm.json").read_text())
    event["rawPath"] = event["requestContext"]["http"]["path"] = "/npm/widgets"
    event["headers"]["authorization"] = f"Bearer {token}"
    env = {key: value for key, value in service.env.items() if key.startswith("AWS_") or key.endswith("_TABLE")}
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Upstream) as upstream:
        threading.Thread(target=upstream.serve_forever, daemon=True).start()
        env |= {"NPM_UPSTREAM": f"http://127.0.0.1:{upstream.server_port}/", "PATH": os.defpath, "RUST_LOG": "info"}
        env |= {"AWS_LAMBDA_FUNCTION_NAME": "registry-npm", "AWS_EC2_METADATA_DISABLED": "true"}
        for coding, is_base64 in [("gzip", True), ("identity", False)]:
            event["headers"]["accept-encoding"] = coding
            raw = invoke(emulator, bins / "registry-npm", event, env, folder / f"metadata-{coding}.log")
            assert_equal(
                (raw["statusCode"], raw.get("isBase64Encoded", False)),
                (200, is_base64),
                f"status and isBase64Encoded with {coding}",
            )
            assert_equal(raw["headers"].get("content-encoding", "identity"), coding, "content-encoding")
            body = gzip.decompress(base64.b64decode(raw["body"])) if is_base64 else raw["body"].encode()
            version = json.loads(body)["versions"]["1.0.0"]
            assert_equal(
                version["dist"]["tarball"], "https://api.example.com/npm/widgets/-/widgets-1.0.0.tgz", "tarball"
            )
            assert_equal(version["description"], "w\u00efdgets " * 500, "description")
        upstream.shutdown()


def run_at_registry_hosts(emulator, bins, service, folder):
    """Sends the events of the functions that serve the registries' own hosts as API Gateway sends
    them from there. Only the domain name in the event counts, not what a caller says. Returns the
    number of functions."""
    hosts = {"NPM_HOST": "npm.example.com", "PYPI_HOST": "pypi.example.com"}
    functions = {
        "registry-npm": ("npm.example.com", "/npm"),
        "registry-npm-logout": ("npm.example.com", "/npm"),
        "registry-pypi": ("pypi.example.com", "/pypi"),
        "email-tokens-status": ("pypi.example.com", ""),
    }

    def answer(name, host, cut, domain):
        event, values = new_event(name, service)
        context = event["requestContext"]
        event["rawPath"] = context["http"]["path"] = event["rawPath"].removeprefix(cut)
        event["routeKey"] = context["routeKey"] = "$default"
        event["headers"] |= {"host": host, "x-forwarded-host": host}
        context["domainName"] = domain
        log = folder / f"{name}-at-{domain}.log"
        raw = invoke(emulator, bins / name, event, environment(name, EXPECTED[name], service) | hosts, log)
        return kind_of(EXPECTED[name])(raw, event, values)

    for name, (host, cut) in functions.items():
        answer(name, host, cut, host).check(EXPECTED[name], service)
        if cut:
            # A forged header leads nowhere. At the other registry's host it is no package.
            other = next(each for each in hosts.values() if each != host)
            for domain, status in (("api.example.com", 404), (other, 400)):
                assert_equal(answer(name, host, cut, domain).status, status, f"status of {name} at {domain}")
    # A function that is no part of a registry's host serves nothing there.
    status = answer("tokens-introspect", "npm.example.com", "", "npm.example.com").status
    assert_equal(status, 404, "status of tokens-introspect at npm.example.com")
    return len(functions)


def run_odd_events(emulator, bins, service, folder):
    """Sends rare and malformed events to one process, which must serve the next event. Returns
    their number."""
    values = service.values({"API_KEY", "BOT_API_KEY", "BOT_ID"})
    text = string.Template((ROOT / "events" / "tokens-introspect.json").read_text()).substitute(values)
    form = urllib.parse.urlencode({"token": values["API_KEY"], "scope": "shield:write"})
    as_form = {"content-type": "application/x-www-form-urlencoded"}

    def encoded(body):
        return {"body": base64.b64encode(body).decode(), "isBase64Encoded": True}

    def event(headers=None, **changes):
        whole = json.loads(text)
        whole["headers"] |= headers or {}
        return whole | changes

    good = event()
    credential = good["headers"]["authorization"]
    # A REST API sends payload format 1.0, which names nearly all fields differently.
    place = {"path": good["rawPath"], "httpMethod": "POST"}
    context = place | {"requestId": "1", "stage": "prod", "identity": {"sourceIp": "203.0.113.7"}}
    rest = place | {"version": "1.0", "resource": good["rawPath"], "requestContext": context, "multiValueHeaders": {}}
    rest |= {"headers": good["headers"], "body": good["body"], "isBase64Encoded": False}
    cases = [
        ("a Base64 body", event(**encoded(good["body"].encode())), 200),
        ("a form", event(as_form, body=form), 200),
        ("a Base64 form", event(as_form, **encoded(form.encode())), 200),
        ("a plain body declared as Base64", event(isBase64Encoded=True), 400),
        ("a truncated Base64 body", event(body="eyJ0b2tlbiI6", isBase64Encoded=True), 400),
        ("a Base64 body that is not UTF-8", event(**encoded(b'{"token": "\xff\xfe"}')), 400),
        ("a Base64 form that is not UTF-8", event(as_form, **encoded(b"\xff\xfe=1")), 400),
        ("a body of 16,384 bytes", event(**encoded(good["body"].ljust(16_384).encode())), 200),
        ("a body of 16,385 bytes", event(**encoded(good["body"].ljust(16_385).encode())), 413),
        ("no body", event(body=None), 400),
        ("a body nested 8,000 levels deep", event(body='{"token":' + "[" * 8_000 + "]" * 8_000 + "}"), 400),
        ("a query string without percent-encoding", event(rawQueryString='a=<"b"> c\u3042#'), 400),
        ("an invalid scheme", event({"x-forwarded-proto": "no scheme"}), 200),
        (
            "two credentials, joined as API Gateway joins headers",
            event({"authorization": ",".join([credential] * 2)}),
            401,
        ),
        ("an event of a REST API", rest, None),
        ("an event of a queue", {"Records": [{"eventSource": "aws:sqs", "body": good["body"]}]}, None),
        ("an empty event", {}, None),
        ("an event that is not an object", ["POST"], None),
        ("a valid event afterwards", good, 200),
    ]
    env = {key: value for key, value in service.env.items() if key.startswith("AWS_") or key == "TOKENS_TABLE"}
    env |= {"PATH": os.defpath, "RUST_LOG": "info", "AWS_LAMBDA_FUNCTION_NAME": "tokens-introspect"}
    env |= {"AWS_EC2_METADATA_DISABLED": "true"}
    log_path = folder / "odd-events.log"
    answers = invoke_each(emulator, bins / "tokens-introspect", [case[1] for case in cases], env, log_path)
    for (what, _, status), answer in zip(cases, answers, strict=True):
        assert_equal(answer.get("statusCode"), status, f"status of {what} ({answer})")
        if status is None:
            # No HTTP caller is waiting: the function reports the misconfiguration as a Lambda
            # error.
            assert "API Gateway" in answer["errorMessage"], f"{what}: {answer}"
            continue
        body = json.loads(answer["body"])
        if status == 200:
            assert_equal((body["active"], body.get("permitted", True)), (True, True), f"answer for {what}")
        else:
            assert_equal(set(body["error"]) - {"details"}, {"code", "message", "request_id"}, f"error for {what}")
        assert values["API_KEY"] not in json.dumps(answer), f"{what} is echoed"
    log = log_path.read_text(errors="replace")
    assert "panicked" not in log, f"the function panicked:\n{log}"
    for secret in (values["API_KEY"], values["BOT_API_KEY"]):
        assert secret not in log, "the log contains a secret"
    return len(cases)


def arguments():
    """Parses the command line."""
    machine = {"x86_64": "x86_64", "aarch64": "arm64", "arm64": "arm64"}.get(platform.machine(), platform.machine())
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    inside = f"tools/lib/python3*/site-packages/samcli/local/rapid/aws-lambda-rie-{machine}"
    parser = argparse.ArgumentParser(prog="tests/rie/run", description="Calls every function under the emulator.")
    parser.add_argument("--bins", type=Path, default=target / "debug", help="folder with the binaries")
    parser.add_argument("--rie", type=Path, default=next(target.glob(inside), None), help="path of the emulator")
    parser.add_argument("--dynamodb", metavar="URL", help="a DynamoDB emulator to use instead of the embedded one")
    options = parser.parse_args()
    if options.rie is None or not options.rie.exists():
        sys.exit("aws-lambda-rie not found: run .ci/run once, or pass its path with --rie")
    return options


def main():
    """Calls every function and returns the exit code."""
    options = arguments()
    bins, emulator = options.bins.resolve(), options.rie.resolve()
    functions = {f"{path.parts[-3]}-{path.parts[-2]}" for path in ROOT.glob("functions/*/*/Cargo.toml")}
    events = {path.stem for path in ROOT.glob("events/*.json")}
    failures = []
    for name in sorted(functions | events | set(EXPECTED)):
        if name not in functions:
            failures.append(f"{name}: has an event or an expectation, but no function")
        if name not in events:
            failures.append(f"{name}: events/{name}.json is missing")
        if name not in EXPECTED:
            failures.append(f"{name}: has no entry in tests/rie/expectations.py")
        if not (bins / name).exists():
            failures.append(f"{name}: not built; run cargo build --workspace --bins")
    if not (bins / "guard-tokens").exists():
        sys.exit("guard-tokens is not built; run cargo build --workspace --bins")
    runnable = [name for name in sorted(functions & events & set(EXPECTED)) if (bins / name).exists()]
    with tempfile.TemporaryDirectory(prefix="guard-tokens-rie-") as folder:
        service = Service(bins / "guard-tokens", Path(folder), options.dynamodb)
        try:
            for name in runnable:
                log_path = Path(folder) / f"{name}.log"
                try:
                    status = run_function(name, EXPECTED[name], emulator, bins, service, log_path)
                    print(f"ok    {name}: {status}", flush=True)
                except Exception as error:  # Report it and continue with the other functions.
                    print(f"FAIL  {name}", flush=True)
                    log = log_path.read_text(errors="replace") if log_path.exists() else ""
                    failures.append(f"{name}: {type(error).__name__}: {error}\n{log}".rstrip())
            if "registry-npm" in runnable:
                try:
                    run_metadata(emulator, bins, service, Path(folder))
                    print("ok    registry-npm: metadata, with and without compression", flush=True)
                except Exception as error:
                    print("FAIL  registry-npm: metadata, with and without compression", flush=True)
                    failures.append(f"registry-npm: {type(error).__name__}: {error}")
            if "registry-npm" in runnable:
                try:
                    count = run_at_registry_hosts(emulator, bins, service, Path(folder))
                    print(f"ok    {count} functions at the registries' own hosts", flush=True)
                except Exception as error:
                    print("FAIL  functions at the registries' own hosts", flush=True)
                    failures.append(f"registries' own hosts: {type(error).__name__}: {error}")
            if "tokens-introspect" in runnable:
                try:
                    count = run_odd_events(emulator, bins, service, Path(folder))
                    print(f"ok    tokens-introspect: {count} malformed and rare events", flush=True)
                except Exception as error:
                    print("FAIL  tokens-introspect: malformed and rare events", flush=True)
                    failures.append(f"tokens-introspect: {type(error).__name__}: {error}")
            # How connections die does not depend on the database behind them.
            if sys.platform == "linux" and not options.dynamodb:
                # Each of the many calls leaves an API key.
                plan = [bins / "guardctl", "org", "set", service.env["ORG"], "--plan", "enterprise"]
                subprocess.run(plan, env=os.environ | service.env, check=True, stdout=subprocess.DEVNULL)
                frozen = run_frozen(runnable, emulator, bins, service, Path(folder))
                print(f"{'FAIL' if frozen else 'ok'}    freeze and thaw of every function", flush=True)
                failures += frozen
                early = run_frozen_in_advance(STARTED_IN_ADVANCE, bins, service, Path(folder))
                print(f"{'FAIL' if early else 'ok'}    freeze and thaw before the first call", flush=True)
                failures += early
        finally:
            service.stop()
    for failure in failures:
        print(f"\n{failure}")
    print(f"{len(runnable)} functions called under the emulator, {len(failures)} failures")
    return 1 if failures or not functions else 0


if __name__ == "__main__":
    sys.exit(main())
