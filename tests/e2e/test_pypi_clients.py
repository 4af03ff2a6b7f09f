"""pip, uv and poetry install wheels and source archives through us, from either kind of index."""

from typing import Any

import pytest

from clients import PYPI_CLIENTS
from flows import MakeClient, Person, life_of_a_token
from service import Service

each_client = pytest.mark.parametrize("kind", PYPI_CLIENTS, ids=lambda kind: kind.name)


@each_client
def test_a_token_installs_until_it_is_revoked_and_a_new_one_does_again(
    service: Service, base: str, make_client: MakeClient, kind: type[Any], person: Person
) -> None:
    life_of_a_token(service, base, make_client, kind, person)


@each_client
def test_an_index_of_html_alone_serves_as_well(
    service_before_pypiserver: Service, make_client: MakeClient, kind: type[Any], person: Person
) -> None:
    life_of_a_token(service_before_pypiserver, service_before_pypiserver.url, make_client, kind, person)


@each_client
def test_dunder_token_is_taken_as_the_user_too(
    service: Service, make_client: MakeClient, kind: type[Any], person: Person
) -> None:
    client = make_client(kind)
    client.user = "__token__"
    client.require()
    client.configure(service.url, service.issue(person("alice")).token)
    client.install().ok()


@each_client
def test_a_changed_file_is_refused_by_the_clients_own_integrity_check(
    service: Service, make_client: MakeClient, kind: type[Any], person: Person
) -> None:
    """Else the tests above would not show that what came is what was published."""
    client = make_client(kind)
    client.require()
    client.configure(service.url, service.issue(person("alice")).token)
    client.install().ok()
    client.forget()
    client.break_lock()
    client.install_locked().failed().says(client.integrity_error)
