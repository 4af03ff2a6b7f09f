"""Every form of the credential at every kind of path, sent without a package manager."""

import base64
from collections.abc import Callable

import pytest

from fixtures import APP, NPM_CLOSURE, SCOPED
from flows import Person
from service import Service, call

FORMS: dict[str, Callable[[str], str]] = {
    "Bearer": lambda token: f"Bearer {token}",
    "Basic as token": lambda token: "Basic " + base64.b64encode(f"token:{token}".encode()).decode(),
    "Basic as __token__": lambda token: "Basic " + base64.b64encode(f"__token__:{token}".encode()).decode(),
    "Basic as alice": lambda token: "Basic " + base64.b64encode(f"alice:{token}".encode()).decode(),
    "Basic as user name": lambda token: "Basic " + base64.b64encode(f"{token}:".encode()).decode(),
}
PATHS = [
    f"/npm/{APP}",
    f"/npm/{SCOPED}",
    f"/npm/{SCOPED.replace('/', '%2f')}",
    f"/npm/{SCOPED.replace('/', '%2F')}",
    *sorted(f"/npm/{file.package}/-/{file.file}" for file in NPM_CLOSURE),
    "/npm/-/whoami",
    "/npm/-/ping",
    f"/pypi/simple/{APP}/",
]


@pytest.mark.parametrize("form", FORMS)
def test_each_form_is_accepted_at_each_path(service: Service, base: str, form: str, person: Person) -> None:
    token = service.issue(person("alice"))
    for path in PATHS:
        answer = call(base + path, Authorization=FORMS[form](token.token))
        assert answer.status in (200, 302), (path, answer)
        assert token.token not in answer.headers.get("location", "")


@pytest.mark.parametrize("form", FORMS)
def test_revoked_token_is_refused_at_every_path_at_next_call(
    service: Service, base: str, form: str, person: Person
) -> None:
    token = service.issue(person("alice"))
    assert call(f"{base}/npm/{APP}", Authorization=FORMS[form](token.token)).status == 200
    service.revoke(token)
    for path in PATHS:
        answer = call(base + path, Authorization=FORMS[form](token.token))
        assert answer.status == 401, (path, answer)
        assert answer.headers["content-type"] == "application/problem+json"
        assert {"error", "type", "title", "detail", "status", "code"} <= set(answer.json)
        assert answer.json["status"] == 401
        assert answer.json["code"] == "UNAUTHORIZED"


def test_request_without_token_is_refused_at_every_path(service: Service, base: str) -> None:
    for path in PATHS:
        assert call(base + path).status == 401, path


def test_links_in_metadata_point_to_the_called_host(service: Service, base: str, person: Person) -> None:
    token = service.issue(person("alice")).token
    for version in call(f"{base}/npm/{SCOPED}", token).json["versions"].values():
        assert version["dist"]["tarball"].startswith(f"{base}/npm/{SCOPED}/-/")
    page = call(f"{base}/pypi/simple/{APP}/", token, Accept="application/vnd.pypi.simple.v1+json").json
    assert page["files"]
    for file in page["files"]:
        # A relative link is on this host, too.
        assert file["url"].startswith((f"{base}/pypi/", "../", "/pypi/"))


def test_second_npm_run_adds_a_log_entry_and_a_retry_does_not(service: Service, person: Person) -> None:
    token = service.issue(person("alice"))
    file = sorted(NPM_CLOSURE, key=repr)[0]
    for session in ("first", "first", "second"):
        call(f"{service.url}/npm/{file.package}/-/{file.file}", token.token, npm_session=session, npm_command="ci")
    entries = service.installations_of(token, at_least=2)
    assert sorted(entry["session"] for entry in entries) == ["first", "second"]
    assert {entry["command"] for entry in entries} == {"ci"}
