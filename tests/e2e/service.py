"""Our service as a separate process, and the API calls of the suite."""

import json
import os
import re
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from upstreams import stop

SECONDS_TO_START = 60
SECONDS_TO_BE_LOGGED = 10
KEY = re.compile(r"tg_anon_[0-9A-Za-z]{42}")


@dataclass(frozen=True)
class OrgToken:
    """An org user token of the demo organization."""

    id: str
    token: str
    user_identifier: str


@dataclass(frozen=True)
class Answer:
    """A response of the service."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The parsed body."""
        return json.loads(self.body)


class NoRedirect(urllib.request.HTTPRedirectHandler):
    """Returns redirects instead of following them."""

    def redirect_request(self, *args: object) -> None:
        return None


OPENER = urllib.request.build_opener(NoRedirect, urllib.request.ProxyHandler({}))


def call(
    url: str, token: str | None = None, method: str = "GET", body: Any = None, seconds: int = 30, **headers: str
) -> Answer:
    """Sends a request, with `token` as Bearer. Header names have `_` in place of `-`. Waits for so
    many seconds."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, method=method)
    if data is not None:
        request.add_header("Content-Type", "application/json")
    if token is not None:
        request.add_header("Authorization", f"Bearer {token}")
    for name, value in headers.items():
        request.add_header(name.replace("_", "-"), value)
    try:
        with OPENER.open(request, timeout=seconds) as answer:
            return Answer(answer.status, {k.lower(): v for k, v in answer.headers.items()}, answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, {k.lower(): v for k, v in error.headers.items()}, error.read())


class Service:
    """The local service in memory, with its two upstream registries."""

    def __init__(self, binary: Path, folder: Path, npm_upstream: str, pypi_upstream: str) -> None:
        folder.mkdir(parents=True)
        environment, self.log_path = folder / "service.env", folder / "service.log"
        command = [str(binary), "--memory", "--port", "0", "--data", str(folder / "data")]
        command += ["--env-file", str(environment), "--no-rate-limit"]
        command += ["--npm-upstream", npm_upstream, "--pypi-upstream", pypi_upstream]
        env = {"PATH": os.defpath, "HOME": str(folder), "RUST_LOG": "info"}
        with self.log_path.open("wb") as log:
            self._process = subprocess.Popen(command, cwd=folder, env=env, stdout=log, stderr=subprocess.STDOUT)
        deadline = time.monotonic() + SECONDS_TO_START
        while not (environment.exists() and "BASE_URL" in environment.read_text()):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the service did not start:\n{self.log()}")
            time.sleep(0.05)
        lines = re.findall(r"^(?:export )?(\w+)=['\"]?(.*?)['\"]?$", environment.read_text(), re.MULTILINE)
        values = dict(lines)
        self.url = values["BASE_URL"].rstrip("/")
        self.org = values["ORG"]
        self.bot = f"{values['BOT_API_KEY']}:{values['BOT_ID']}"
        # Tokens that must not appear in its log.
        self.secrets: set[str] = set()

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def log(self) -> str:
        """The service's log."""
        return self.log_path.read_text(errors="replace")

    def stop(self) -> None:
        """Stops the service."""
        stop(self._process)

    # --- tokens of the organization

    def _as_bot(self, path: str, method: str = "GET", body: Any = None, **headers: str) -> Answer:
        return call(f"{self.url}/v1/o/{self.org}/guard/{path}", self.bot, method, body, **headers)

    def issue(self, user_identifier: str, lives_seconds: int | None = None) -> OrgToken:
        """Issues an org user token."""
        body = {"user_identifier": user_identifier}
        if lives_seconds is not None:
            end = datetime.now(UTC) + timedelta(seconds=lives_seconds)
            body["expires_at"] = end.strftime("%Y-%m-%dT%H:%M:%SZ")
        answer = self._as_bot("org-user-tokens", "POST", body)
        assert answer.status == 201, answer
        self.secrets.add(answer.json["token"])
        return OrgToken(answer.json["id"], answer.json["token"], user_identifier)

    def revoke(self, token: OrgToken) -> None:
        """Revokes a token."""
        answer = self._as_bot(f"org-user-tokens/by-id/{token.id}", "DELETE")
        assert answer.status == 204, answer

    def installations(self, **filters: str) -> list[dict[str, Any]]:
        """All pages of the installation log."""
        found: list[dict[str, Any]] = []
        while True:
            answer = self._as_bot(f"installations?{urllib.parse.urlencode({'limit': '100'} | filters)}")
            assert answer.status == 200, answer
            found += answer.json["installations"]
            if not answer.json["next_cursor"]:
                return found
            filters["cursor"] = answer.json["next_cursor"]

    def installations_of(self, token: OrgToken, at_least: int = 0) -> list[dict[str, Any]]:
        """The log entries of a token. Waits for the given number, since entries may be written
        after the download."""
        deadline = time.monotonic() + SECONDS_TO_BE_LOGGED
        while True:
            entries = self.installations(user_identifier=token.user_identifier)
            entries = [entry for entry in entries if entry["token_id"] == token.id]
            if len(entries) >= at_least or time.monotonic() > deadline:
                return entries
            time.sleep(0.1)

    # --- email-verified tokens

    def register(self, email: str) -> dict[str, Any]:
        """Registers an address and returns the mail sent to it."""
        before = len(self.mails(email))
        answer = call(f"{self.url}/api/v1/tokens", method="POST", body={"email": email, "language": "en"})
        assert answer.status == 202, answer
        deadline = time.monotonic() + SECONDS_TO_BE_LOGGED
        while len(self.mails(email)) == before:
            assert time.monotonic() < deadline, "no mail was sent"
            time.sleep(0.05)
        mail = self.mails(email)[0]
        self.secrets.update(KEY.findall(mail["text"]))
        return mail

    def mails(self, email: str) -> list[dict[str, Any]]:
        """The mails to an address, newest first."""
        return [mail for mail in call(f"{self.url}/_local/mail.json").json if mail["to"] == email]

    def status(self, key: str) -> Answer:
        """The status of an email-verified token."""
        return call(f"{self.url}/api/v1/tokens/status", key)

    def downloads(self, key: str, at_least: int = 0) -> dict[str, int]:
        """The number of downloads counted for the token, in total and by ecosystem."""
        deadline = time.monotonic() + SECONDS_TO_BE_LOGGED
        while True:
            answer = self.status(key)
            assert answer.status == 200, answer
            usage = answer.json["usage"]
            if usage["total"] >= at_least or time.monotonic() > deadline:
                days = usage["last_30_days"]
                return {
                    "total": usage["total"],
                    "npm": sum(day["npm"] for day in days),
                    "pypi": sum(day["pypi"] for day in days),
                }
            time.sleep(0.1)
