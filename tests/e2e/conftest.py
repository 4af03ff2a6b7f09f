"""What the tests share: the clients, the upstreams, our service, and the ways to reach it.

Everything is started once for each worker of pytest-xdist; each test has folders, tokens and names of its own.
"""

import base64
import hashlib
import itertools
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from clients import Client
from gateway import DECODED, ENCODED, HICCUPS, Exchange, Proxy
from service import Service
from tools import Tools
from upstreams import UPSTREAM_NAME, PypiServer, ScatteredFiles, SimpleIndex, Verdaccio, free_port

ROOT = Path(__file__).resolve().parents[2]
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))


@pytest.fixture(scope="session")
def tools() -> Tools:
    """The pinned clients, which `run` installs."""
    return Tools(TARGET.resolve() / "e2e")


@pytest.fixture(scope="session")
def verdaccio(tools: Tools, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Verdaccio]:
    """The npm registry behind us."""
    started = Verdaccio(tools, tmp_path_factory.mktemp("verdaccio") / "server")
    yield started
    started.stop()


@pytest.fixture(scope="session")
def own_index() -> Iterator[SimpleIndex]:
    """A PyPI index behind us that does what PyPI does."""
    started = SimpleIndex()
    yield started
    started.stop()


@pytest.fixture(scope="session")
def pypiserver(tools: Tools, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PypiServer]:
    """A PyPI index behind us as companies run it."""
    started = PypiServer(tools, tmp_path_factory.mktemp("pypiserver") / "server")
    yield started
    started.stop()


def _service(folder: Path, npm_upstream: str, pypi_upstream: str) -> Iterator[Service]:
    binary = TARGET.resolve() / "debug" / "guard-tokens"
    started = Service(binary, folder / "service", npm_upstream, pypi_upstream)
    yield started
    log = started.log()
    started.stop()
    for secret in started.secrets:
        assert secret not in log, "the service wrote a token into its log"


@pytest.fixture(scope="session")
def service(verdaccio: Verdaccio, own_index: SimpleIndex, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Our service before verdaccio and our own index."""
    yield from _service(tmp_path_factory.mktemp("service"), verdaccio.url, own_index.url)


@pytest.fixture(scope="session")
def service_before_pypiserver(
    verdaccio: Verdaccio, pypiserver: PypiServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    """Our service before verdaccio and pypiserver."""
    yield from _service(tmp_path_factory.mktemp("service"), verdaccio.url, pypiserver.url)


@pytest.fixture(scope="session")
def scattered_files(verdaccio: Verdaccio) -> Iterator[ScatteredFiles]:
    """An npm registry behind us whose files lie elsewhere."""
    started = ScatteredFiles(verdaccio)
    yield started
    started.stop()


@pytest.fixture(scope="session")
def service_before_scattered_files(
    scattered_files: ScatteredFiles, own_index: SimpleIndex, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    """Our service before it."""
    yield from _service(tmp_path_factory.mktemp("service"), scattered_files.url, own_index.url)


@pytest.fixture(scope="session")
def service_before_nobody(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Our service before registries that are down."""
    nobody = f"http://{UPSTREAM_NAME}:{free_port()}/"
    yield from _service(tmp_path_factory.mktemp("service"), nobody, f"{nobody}simple/")


@dataclass
class Hiccups:
    """Our service before registries that fail at the first time of asking."""

    service: Service
    npm: Proxy
    pypi: Proxy


@pytest.fixture(scope="session")
def hiccups(verdaccio: Verdaccio, own_index: SimpleIndex, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hiccups]:
    """Verdaccio and our own index, each behind a proxy that has hiccups."""
    npm, pypi = Proxy(verdaccio.url, HICCUPS, name=UPSTREAM_NAME), Proxy(own_index.url, HICCUPS, name=UPSTREAM_NAME)
    for started in _service(tmp_path_factory.mktemp("service"), f"{npm.url}/", f"{pypi.url}/simple/"):
        yield Hiccups(started, npm, pypi)
    npm.stop()
    pypi.stop()


FRONTS = {"directly": None, "through API Gateway": ENCODED, "through API Gateway, paths decoded": DECODED}


@pytest.fixture(scope="session")
def fronts(service: Service) -> Iterator[dict[str, str]]:
    """The base URLs under which the clients call us."""
    proxies = {name: Proxy(service.url, behaviour) for name, behaviour in FRONTS.items() if behaviour}
    yield {"directly": service.url} | {name: proxy.url for name, proxy in proxies.items()}
    for proxy in proxies.values():
        proxy.stop()


@pytest.fixture(params=FRONTS)
def base(request: pytest.FixtureRequest, fronts: dict[str, str]) -> str:
    """Each way to reach us, one after the other."""
    return fronts[request.param]


@pytest.fixture
def make_client(tools: Tools, tmp_path: Path) -> Callable[[type[Client]], Client]:
    """Makes a client in folders of its own."""
    numbers = itertools.count()
    return lambda kind: kind(tools, tmp_path / str(next(numbers)))


@pytest.fixture
def person(request: pytest.FixtureRequest) -> Callable[[str], str]:
    """Makes a `user_identifier` that no other test has."""
    test = re.sub(r"[^0-9A-Za-z]+", "-", request.node.name).strip("-")
    return lambda name: f"{name}-{test}"


@pytest.fixture
def email(request: pytest.FixtureRequest) -> str:
    """An address that no other test has."""
    return f"person-{hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:20]}@example.com"


TOKEN = re.compile(r"(?:tg_anon|tg_org|tk_live|tk_test|oat|shisho_apikey)_[0-9A-Za-z]{6}")


def holds_a_token(text: str) -> bool:
    """Whether a token of ours stands in the text, plainly or in base 64."""
    if TOKEN.search(text):
        return True
    for run in re.findall(r"[0-9A-Za-z+/_-]{24,}={0,2}", text):
        for start in range(4):
            piece = run[start:].rstrip("=").replace("-", "+").replace("_", "/")
            decoded = base64.b64decode(piece[: len(piece) // 4 * 4]).decode("latin-1")
            if TOKEN.search(decoded):
                return True
    return False


@pytest.fixture(autouse=True)
def upstreams_see_no_token(request: pytest.FixtureRequest) -> Iterator[None]:
    """After each test: not one request that came to an upstream in the meantime holds a token, in whatever place."""
    names = {"verdaccio", "own_index", "pypiserver"} & set(request.fixturenames)
    watched = [request.getfixturevalue(name) for name in names]
    before = [len(upstream.exchanges) for upstream in watched]
    yield
    for upstream, seen in zip(watched, before, strict=True):
        for exchange in upstream.exchanges[seen:]:
            assert_no_token(exchange)


def assert_no_token(exchange: Exchange) -> None:
    """Asserts that an upstream was told no token, nor any other credential."""
    sent = exchange.everything_sent()
    assert not holds_a_token(sent), f"a token came to the upstream: {exchange.method} {exchange.target}"
    assert exchange.header("authorization") is None, f"a credential came to the upstream: {sent}"
    assert exchange.header("cookie") is None, f"a cookie came to the upstream: {sent}"
