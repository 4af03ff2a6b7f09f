"""npm, pnpm, yarn 1, yarn 4 and bun install scoped and unscoped packages through our service, in
the ways that are theirs alone."""

from typing import Any

import pytest

from clients import NPM_CLIENTS, Npm, NpmBefore, OwnHost
from conftest import contains_token
from fixtures import APP, PLAIN, SCOPED
from flows import MakeClient, Person, assert_installed, assert_logged
from service import Service, call
from upstreams import ScatteredFiles, Verdaccio

each_client = pytest.mark.parametrize("kind", NPM_CLIENTS, ids=lambda kind: kind.name)


@each_client
def test_tarballs_on_another_host_are_installed_and_logged_by_their_own_names(
    service_with_scattered_files: Service,
    scattered_files: ScatteredFiles,
    make_client: MakeClient,
    kind: type[Any],
    person: Person,
) -> None:
    service = service_with_scattered_files
    client = make_client(kind)
    client.require()
    alice = service.issue(person("alice"))
    client.configure(service.url, alice.token)
    client.install().ok()
    assert_installed(client)
    assert_logged(service, alice, client, client.logged_commands[0])
    assert {exchange.status for exchange in scattered_files.exchanges} == {200}
    assert not [exchange for exchange in scattered_files.exchanges if contains_token(exchange.everything_sent())]


@each_client
def test_changed_tarball_fails_the_clients_integrity_check(
    service: Service, make_client: MakeClient, kind: type[Any], person: Person
) -> None:
    """Without this, the tests above would not prove that the published bytes arrive."""
    client = make_client(kind)
    client.require()
    token = service.issue(person("alice"))
    client.configure(service.url, token.token)
    client.install().ok()
    client.forget()
    client.break_lock()
    client.install_locked().failed().says(client.integrity_error)


@each_client
@pytest.mark.parametrize("user", ["token", "__token__", "alice"])
def test_token_is_accepted_as_basic_password(
    service: Service, make_client: MakeClient, kind: type[Any], person: Person, user: str
) -> None:
    client = make_client(kind)
    client.require()
    client.configure_basic(service.url, user, service.issue(person("alice")).token)
    client.install().ok()
    assert_installed(client)


@pytest.mark.parametrize("kind", [Npm, NpmBefore], ids=lambda kind: kind.name)
def test_npm_ping_whoami_and_view_succeed(
    service: Service, make_client: MakeClient, kind: type[Any], person: Person
) -> None:
    client = make_client(kind)
    client.require()
    client.configure(service.url, service.issue(person("alice")).token)
    client.run("ping").ok().says("PONG")
    client.run("whoami").ok().says(person("alice"))
    client.run("view", SCOPED, "versions").ok().says("1.1.0")


def test_npm_ping_whoami_view_and_logout_work_at_the_registrys_own_host(
    service: Service, own_hosts: dict[str, OwnHost], make_client: MakeClient, person: Person
) -> None:
    client = make_client(Npm)
    client.require()
    token = service.issue(person("alice"))
    client.configure(own_hosts["npm"], token.token)
    client.install().ok()
    client.run("ping").ok().says("PONG")
    client.run("whoami").ok().says(person("alice"))
    client.run("view", SCOPED, "versions").ok().says("1.1.0")
    client.run("logout").says("The token is revoked")
    assert call(f"{own_hosts['npm']}/-/whoami", token.token).status == 401


@pytest.mark.parametrize(
    "command", [["publish"], ["deprecate", f"{PLAIN}@1.0.0", "old"], ["unpublish", "--force", f"{PLAIN}@1.0.0"]]
)
def test_npm_write_is_refused_with_405(
    service: Service, verdaccio: Verdaccio, make_client: MakeClient, person: Person, command: list[str]
) -> None:
    client = make_client(Npm)
    (client.project / "package.json").write_text(f'{{"name": "{PLAIN}", "version": "9.9.9"}}')
    client.configure(service.url, service.issue(person("alice")).token)
    client.run(*command).failed().says("405")
    assert {exchange.method for exchange in verdaccio.exchanges} <= {"GET", "HEAD", "POST"}


@pytest.mark.parametrize("kind", [Npm, NpmBefore], ids=lambda kind: kind.name)
def test_npm_logout_revokes_the_token_and_says_so(
    service: Service, verdaccio: Verdaccio, make_client: MakeClient, kind: type[Any], person: Person
) -> None:
    """npm logout sends a DELETE with the token in the path."""
    client = make_client(kind)
    client.require()
    token = service.issue(person("alice"))
    client.configure(service.url, token.token)
    client.run("logout").says("The token is revoked")
    assert not [exchange for exchange in verdaccio.exchanges if "/-/user/" in exchange.target]
    assert call(f"{service.url}/npm/{APP}", token.token).status == 401


@pytest.mark.parametrize("kind", [Npm, NpmBefore], ids=lambda kind: kind.name)
def test_npm_login_says_where_tokens_come_from(service: Service, make_client: MakeClient, kind: type[Any]) -> None:
    client = make_client(kind)
    client.configure(service.url, None)
    client.run("login").failed().says("Get a token from your organization")
