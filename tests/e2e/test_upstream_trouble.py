"""A temporary failure of an upstream registry must not fail an installation or turn into a 404."""

from typing import Any

import pytest

from clients import CLIENTS
from conftest import Hiccups
from flows import MakeClient, Person, assert_installed, assert_logged


@pytest.mark.parametrize("kind", CLIENTS, ids=lambda kind: kind.name)
def test_each_client_retries_after_a_503_and_installs(
    hiccups: Hiccups, make_client: MakeClient, kind: type[Any], person: Person
) -> None:
    hiccups.npm.forget()
    hiccups.pypi.forget()
    client = make_client(kind)
    client.allow_retries()
    client.require()
    alice = hiccups.service.issue(person("alice"))
    client.configure(hiccups.service.url, alice.token)
    client.install().ok()
    assert_installed(client)
    assert_logged(hiccups.service, alice, client, client.logged_commands[0])
    upstream = hiccups.npm if client.ecosystem == "npm" else hiccups.pypi
    assert 503 in {exchange.status for exchange in upstream.exchanges}
