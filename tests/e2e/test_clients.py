"""Every package manager installs through our service, at its path and at the registries' own
hosts."""

from typing import Any

import pytest

from clients import CLIENTS, OwnHost
from flows import MakeClient, Person, assert_installed, assert_logged, life_of_a_token
from service import Service

each_client = pytest.mark.parametrize("kind", CLIENTS, ids=lambda kind: kind.name)


@each_client
def test_token_installs_until_revoked_and_a_new_token_installs_again(
    service: Service, base: str, make_client: MakeClient, kind: type[Any], person: Person
) -> None:
    life_of_a_token(service, base, make_client, kind, person)


@each_client
def test_registry_at_its_own_host_installs_and_is_logged(
    service: Service, own_hosts: dict[str, OwnHost], make_client: MakeClient, kind: type[Any], person: Person
) -> None:
    client = make_client(kind)
    client.require()
    alice = service.issue(person("alice"))
    client.configure(own_hosts[client.ecosystem], alice.token)
    client.install().ok()
    assert_installed(client)
    assert_logged(service, alice, client, client.logged_commands[0])
    client.forget()
    client.install_locked().ok()
    assert_installed(client)
