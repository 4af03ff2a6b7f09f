"""Fixtures: the clients, the upstream registries, our service, and the ways to reach it.

Servers are started once per worker of pytest-xdist. Each test has its own folders, tokens and
names.
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

from clients import Client, OwnHost
from gateway import DECODED, ENCODED, HICCUPS, Exchange, Proxy
from service import Service
from tools import Tools
from upstreams import UPSTREAM_NAME, PypiServer, ScatteredFiles, SimpleIndex, Verdaccio, free_port

ROOT = Path(__file__).resolve().parents[2]
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))


@pytest.fixture(scope="session")
def tools() -> Tools:
    """The pinned clients that `install` installs."""
    return Tools(TARGET.resolve() / "e2e")


@pytest.fixture(scope="session")
def verdaccio(tools: Tools, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Verdaccio]:
    """The upstream npm registry."""
    started = Verdaccio(tools, tmp_path_factory.mktemp("verdaccio") / "server")
    yield started
    started.stop()


@pytest.fixture(scope="session")
def own_index() -> Iterator[SimpleIndex]:
    """An upstream Python index with the features of PyPI."""
    started = SimpleIndex()
    yield started
    started.stop()


@pytest.fixture(scope="session")
def pypiserver(tools: Tools, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PypiServer]:
    """An upstream Python index as companies run it: HTML only."""
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
        assert secret not in log, "the service logged a token"


@pytest.fixture(scope="session")
def service(
    verdaccio: Verdaccio, own_index: SimpleIndex, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    """Our service with verdaccio and our own index as upstreams."""
    yield from _service(tmp_path_factory.mktemp("service"), verdaccio.url, own_index.url)


@pytest.fixture(scope="session")
def service_with_pypiserver(
    verdaccio: Verdaccio, pypiserver: PypiServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    """Our service with verdaccio and pypiserver as upstreams."""
    yield from _service(tmp_path_factory.mktemp("service"), verdaccio.url, pypiserver.url)


@pytest.fixture(scope="session")
def scattered_files(verdaccio: Verdaccio) -> Iterator[ScatteredFiles]:
    """An upstream npm registry whose tarballs are on another host."""
    started = ScatteredFiles(verdaccio)
    yield started
    started.stop()


@pytest.fixture(scope="session")
def service_with_scattered_files(
    scattered_files: ScatteredFiles, own_index: SimpleIndex, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    """Our service with that registry as its upstream."""
    yield from _service(tmp_path_factory.mktemp("service"), scattered_files.url, own_index.url)


@pytest.fixture(scope="session")
def service_with_dead_upstreams(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Our service with upstreams that are down."""
    dead = f"http://{UPSTREAM_NAME}:{free_port()}/"
    yield from _service(tmp_path_factory.mktemp("service"), dead, f"{dead}simple/")


@dataclass
class Hiccups:
    """Our service with upstreams that fail at the first request for each path."""

    service: Service
    npm: Proxy
    pypi: Proxy


@pytest.fixture(scope="session")
def hiccups(
    verdaccio: Verdaccio, own_index: SimpleIndex, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Hiccups]:
    """Verdaccio and our own index, each behind a proxy with hiccups."""
    npm, pypi = Proxy(verdaccio.url, HICCUPS, name=UPSTREAM_NAME), Proxy(own_index.url, HICCUPS, name=UPSTREAM_NAME)
    for started in _service(tmp_path_factory.mktemp("service"), f"{npm.url}/", f"{pypi.url}/simple/"):
        yield Hiccups(started, npm, pypi)
    npm.stop()
    pypi.stop()


FRONTS = {"directly": None, "through API Gateway": ENCODED, "through API Gateway, paths decoded": DECODED}


@pytest.fixture(scope="session")
def fronts(service: Service) -> Iterator[dict[str, str]]:
    """The base URLs at which the clients call us."""
    proxies = {name: Proxy(service.url, behaviour, renames=True) for name, behaviour in FRONTS.items() if behaviour}
    yield {"directly": service.url} | {name: proxy.url for name, proxy in proxies.items()}
    for proxy in proxies.values():
        proxy.stop()


@pytest.fixture(params=FRONTS)
def base(request: pytest.FixtureRequest, fronts: dict[str, str]) -> str:
    """The base URL for each way to reach us."""
    return fronts[request.param]


@pytest.fixture(scope="session")
def own_hosts(service: Service) -> Iterator[dict[str, OwnHost]]:
    """The registries' own hosts. Not every machine resolves `npm.localhost`: proxies stand in for
    the names."""
    port = service.url.rpartition(":")[2]
    proxies = {
        name: Proxy(service.url, ENCODED, renames=True, known_as=f"{name}.localhost:{port}") for name in ("npm", "pypi")
    }
    yield {name: OwnHost(proxy.url) for name, proxy in proxies.items()}
    for proxy in proxies.values():
        proxy.stop()


@pytest.fixture
def make_client(tools: Tools, tmp_path: Path) -> Callable[[type[Client]], Client]:
    """Creates a client with its own folders."""
    numbers = itertools.count()
    return lambda kind: kind(tools, tmp_path / str(next(numbers)))


@pytest.fixture
def person(request: pytest.FixtureRequest) -> Callable[[str], str]:
    """Creates a `user_identifier` unique to the test."""
    test = re.sub(r"[^0-9A-Za-z]+", "-", request.node.name).strip("-")
    return lambda name: f"{name}-{test}"


@pytest.fixture
def email(request: pytest.FixtureRequest) -> str:
    """An address unique to the test."""
    return f"person-{hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:20]}@example.com"


TOKEN = re.compile(r"(?:tg_anon|tg_org|tk_live|tk_test|oat|shisho_apikey)_[0-9A-Za-z]{6}")


def contains_token(text: str) -> bool:
    """Whether the text contains one of our tokens, plain or in Base64."""
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
    """Asserts after each test that no request to an upstream contained a token."""
    names = {"verdaccio", "own_index", "pypiserver"} & set(request.fixturenames)
    watched = [request.getfixturevalue(name) for name in names]
    before = [len(upstream.exchanges) for upstream in watched]
    yield
    for upstream, seen in zip(watched, before, strict=True):
        for exchange in upstream.exchanges[seen:]:
            assert_no_token(exchange)


def assert_no_token(exchange: Exchange) -> None:
    """Asserts that a request to an upstream contained no token and no other credential."""
    sent = exchange.everything_sent()
    assert not contains_token(sent), f"a token was sent to the upstream: {exchange.method} {exchange.target}"
    assert exchange.header("authorization") is None, f"a credential was sent to the upstream: {sent}"
    assert exchange.header("cookie") is None, f"a cookie was sent to the upstream: {sent}"
