"""pip, uv and poetry install wheels and source archives through our service, from both kinds of
index."""

from typing import Any

import pytest

from clients import PYPI_CLIENTS
from flows import MakeClient, Person, life_of_a_token
from service import Service

each_client = pytest.mark.parametrize("kind", PYPI_CLIENTS, ids=lambda kind: kind.name)


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
    """Without this, installing would not prove that the published bytes arrive."""
    client = make_client(kind)
    client.require()
    client.configure(service.url, service.issue(person("alice")).token)
    client.install().ok()
    client.forget()
    client.break_lock()
    client.install_locked().failed().says(client.integrity_error)
