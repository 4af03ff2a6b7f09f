"""What each client prints for an error: it must name the cause. The output is recorded for the
documentation."""

import json
import os
import re
import time
from pathlib import Path
from typing import Any

import pytest

from clients import CLIENTS, Bun, Client, Npm, NpmBefore, Outcome, Pip, Pnpm, Poetry, Uv, YarnBerry, YarnClassic
from flows import MakeClient, Person
from service import Service

SECONDS_OF_LIFE = 6
UNKNOWN_PACKAGE = "guard-e2e-unknown"
CREDENTIALS = ["no token", "bad token", "revoked", "expired"]
UPSTREAM_DOWN = "the upstream registry is down"
CASES = [*CREDENTIALS, "unknown package", UPSTREAM_DOWN]
# The label for pip's output with `-vv`.
VERBOSE = "pip -vv"

# Patterns that the output must match: for a missing or invalid credential, for an unknown package,
# and for an upstream that is down.
USEFUL: dict[str, tuple[str, str, str]] = {
    Npm.name: (r"E401", r"E404", r"E502"),
    NpmBefore.name: (r"E401", r"E404", r"E502"),
    Pnpm.name: (r"ERR_PNPM_FETCH_401", r"ERR_PNPM_FETCH_404", r"ERR_PNPM_FETCH_502"),
    YarnClassic.name: (r"401 Unauthorized: .*token", r"not found in the upstream registry", r"502 Bad Gateway"),
    YarnBerry.name: (r"YN0041.*Invalid authentication", r"Response Code: 404", r"Response Code: 502"),
    Bun.name: (r" - 401", r" - 404", r" - 502"),
    # pip prints nothing else for an error, unless the URL contains a credential.
    Pip.name: (r"401 Error|No matching distribution found", r"No matching distribution", r"No matching distribution"),
    VERBOSE: (r"401 Client Error", r"404 Client Error", r"502 Server Error|too many 502"),
    Uv.name: (r"401 Unauthorized", r"was not found in the package registry", r"502 Bad Gateway"),
    Poetry.name: (r"Authorization error accessing", r"doesn't match any versions", r"502 Server Error"),
}


@pytest.fixture(scope="session")
def refused_tokens(service: Service) -> dict[str, str | None]:
    """Tokens that are refused, by reason."""
    revoked = service.issue("e2e-errors-revoked")
    service.revoke(revoked)
    expired = service.issue("e2e-errors-expired", lives_seconds=SECONDS_OF_LIFE)
    time.sleep(SECONDS_OF_LIFE + 1)
    bad = revoked.token[:-1] + ("a" if revoked.token[-1] != "a" else "b")
    service.secrets.add(bad)
    return {"no token": None, "bad token": bad, "revoked": revoked.token, "expired": expired.token}


@pytest.mark.parametrize("case", [case for case in CASES if case != UPSTREAM_DOWN])
@pytest.mark.parametrize("kind", CLIENTS, ids=lambda kind: kind.name)
def test_each_client_prints_the_cause(
    service: Service,
    fronts: dict[str, str],
    make_client: MakeClient,
    kind: type[Any],
    case: str,
    person: Person,
    refused_tokens: dict[str, str | None],
) -> None:
    client = make_client(kind)
    client.require(UNKNOWN_PACKAGE if case == "unknown package" else "guard-e2e-app")
    token = refused_tokens[case] if case in CREDENTIALS else service.issue(person("alice")).token
    # As deployed: API Gateway renames a header that changes what npm prints.
    assert_useful_error(client, case, fronts["through API Gateway"], token)


@pytest.mark.parametrize("kind", CLIENTS, ids=lambda kind: kind.name)
def test_each_client_prints_the_status_if_the_upstream_is_down(
    service_with_dead_upstreams: Service, make_client: MakeClient, kind: type[Any], person: Person
) -> None:
    client = make_client(kind)
    client.require()
    token = service_with_dead_upstreams.issue(person("alice")).token
    assert_useful_error(client, UPSTREAM_DOWN, service_with_dead_upstreams.url, token)


def assert_useful_error(client: Client, case: str, base: str, token: str | None) -> None:
    """Asserts that installing fails with useful output that contains no token, and records the
    output."""
    client.configure(base, token)
    outcomes = {client.name: client.install()}
    if isinstance(client, Pip):
        outcomes[VERBOSE] = client.verbose_install()
    for name, outcome in outcomes.items():
        note(name, case, client, outcome, base)
        outcome.failed().says(USEFUL[name][0 if case in CREDENTIALS else CASES.index(case) - len(CREDENTIALS) + 1])
        # People paste this output into tickets.
        assert token is None or token not in outcome.output


# --- the table for the documentation

# Lines that do not give the reason.
NOISE = re.compile(
    r"^\s*$|^\s+at |A complete log of this run|^info |^\[\d/\d\]|^yarn install v|^bun install v|YN0000"
    r"|^Using CPython|^Using pip|^Creating virtual|^Updating dep|^Resolv|^Looking in indexes|^\W*$|^Non-user"
    r"|[Bb]uild.tracker"
    r"|^Created temporary|^1 location|^\* http|^Fetching project|^Getting page|^Found |^Starting new|^Skipping link"
    r"|^\s+[├│]|^npm error 404$|^npm error 404 (Note|tarball)|Request Retry Count|cli\.js:\d+$|responseCode|^Node\.js v"
    r"|^Given no hashes|^Exception information|^Traceback|^  File|^    |^pip\._|\"GET /|^The above exc|^During handling"
)
LINES = 6


def relevant(outcome: Outcome, base: str, folder: Path) -> list[str]:
    """The first lines that give the reason, without details that differ between machines."""
    text = outcome.output.replace(base, "https://guard.example.com")
    text = text.replace(base.split("://")[1], "guard.example.com").replace(str(folder), "~")
    text = text.replace("http://", "https://")
    text = re.sub(r"host='127\.0\.0\.1', port=\d+", "host='guard.example.com', port=443", text)
    lines = [line.rstrip() for line in text.splitlines() if not NOISE.search(line)]
    return list(dict.fromkeys(lines))[:LINES]


def note(name: str, case: str, client: Client, outcome: Outcome, base: str) -> None:
    """Records the output for `errors_table.py` if E2E_NOTES is set."""
    notes = os.environ.get("E2E_NOTES")
    if notes:
        lines = relevant(outcome, base, client.folder)
        row = {"client": name, "product": client.product, "version": client.version(), "case": case, "lines": lines}
        Path(notes, f"{name}-{case}.json".replace(" ", "-")).write_text(json.dumps(row))
