"""The routes to the upstream's packages: directly, through our service, and through verdaccio as a
caching proxy."""

import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from service import Service, call
from tools import Tools
from upstreams import UPSTREAM_NAME, free_port, stop, wait_for

UPSTREAM, CONTROL, GUARD = "upstream alone", "upstream alone, again", "guard-tokens"
VERDACCIO, VERDACCIO_FRESH = "verdaccio", "verdaccio, `maxage: 0s`"

VERDACCIO_CONFIG = """\
storage: ./storage
auth: {{ htpasswd: {{ file: ./htpasswd, algorithm: bcrypt }} }}
security: {{ api: {{ jwt: {{ sign: {{ expiresIn: 1d }} }} }} }}
uplinks:
  upstream: {{ url: '{upstream}', maxage: {maxage} }}
packages:
  '**': {{ access: $authenticated, proxy: upstream }}
log: {{ type: stdout, format: json, level: http }}
web: {{ enable: false }}
"""


@dataclass
class Way:
    """A route to packages."""

    name: str
    # The base URLs of its registries, `npm` and maybe `pypi`, each with a trailing slash.
    roots: dict[str, str]
    process: subprocess.Popen[bytes]
    # Headers that callers send with every request.
    headers: dict[str, str] = field(default_factory=dict)

    def stop(self) -> None:
        """Stops its server."""
        if self.process.poll() is None:
            stop(self.process)


def start_upstream(folder: Path) -> Way:
    """Starts the upstream, with which all others are compared."""
    port = free_port()
    # Must differ from our service's host name, to which the service never redirects.
    base = f"http://{UPSTREAM_NAME}:{port}"
    process = start([sys.executable, str(Path(__file__).with_name("static_upstream.py")), base], folder, port)
    return Way(UPSTREAM, {"npm": f"{base}/npm/", "pypi": f"{base}/pypi/simple/"}, process)


class Guard(Service):
    """Our service, started as in the end-to-end tests."""

    def as_way(self) -> Way:
        """The route through the service, with a new org user token."""
        bearer = {"Authorization": f"Bearer {self.issue('benchmark').token}"}
        return Way(GUARD, {"npm": f"{self.url}/npm/", "pypi": f"{self.url}/pypi/simple/"}, self._process, bearer)


def start_verdaccio(name: str, tools: Tools, folder: Path, upstream: Way, maxage: str) -> Way:
    """Starts verdaccio, which requires a login. `maxage` is the time for which it does not ask the
    upstream again."""
    port = free_port()
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(VERDACCIO_CONFIG.format(upstream=upstream.roots["npm"], maxage=maxage))
    command = [*tools.verdaccio, "--config", "config.yaml", "--listen", f"127.0.0.1:{port}"]
    return Way(name, {"npm": f"http://127.0.0.1:{port}/"}, start(command, folder, port, tools.environment(folder)))


def log_in(verdaccio: Way) -> None:
    """Creates a user, whose token callers send from now on."""
    user = {"name": "benchmark", "password": "benchmark", "type": "user", "roles": []}
    answer = call(f"{verdaccio.roots['npm']}-/user/org.couchdb.user:benchmark", method="PUT", body=user)
    assert answer.status == 201, answer
    verdaccio.headers = {"Authorization": f"Bearer {answer.json['token']}"}


def start(command: list[str], folder: Path, port: int, env: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
    """Starts a server and waits until it listens."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "server.log"
    with log.open("wb") as out:
        process = subprocess.Popen(command, cwd=folder, env=env, stdout=out, stderr=subprocess.STDOUT)
    wait_for(port, process, log)
    return process
