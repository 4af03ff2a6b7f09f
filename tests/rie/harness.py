"""What tests/rie, tests/sam-local and bench share: the local service, the emulator, and checks of a
function's answer. Uses only Python's standard library.
"""

import base64
import contextlib
import http.client
import http.server
import json
import re
import shlex
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SECONDS_TO_START = 60
SECONDS_TO_ANSWER = 30
# Variables that the local service writes into its environment file.
ENVIRONMENT = {"BASE_URL", "ORG", "BOT_API_KEY", "BOT_ID", "AWS_ENDPOINT_URL_DYNAMODB", "AWS_REGION", "TOKENS_TABLE"}
# Variables that the template sets, besides the table, on functions that send mail.
MAIL = {
    "MAIL_FROM": "no-reply@guard.example.com",
    "MAIL_REPLY_TO": "",
    "MAIL_CONFIGURATION_SET": "guard-tokens-mail",
    "MAILS_PER_HOUR": "1000",
    "PUBLIC_URL": "https://guard.example.com",
}
# Placeholders of events whose values must not appear in a log.
SECRETS = {
    "ACCESS_TOKEN", "API_KEY", "BOT_API_KEY", "CODE", "EMAIL", "KEY", "SCIM_USER_NAME", "SESSION", "TOKEN",
    "TOKEN_AS_PASSWORD",
}  # fmt: skip
KEY = re.compile(r"tg_anon_[0-9A-Za-z]{42}")
SIGN_IN = re.compile(r"https?://[^/\s]+(/console/sign-in/local/gs_[0-9A-Za-z]{42})")
SESSION = re.compile(r"guard_session\w*=(gs_[0-9A-Za-z]{42})")
CODE = re.compile(r"\b(?:[0-9A-HJKMNP-TV-Z]{4}-){3}[0-9A-HJKMNP-TV-Z]{4}\b")


def assert_equal(got, want, what):
    """Asserts equality; `what` names the value in the message."""
    assert got == want, f"{what}: {got!r}, expected {want!r}"


class Answer:
    """A function's response in API Gateway's payload format 2.0."""

    def __init__(self, raw, event, values):
        assert isinstance(raw, dict) and "statusCode" in raw, f"not a response in payload format 2.0: {raw}"
        self.status = raw["statusCode"]
        self.event = event
        self.values = values
        # What must not appear in a log.
        self.secrets = [value for name, value in values.items() if name in SECRETS]
        joined = {name: ",".join(each) for name, each in (raw.get("multiValueHeaders") or {}).items()}
        joined.update(raw.get("headers") or {})
        self.headers = {name.lower(): value for name, value in joined.items()}
        assert_equal(raw.get("isBase64Encoded", False), False, "isBase64Encoded")
        self.text = raw.get("body") or ""

    def header(self, name):
        """The value of a header, which must be present."""
        assert name in self.headers, f"no header {name} among {sorted(self.headers)}"
        return self.headers[name]

    @property
    def json(self):
        """The parsed body."""
        return json.loads(self.text)

    def check(self, expected, service):
        """Asserts that this is the expected response."""
        assert_equal(self.status, expected.status, f"status (body: {self.text[:300]})")
        assert_equal(self.header("x-request-id"), self.event["requestContext"]["requestId"], "x-request-id")
        if expected.page:
            assert_equal(self.header("content-type"), "text/html; charset=utf-8", "content-type")
            assert "frame-ancestors 'none'" in self.header("content-security-policy"), "the page may be framed"
        elif self.text:
            media_type = self.header("content-type").split(";")[0]
            assert re.fullmatch(r"application/(.+\+)?json", media_type), f"content-type: {media_type}"
            assert isinstance(self.json, (dict, list)), "the body is neither a JSON object nor a list"
        if "authorization" in self.event["headers"]:
            assert_equal(self.header("cache-control"), "no-store", "cache-control")
        expected.body(self, service)


class Decision:
    """An authorizer's response, which goes to API Gateway and not to a caller."""

    status = "decided"

    def __init__(self, raw, event, values):
        self.json = raw
        self.event = event
        self.values = values
        self.secrets = [value for name, value in values.items() if name in SECRETS]

    def check(self, expected, service):
        """Asserts that this is the expected response."""
        assert isinstance(self.json, dict) and "isAuthorized" in self.json, f"not an authorizer's response: {self.json}"
        expected.body(self, service)


class Run:
    """A run of a function on its schedule, which answers nobody."""

    status = "ran"
    secrets = ()

    def __init__(self, raw, event, values):
        self.raw = raw
        self.event = event
        self.values = values

    def check(self, expected, service):
        """Asserts that the run has succeeded."""
        assert self.raw is None, f"the run has failed: {self.raw}"
        expected.body(self, service)


def kind_of(expected):
    """What a function answers."""
    return Run if expected.scheduled else Decision if expected.status is None else Answer


class Service:
    """The local service, with a demo organization and an owner bot. Its database is the embedded
    one in memory, or another at a URL."""

    # What whoami answers to an invalid credential.
    refusal_of_whoami = 401

    def __init__(self, binary, folder, dynamodb=None):
        env_file = folder / "demo.env"
        self.log = folder / "local.log"
        self.addresses = self.names = 0
        self.secret = None
        # Only for setting up: the freeze test registers more often than 20 times a minute.
        command = [binary, "--port", "0", "--env-file", env_file, "--no-rate-limit"]
        command += ["--dynamodb", dynamodb] if dynamodb else ["--memory"]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=folder)
        deadline = time.monotonic() + SECONDS_TO_START
        self.env, text = {}, ""
        # The file may exist before it is complete.
        while not (set(self.env) >= ENVIRONMENT and text.endswith("\n")):
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                sys.exit(f"the local service did not start:\n{self.log.read_text(errors='replace')}")
            time.sleep(0.05)
            text = env_file.read_text() if env_file.exists() else ""
            lines = (shlex.split(line, comments=True) for line in text.splitlines())
            self.env = dict(words[1].split("=", 1) for words in lines if words[:1] == ["export"] and "=" in words[-1])

    def session(self):
        """The secret of a session of the demo owner, which the printed link starts once."""
        if self.secret is None:
            path = SIGN_IN.search(self.log.read_text(errors="replace"))[1]
            host = self.env["BASE_URL"].removeprefix("http://")
            connection = http.client.HTTPConnection(host, timeout=SECONDS_TO_ANSWER)
            with contextlib.closing(connection):
                form = {"content-type": "application/x-www-form-urlencoded", "sec-fetch-site": "same-origin"}
                connection.request("POST", path, "", form)
                response = connection.getresponse()
                assert_equal(response.status, 303, "status of signing in")
                self.secret = SESSION.search(response.getheader("set-cookie"))[1]
        return self.secret

    def request(self, method, path, credential=None, body=None):
        """Calls a route and returns the status and the parsed body."""
        headers = {"authorization": f"Bearer {credential}"} if credential else {}
        data = None
        if body is not None:
            headers["content-type"] = "application/json"
            data = json.dumps(body).encode()
        request = urllib.request.Request(self.env["BASE_URL"] + path, data, headers, method=method)
        # Ignores proxy settings of the environment.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=SECONDS_TO_ANSWER) as response:
                return response.status, json.loads(response.read() or "null")
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.loads(error.read() or "null")

    def bot(self, method, path, body=None):
        """Calls a route as the demo bot."""
        credential = f"{self.env['BOT_API_KEY']}:{self.env['BOT_ID']}"
        status, answer = self.request(method, path, credential, body)
        assert status < 300, f"the local service answered {status}: {answer}"
        return answer

    def org_user_tokens(self, path, body):
        """POSTs to a route of the org user tokens."""
        return self.bot("POST", f"/v1/o/{self.env['ORG']}/guard/org-user-tokens{path}", body)

    def is_active(self, token):
        """Whether probing a token reports it as active."""
        return self.org_user_tokens("/probe", {"token": token})["active"]

    def introspect(self, token):
        """Introspects a token."""
        return self.bot("POST", "/v1/tokens/introspect", {"token": token})

    def delete_access_tokens(self):
        """Deletes all organization access tokens, which frees their names."""
        path = "/api/v2/organization/tokens/"
        for token in self.bot("GET", path):
            self.bot("DELETE", f"{path}{token['id']}/")

    def scim_users(self, name):
        """The SCIM users with this name."""
        query = urllib.parse.urlencode({"filter": f'userName eq "{name}"'})
        return self.bot("GET", f"/scim/v2/Users?{query}")["Resources"]

    def key_status(self, key):
        """The HTTP status of the status route for an email-verified token."""
        return self.request("GET", "/api/v1/tokens/status", key)[0]

    def mails(self):
        """The outbox, newest first."""
        return self.request("GET", "/_local/mail.json")[1]

    def mailed_to(self, email, pattern):
        """Registers an address and returns the first match of the pattern in its mail."""
        status, answer = self.request("POST", "/api/v1/tokens", body={"email": email, "language": "en"})
        assert_equal(status, 202, f"status of a registration ({answer})")
        found = pattern.search(self.mails()[0]["text"])
        assert found, f"the mail contains no match of {pattern.pattern}"
        return found[0]

    def values(self, placeholders):
        """Values for an event's placeholders. Each call creates new tokens and addresses."""
        values = {name: self.env[name] for name in placeholders & self.env.keys()}
        if placeholders & {"ORG", "TOKEN", "TOKEN_AS_PASSWORD"}:
            token = self.org_user_tokens("", {"user_identifier": "alice-laptop"})
            password = base64.b64encode(f"__token__:{token['token']}".encode()).decode()
            values |= {"TOKEN": token["token"], "TOKEN_AS_PASSWORD": password, "TOKEN_ID": token["id"]}
        if placeholders & {"API_KEY", "API_KEY_ID"}:
            new = {"name": "ci-pipeline", "environment": "live", "scopes": ["shield:write", "org:read"]}
            key = self.bot("POST", "/v1/api-keys", new)
            values |= {"API_KEY": key["key"], "API_KEY_ID": key["id"]}
        if placeholders & {"ACCESS_TOKEN", "ACCESS_TOKEN_ID"}:
            self.names += 1
            token = self.bot("POST", "/api/v2/organization/tokens/", {"name": f"Factor export pipeline {self.names}"})
            values |= {"ACCESS_TOKEN": token["token"], "ACCESS_TOKEN_ID": str(token["id"])}
        if placeholders & {"SCIM_USER_ID", "SCIM_USER_NAME"}:
            self.names += 1
            name = f"employee-{self.names}@example.com"
            user = self.bot("POST", "/scim/v2/Users", {"userName": name})
            values |= {"SCIM_USER_ID": user["id"], "SCIM_USER_NAME": name}
        if "SESSION" in placeholders:
            values["SESSION"] = self.session()
        if placeholders & {"EMAIL", "KEY", "CODE"}:
            self.addresses += 1
            values["EMAIL"] = f"person-{self.addresses}@example.com"
        if placeholders & {"KEY", "CODE"}:
            values["KEY"] = self.mailed_to(values["EMAIL"], KEY)
        if "CODE" in placeholders:
            # The address has a token now, so the second mail contains a reset code.
            values["CODE"] = self.mailed_to(values["EMAIL"], CODE)
        return values

    def stop(self):
        """Stops the service."""
        stop(self.process)


def stop(process):
    """Stops a process that this script started."""
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def free_ports(count):
    """Ports that no process listens on."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


class Function:
    """A function's binary under the emulator, for as long as the context lasts."""

    def __init__(self, emulator, binary, env, log_path):
        self.port, api_port = free_ports(2)
        command = [
            emulator,
            "--runtime-interface-emulator-address", f"127.0.0.1:{self.port}",
            "--runtime-api-address", f"127.0.0.1:{api_port}",
            binary,
        ]  # fmt: skip
        with log_path.open("wb") as log:
            self.process = subprocess.Popen(command, env=env, stdout=log, stderr=subprocess.STDOUT, cwd=log_path.parent)

    def __enter__(self):
        deadline = time.monotonic() + SECONDS_TO_START
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return self
            except OSError:
                assert self.process.poll() is None and time.monotonic() < deadline, "the emulator did not start"
                time.sleep(0.02)

    def __exit__(self, *_):
        stop(self.process)

    def call(self, event):
        """Sends an event and returns the response."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=SECONDS_TO_ANSWER)
        with contextlib.closing(connection):
            connection.request("POST", "/2015-03-31/functions/function/invocations", json.dumps(event))
            return json.load(connection.getresponse())

    def pids(self):
        """The processes of the binary, which the emulator started. Only on Linux."""
        tasks = Path(f"/proc/{self.process.pid}/task").glob("*/children")
        return [int(pid) for task in tasks for pid in task.read_text().split()]


def invoke(emulator, binary, event, env, log_path):
    """Starts a function under the emulator, sends it one event and returns the response."""
    return invoke_each(emulator, binary, [event], env, log_path)[0]


def invoke_each(emulator, binary, events, env, log_path):
    """Starts a function under the emulator, sends it the events in order and returns the
    responses."""
    with Function(emulator, binary, env, log_path) as function:
        return [function.call(event) for event in events]


class Upstream(http.server.BaseHTTPRequestHandler):
    """An npm registry with one package, whose metadata is large enough to be compressed. Keeps
    connections open, as registries do."""

    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self.send_response(200)
        self.end_headers()

    def do_GET(self):
        tarball = f"http://{self.headers['host']}/widgets/-/widgets-1.0.0.tgz"
        versions = {"1.0.0": {"version": "1.0.0", "description": "w\u00efdgets " * 500, "dist": {"tarball": tarball}}}
        body = json.dumps({"name": "widgets", "versions": versions}, ensure_ascii=False).encode()
        media_type = "application/json"
        if self.path.startswith("/simple/"):
            body, media_type = b'<a href="/packages/widgets-1.0-py3-none-any.whl">widgets</a>', "text/html"
        self.send_response(200)
        self.send_header("content-type", media_type)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Keeps requests out of the output."""
