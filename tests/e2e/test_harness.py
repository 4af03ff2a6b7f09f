"""Tests of the suite's own checks and proxy: a check that cannot fail proves nothing."""

import base64

import pytest

from conftest import assert_no_token, contains_token
from gateway import DECODED, ENCODED, Exchange, Handler, Proxy, Server
from service import call

TOKEN = "tg_org_" + "0aZ" * 14


@pytest.mark.parametrize("user", ["token", "__token__", "a", "ab", ""])
def test_token_is_detected_in_any_form(user: str) -> None:
    basic = base64.b64encode(f"{user}:{TOKEN}".encode()).decode()
    for text in (TOKEN, f"Bearer {TOKEN}", f"Basic {basic}", f"/-/user/token/{TOKEN}", f"https://{user}:{TOKEN}@host/"):
        assert contains_token(f"GET /somewhere\nx: {text}\n")
    assert not contains_token(
        "GET /npm/guard-e2e-app\nuser-agent: npm/12.2.0\nreferer: https://host/npm/guard-e2e-app\n"
    )


def test_credential_sent_to_an_upstream_is_detected() -> None:
    exchange = Exchange("GET", "/", [("Authorization", "Basic anything")], b"", 200, [])
    with pytest.raises(AssertionError):
        assert_no_token(exchange)
    assert_no_token(Exchange("GET", "/", [("Accept", "*/*")], b"", 200, []))


class Echo(Handler):
    """Responds with the path and a challenge."""

    def do_GET(self) -> None:
        """One response."""
        self.answer(401, [("WWW-Authenticate", "Bearer")], f"{self.headers['host']} {self.path}".encode())


def test_proxy_makes_only_the_changes_of_api_gateway() -> None:
    server = Server("127.0.0.1", Echo)
    for behaviour, path in ((ENCODED, "/a%2fb?c=%2f"), (DECODED, "/a/b?c=%2f")):
        proxy = Proxy(f"http://127.0.0.1:{server.port}", behaviour)
        answer = call(f"{proxy.url}/a%2fb?c=%2f")
        assert answer.status == 401
        assert answer.body.decode() == f"127.0.0.1:{proxy.port} {path}"
        assert "www-authenticate" not in answer.headers
        assert answer.headers["x-amzn-remapped-www-authenticate"] == "Bearer"
        proxy.stop()
    server.stop()


def test_renaming_proxy_hides_itself_from_the_server_and_the_server_from_clients() -> None:
    server = Server("127.0.0.1", EchoUrl)
    proxy = Proxy(f"http://127.0.0.1:{server.port}", renames=True)
    assert call(f"{proxy.url}/a").body.decode() == f"{proxy.url}/a"
    assert server.exchanges[0].header("host") == f"127.0.0.1:{server.port}"
    proxy.stop()
    server.stop()


class EchoUrl(Handler):
    """Responds with the requested URL."""

    def do_GET(self) -> None:
        """One response."""
        self.answer(200, [], f"http://{self.headers['host']}{self.path}".encode())
