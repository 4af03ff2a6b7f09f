"""Compares pages of the console with the API calls that they show: bench/console/run [--built]

Starts the local service with its database in memory, fills an organization, and asks in turn for a
page and for its API call, so that noise hits both. Prints the median time of each and their ratio,
which should be at most 2. Builds the service in release mode; `--built` takes the debug build of
`cargo build`. Needs Linux and Python 3.11.
"""

import argparse
import contextlib
import http.client
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "rie"))

from harness import Service  # noqa: E402

ROUNDS = 200
TOKENS = 50


def timed(connection, path, headers):
    """Sends a request, reads the answer, and returns the time in milliseconds."""
    started = time.perf_counter()
    connection.request("GET", path, headers=headers)
    response = connection.getresponse()
    response.read()
    elapsed = (time.perf_counter() - started) * 1000
    assert response.status == 200, f"{path}: {response.status}"
    return elapsed


def main():
    """Fills an organization, and prints one line for each page."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--built", action="store_true", help="use the debug build")
    built = parser.parse_args().built
    if not built:
        subprocess.run(["cargo", "build", "--release", "--workspace", "--bin", "guard-tokens"], check=True, cwd=ROOT)
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    binary = target / ("debug" if built else "release") / "guard-tokens"
    with tempfile.TemporaryDirectory() as folder, contextlib.closing(Local(binary, Path(folder))) as service:
        service.fill()
        print(f"{'page':<16}{'page, ms':>10}{'API, ms':>10}{'ratio':>8}")
        for page, call in service.pairs():
            times = service.compare(page, call)
            name = page.rsplit("/", 1)[1]
            print(f"{name:<16}{times[0]:>10.2f}{times[1]:>10.2f}{times[0] / times[1]:>8.2f}")


class Local(Service):
    """The local service, filled and measured."""

    def close(self):
        """Stops the service."""
        self.stop()

    def fill(self):
        """Creates as many tokens as one page shows, and some of every other kind."""
        for number in range(TOKENS):
            self.org_user_tokens("", {"user_identifier": f"person-{number:04}"})
        new = {"name": "ci-pipeline", "environment": "live", "scopes": ["shield:write"]}
        for number in range(10):
            self.bot("POST", "/v1/api-keys", new)
            self.bot("POST", "/api/v2/organization/tokens/", {"name": f"device {number}"})

    def pairs(self):
        """Each page with the API call that it shows."""
        org = self.env["ORG"]
        console = f"/console/o/{org}"
        return [
            (f"{console}/tokens", f"/v1/o/{org}/guard/org-user-tokens"),
            (f"{console}/installations", f"/v1/o/{org}/guard/installations"),
            (f"{console}/api-keys", "/v1/api-keys"),
            (f"{console}/access-tokens", "/api/v2/organization/tokens/"),
            (f"{console}/audit-log", f"/v1/o/{org}/audit-log"),
        ]

    def compare(self, page, call):
        """The median times of a page and of its call, in milliseconds."""
        host = self.env["BASE_URL"].removeprefix("http://")
        cookie = {"cookie": f"guard_session_{host.rsplit(':', 1)[1]}={self.session()}"}
        bearer = {"authorization": f"Bearer {self.env['BOT_API_KEY']}:{self.env['BOT_ID']}"}
        connection = http.client.HTTPConnection(host, timeout=10)
        with contextlib.closing(connection):
            both = [(timed(connection, page, cookie), timed(connection, call, bearer)) for _ in range(ROUNDS)]
        return [statistics.median(times) for times in zip(*both, strict=True)]


if __name__ == "__main__":
    main()
