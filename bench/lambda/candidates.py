"""The measured functions: ours, a no-op, and the same check of a token in other languages."""

import base64
import http.client
import io
import json
import os
import string
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from emulator import ROOT, Program, harness
from tls import Tls

FLOOR = "no-op in Rust"
FLOOR_WITH_TLS = "no-op in Rust with TLS"
NODE, PYTHON = "the same check in Node.js", "the same check in Python"
AUTHORIZE, INTROSPECT, ISSUE = "tokens-authorize", "tokens-introspect", "org-user-tokens-issue"
NPM, PYPI = "registry-npm", "registry-pypi"
BEFORE = ", before"
NOTHING_KEPT = ", nothing kept"

PACKAGE = "bench-medium"
VERSIONS = 205
ABBREVIATED = "application/vnd.npm.install-v1+json"
SIMPLE_JSON = "application/vnd.pypi.simple.v1+json"

# An event as JSON, and a check of its response.
Call = tuple[bytes, Callable[[Any], None]]


@dataclass(frozen=True)
class Candidate:
    """A function to measure."""

    name: str
    program: Program
    # Creates an event with a token used a moment ago, so that the call does not update
    # `last_used_at`.
    prepare: Callable[[], Call]
    # The size of the uploaded archive and of its contents, in bytes.
    zipped: int
    unpacked: int

    @property
    def operation(self) -> str:
        """The operation that it does, as the template names it."""
        return AUTHORIZE if self.name in (NODE, PYTHON) else self.name.removesuffix(BEFORE).removesuffix(NOTHING_KEPT)


@dataclass(frozen=True)
class Peers:
    """The paths of what `bench/run` installs for Node.js and Python."""

    node: str
    node_modules: Path
    bundle: Path
    python: str


@dataclass
class World:
    """What the functions call: the local service with its embedded DynamoDB, and an upstream
    registry."""

    service: Any
    # Its base URL.
    upstream: str
    # In front of the embedded DynamoDB, if the functions call it through TLS.
    tls: Tls | None = None
    _numbers: int = field(default=0)

    def used_token(self) -> tuple[str, Any]:
        """A new org user token that has just been used, and the authorizer's context for it."""
        self._numbers += 1
        token = self.service.org_user_tokens("", {"user_identifier": f"bench-{self._numbers}"})["token"]
        status, context = self.service.request("GET", "/v1/whoami", token)
        assert status == 200, context
        return token, context

    def env(self, name: str) -> dict[str, str]:
        """A function's environment, without this process's variables."""
        env = {
            key: value for key, value in self.service.env.items() if key.startswith("AWS_") or key.endswith("_TABLE")
        }
        env |= {"PATH": os.defpath, "RUST_LOG": "info", "AWS_EC2_METADATA_DISABLED": "true"}
        env |= {"AWS_LAMBDA_FUNCTION_NAME": name, "AWS_DEFAULT_REGION": env["AWS_REGION"], "TZ": "UTC"}
        return env | (self.tls.env() if self.tls else {})


def event(name: str, values: dict[str, str]) -> dict[str, Any]:
    """A function's event from `events/` with its placeholders replaced."""
    return json.loads(string.Template((ROOT / "events" / f"{name}.json").read_text()).substitute(values))


def authorize(world: World) -> Call:
    """Authorizes a request with an org user token."""
    token, context = world.used_token()
    call = event(AUTHORIZE, {"API_KEY": token})

    def check(answer: Any) -> None:
        assert answer == {"isAuthorized": True, "context": context}, answer

    return json.dumps(call).encode(), check


def introspect(world: World) -> Call:
    """Introspects an org user token."""
    token, _ = world.used_token()
    call = event(INTROSPECT, world.service.env | {"API_KEY": token})
    call["body"] = json.dumps({"token": token})
    return json.dumps(call).encode(), expecting(200, lambda body: body["active"])


def issue(world: World) -> Call:
    """Issues an org user token."""
    return json.dumps(event(ISSUE, world.service.env)).encode(), expecting(201, lambda body: body["token"])


def npm(world: World) -> Call:
    """Fetches npm metadata."""
    token, _ = world.used_token()
    call = event(NPM, {"TOKEN": token})
    call["rawPath"] = call["requestContext"]["http"]["path"] = f"/npm/{PACKAGE}"
    call["headers"] |= {"accept": ABBREVIATED}
    return json.dumps(call).encode(), expecting(200, None)


def pypi(world: World) -> Call:
    """Fetches the page of a Python project."""
    token, _ = world.used_token()
    credential = base64.b64encode(f"__token__:{token}".encode()).decode()
    call = event(PYPI, {"TOKEN": token, "TOKEN_AS_PASSWORD": credential})
    call["rawPath"] = call["requestContext"]["http"]["path"] = f"/pypi/simple/{PACKAGE}/"
    call["headers"] |= {"accept": SIMPLE_JSON}
    return json.dumps(call).encode(), expecting(200, None)


def without_cache(prepare: Callable[[World], Call]) -> Callable[[World], Call]:
    """The same call of a registry, which lets it fetch, rewrite and compress anew."""

    def prepared(world: World) -> Call:
        call, check = prepare(world)
        anew = json.loads(call)
        anew["headers"] |= {"cache-control": "no-cache"}
        return json.dumps(anew).encode(), check

    return prepared


def nothing(world: World) -> Call:
    """Calls the no-op with the event of introspection."""
    call, _ = introspect(world)

    def check(answer: Any) -> None:
        assert answer["statusCode"] == 200, answer

    return call, check


def expecting(status: int, body: Callable[[Any], Any] | None) -> Callable[[Any], None]:
    """Checks a response to API Gateway. Without a check of the body, the body must be in Base64."""

    def check(answer: Any) -> None:
        assert answer.get("statusCode") == status, answer
        assert body(json.loads(answer["body"])) if body else answer["isBase64Encoded"], answer

    return check


def archive(files: dict[str, bytes]) -> int:
    """The size of a ZIP archive of these files."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as made:
        for name, contents in files.items():
            made.writestr(name, contents)
    return buffer.tell()


def rust(name: str, binary: Path, prepare: Callable[[World], Call], world: World, folder: Path) -> Candidate:
    """A candidate for a Rust binary."""
    env = world.env(binary.name)
    if binary.name in (NPM, PYPI):
        env |= {"NPM_UPSTREAM": f"{world.upstream}/npm/", "PYPI_UPSTREAM": f"{world.upstream}/pypi/simple/"}
        env |= {"PYPI_FILE_HOSTS": "", "ANONYMOUS_ACCESS": "deny", "PUBLIC_URL": ""}
    contents = binary.read_bytes()
    program = Program([str(binary)], env, folder)
    return Candidate(name, program, lambda: prepare(world), archive({"bootstrap": contents}), len(contents))


def candidates(world: World, bins: Path, before: Path | None, peers: Peers, folder: Path) -> list[Candidate]:
    """All candidates; `before` is a folder with other builds of our functions."""
    ways = {AUTHORIZE: authorize, INTROSPECT: introspect, ISSUE: issue, NPM: npm, PYPI: pypi}
    found = [rust(FLOOR, bins / "floor", nothing, world, folder)]
    if world.tls:
        connecting = rust(FLOOR_WITH_TLS, bins / "floor-with-tls", nothing, world, folder)
        place = connecting.program.env["AWS_ENDPOINT_URL_DYNAMODB"].removeprefix("https://")
        connecting.program.command.extend([place, connecting.program.env["SSL_CERT_FILE"]])
        found.append(connecting)
    found += [rust(name, bins / name, prepare, world, folder) for name, prepare in ways.items()]
    if world.tls:
        for name in (NPM, PYPI):
            found.append(rust(name + NOTHING_KEPT, bins / name, without_cache(ways[name]), world, folder))
    for name, prepare in ways.items():
        if before and (before / name).exists():
            found.append(rust(name + BEFORE, before / name, prepare, world, folder))

    bundle = peers.bundle.read_bytes()
    command = [peers.node, str(peers.node_modules / "aws-lambda-ric/bin/index.mjs"), "verify.handler"]
    program = Program(command, world.env("verify"), peers.bundle.parent)
    zipped = archive({"verify.js": bundle})
    found.append(Candidate(NODE, program, lambda: authorize(world), zipped, len(bundle)))

    source = ROOT / "bench/peers/python/verify.py"
    program = Program([peers.python, "-m", "awslambdaric", "verify.handler"], world.env("verify"), source.parent)
    # On Lambda the code is read-only, and installed packages are already compiled.
    program.env["PYTHONDONTWRITEBYTECODE"] = "1"
    contents = source.read_bytes()
    found.append(Candidate(PYTHON, program, lambda: authorize(world), archive({"verify.py": contents}), len(contents)))
    return found


class Upstream:
    """The static upstream of `bench/registry`."""

    def __init__(self) -> None:
        (port,) = harness.free_ports(1)
        self.url = f"http://127.0.0.1:{port}"
        script = ROOT / "bench/registry/static_upstream.py"
        self._process = subprocess.Popen([sys.executable, str(script), self.url])
        deadline = time.monotonic() + 60
        while True:
            try:
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
                connection.request("GET", f"/npm/{PACKAGE}", headers={"accept": ABBREVIATED})
                assert len(json.loads(connection.getresponse().read())["versions"]) == VERSIONS
                return
            except OSError:
                assert self._process.poll() is None and time.monotonic() < deadline, "the upstream did not start"
                time.sleep(0.1)

    def stop(self) -> None:
        """Stops it."""
        harness.stop(self._process)
