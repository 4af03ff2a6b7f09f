"""Every form of the credential, at every kind of path, without any client's own cleverness."""

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
}
PATHS = [
    f"/npm/{APP}",
    f"/npm/{SCOPED}",
    f"/npm/{SCOPED.replace('/', '%2f')}",
    f"/npm/{SCOPED.replace('/', '%2F')}",
    *sorted(f"/npm/{file.package}/-/{file.file}" for file in NPM_CLOSURE),
    "/npm/-/whoami",
    "/npm/-/ping",
    "/pypi/simple/",
    f"/pypi/simple/{APP}/",
]


@pytest.mark.parametrize("form", FORMS)
def test_each_form_opens_each_path(service: Service, base: str, form: str, person: Person) -> None:
    token = service.issue(person("alice"))
    for path in PATHS:
        answer = call(base + path, Authorization=FORMS[form](token.token))
        assert answer.status in (200, 302), (path, answer)
        assert token.token not in answer.headers.get("location", "")


@pytest.mark.parametrize("form", FORMS)
def test_a_revoked_token_opens_no_path_from_the_next_call_on(service: Service, base: str, form: str, person: Person) -> None:
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


def test_nobody_comes_in_without_a_token(service: Service, base: str) -> None:
    for path in PATHS:
        assert call(base + path).status == 401, path


def test_the_links_in_metadata_are_on_the_host_that_was_called(service: Service, base: str, person: Person) -> None:
    token = service.issue(person("alice")).token
    for version in call(f"{base}/npm/{SCOPED}", token).json["versions"].values():
        assert version["dist"]["tarball"].startswith(f"{base}/npm/{SCOPED}/-/")
    page = call(f"{base}/pypi/simple/{APP}/", token, Accept="application/vnd.pypi.simple.v1+json").json
    assert page["files"]
    for file in page["files"]:
        # A relative link is as good: it is on this host by itself.
        assert file["url"].startswith((f"{base}/pypi/", "../", "/pypi/"))


def test_a_second_run_of_npm_is_a_second_entry_and_a_retry_is_none(service: Service, person: Person) -> None:
    token = service.issue(person("alice"))
    file = sorted(NPM_CLOSURE, key=repr)[0]
    for session in ("first", "first", "second"):
        call(f"{service.url}/npm/{file.package}/-/{file.file}", token.token, npm_session=session, npm_command="ci")
    entries = service.installations_of(token, at_least=2)
    assert sorted(entry["session"] for entry in entries) == ["first", "second"]
    assert {entry["command"] for entry in entries} == {"ci"}
