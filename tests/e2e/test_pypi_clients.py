"""pip, uv and poetry install wheels and source archives through our service, from both kinds of
index."""

from typing import Any

import pytest

from clients import PYPI_CLIENTS, OwnHost
from flows import MakeClient, Person, assert_installed, assert_logged, life_of_a_token
from service import Service

each_client = pytest.mark.parametrize("kind", PYPI_CLIENTS, ids=lambda kind: kind.name)


@each_client
def test_token_installs_until_revoked_and_a_new_token_installs_again(
    service: Service, base: str, make_client: MakeClient, kind: type[Any], person: Person
) -> None:
    life_of_a_token(service, base, make_client, kind, person)


@each_client
def test_index_at_its_own_host_installs_and_is_logged(
    service: Service, own_hosts: dict[str, OwnHost], make_client: MakeClient, kind: type[Any], person: Person
) -> None:
    client = make_client(kind)
    client.require()
    alice = service.issue(person("alice"))
    client.configure(own_hosts["pypi"], alice.token)
    client.install().ok()
    assert_installed(client)
    assert_logged(service, alice, client, client.logged_commands[0])
    client.forget()
    client.install_locked().ok()
    assert_installed(client)


@each_client
def test_html_only_index_works_as_upstream(
    service_with_pypiserver: Service, make_client: MakeClient, kind: type[Any], person: Person
) -> None:
    life_of_a_token(service_with_pypiserver, service_with_pypiserver.url, make_client, kind, person)


@each_client
def test_dunder_token_is_accepted_as_user_name(
    service: Service, make_client: MakeClient, kind: type[Any], person: Person
) -> None:
    client = make_client(kind)
    client.user = "__token__"
    client.require()
    client.configure(service.url, service.issue(person("alice")).token)
    client.install().ok()


@each_client
def test_changed_file_fails_the_clients_integrity_check(
    service: Service, make_client: MakeClient, kind: type[Any], person: Person
) -> None:
    """Without this, the tests above would not prove that the published bytes arrive."""
    client = make_client(kind)
    client.require()
    client.configure(service.url, service.issue(person("alice")).token)
    client.install().ok()
    client.forget()
    client.break_lock()
    client.install_locked().failed().says(client.integrity_error)
