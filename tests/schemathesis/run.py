"""Calls every operation of `openapi.json` with valid and invalid input:
tests/schemathesis/run [OPTIONS]

Starts the local service in memory with an upstream registry. Schemathesis calls it with the demo
organization's credentials and checks each response against the document. Options are passed on to
`schemathesis run`. Needs the binary of `cargo build`, and Schemathesis in the virtual environment
that .ci/run creates or on the PATH.
"""

import http.server
import json
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from urllib.parse import unquote

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
SERVICE = HERE.parent / "e2e"
# Must differ from the service's host: the service never redirects to a host to which clients would
# send their tokens.
UPSTREAM_NAME = "localhost"

sys.dont_write_bytecode = True
sys.path.insert(0, str(SERVICE))
from service import Service, call  # noqa: E402


class Upstream(http.server.BaseHTTPRequestHandler):
    """Upstream registries with two npm packages and a Python project, one version each."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        root, _, name = unquote(self.path).strip("/").partition("/")
        base = f"http://{self.headers['host']}/{root}"
        if root == "npm" and name in ("widgets", "@example/widgets"):
            dist = {"tarball": f"{base}/{name}/-/widgets-1.0.0.tgz"}
            body = {"name": name, "versions": {"1.0.0": {"version": "1.0.0", "dist": dist}}}
            self.answer(200, "application/json", body)
        elif root == "simple" and name == "widgets":
            wheel = "widgets-1.0.0-py3-none-any.whl"
            files = [{"filename": wheel, "url": f"{base}/{wheel}", "hashes": {}}]
            body = {"meta": {"api-version": "1.0"}, "name": name, "files": files}
            self.answer(200, "application/vnd.pypi.simple.v1+json", body)
        else:
            self.answer(404, "application/json", {"error": "not found"})

    def answer(self, status, content_type, body):
        body = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", content_type)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Keeps requests out of the output."""


def main():
    """Runs Schemathesis and returns the exit code."""
    binary = TARGET / "debug" / "guard-tokens"
    if not binary.exists():
        sys.exit("guard-tokens is not built; run cargo build")
    with (
        tempfile.TemporaryDirectory(prefix="guard-tokens-schemathesis-") as folder,
        http.server.ThreadingHTTPServer(("127.0.0.1", 0), Upstream) as upstream,
    ):
        upstream.daemon_threads = True
        threading.Thread(target=upstream.serve_forever, daemon=True).start()
        base = f"http://{UPSTREAM_NAME}:{upstream.server_port}"
        service = Service(binary, Path(folder) / "service", f"{base}/npm/", f"{base}/simple/")
        try:
            new = {"name": "schemathesis", "environment": "live", "scopes": ["org:read", "org:write", "audit:read"]}
            api_key = call(f"{service.url}/v1/api-keys", service.bot, "POST", new).json["key"]
            env = os.environ | {
                "URL": service.url,
                "ORG": service.org,
                "BOT": service.bot,
                "API_KEY": api_key,
                "ORG_TOKEN": service.issue("schemathesis").token,
                "PYTHONPATH": f"{HERE}:{SERVICE}",
                "PYTHONDONTWRITEBYTECODE": "1",
                "PATH": f"{TARGET / 'tools' / 'bin'}:{os.environ['PATH']}",
            }
            command = ["schemathesis", "--config-file", HERE / "schemathesis.toml", "run", ROOT / "openapi.json"]
            command += ["--url", service.url, *sys.argv[1:]]
            status = subprocess.run(command, env=env, cwd=folder).returncode
            panics = [line for line in service.log().splitlines() if "panicked" in line or "ERROR" in line]
        finally:
            service.stop()
            upstream.shutdown()
    for line in panics:
        print(f"logged by the service: {line}")
    return status or bool(panics)


if __name__ == "__main__":
    sys.exit(main())
