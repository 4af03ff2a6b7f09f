"""The life of a token in a client's configuration, the same for all clients, and its assertions."""

from collections.abc import Callable
from typing import Any

from clients import Client, Outcome
from fixtures import File
from service import OrgToken, Service

LOOPBACK = "127.0.0.1"
MakeClient = Callable[[type[Client]], Any]
Person = Callable[[str], str]


def assert_logged(service: Service, token: OrgToken, client: Client, command: str | None) -> None:
    """Asserts that the log has exactly one entry for each file that was installed with the
    token."""
    entries = service.installations_of(token, at_least=len(client.closure))
    assert files_of(entries) == sorted(client.closure, key=repr)
    for entry in entries:
        fields = {name: entry[name] for name in ("ecosystem", "user_identifier", "token_id", "client", "source_ip")}
        assert fields == {
            "ecosystem": client.ecosystem,
            "user_identifier": token.user_identifier,
            "token_id": token.id,
            "client": client.logged_as,
            "source_ip": LOOPBACK,
        }
        assert entry["client_version"] == (client.version() if client.tells_version else None)
        assert entry["command"] == command


def files_of(entries: list[dict[str, Any]]) -> list[File]:
    """The files in log entries, including duplicates."""
    return sorted((File(entry["package"], entry["version"], entry["file"]) for entry in entries), key=repr)


def assert_installed(client: Client) -> None:
    """Asserts that the project can load the package and its dependencies, in the expected
    versions."""
    assert client.installed() == {file.package: file.version for file in client.closure}


def assert_refused(client: Client, outcome: Outcome, pattern: str | None = None) -> None:
    """Asserts that the client failed with its message for an invalid credential."""
    outcome.failed()
    outcome.says(pattern or client.authentication_error)


def life_of_a_token(
    service: Service,
    base: str,
    make_client: MakeClient,
    kind: type[Client],
    person: Person,
) -> None:
    """Installs, installs from the lock file with another token, fails once that is revoked, works
    with a new token."""
    client = make_client(kind)
    client.require()
    alice, bob = service.issue(person("alice")), service.issue(person("bob"))
    install_command, locked_command = client.logged_commands

    client.configure(base, alice.token)
    client.install().ok()
    assert_installed(client)
    assert alice.token not in client.lock_text(), "the token is in the lock file"

    client.forget()
    client.configure(base, bob.token)
    client.install_locked().ok()
    assert_installed(client)
    assert_logged(service, bob, client, locked_command)

    service.revoke(bob)
    client.forget()
    assert_refused(client, client.install_locked(), client.authentication_error_locked)
    fresh = make_client(kind)
    fresh.require()
    fresh.configure(base, bob.token)
    assert_refused(fresh, fresh.install())

    again = service.issue(bob.user_identifier)
    fresh.configure(base, again.token)
    fresh.install().ok()
    assert_installed(fresh)
    assert_logged(service, again, client, install_command)

    # Later installations do not change earlier entries.
    assert_logged(service, alice, client, install_command)
    assert len(service.installations_of(bob)) == len(client.closure)
