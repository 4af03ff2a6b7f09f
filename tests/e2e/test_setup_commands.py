"""Runs the commands of the mails and of the documented set-up unchanged, except for the host."""

import json
import re
from dataclasses import dataclass
from typing import Any

import pytest

from clients import CLIENTS, Bun, Client, Npm, NpmBefore, OwnHost, Pip, Pnpm, Poetry, Uv, YarnBerry, YarnClassic
from flows import MakeClient, assert_installed, assert_refused
from service import KEY, Service, call

PLACEHOLDER = "tg_anon_xxxxxx"


# --- the mails


@dataclass(frozen=True)
class Mail:
    """A mail, with access to the commands to paste."""

    text: str

    def section(self, title: str) -> str:
        """The text below a heading."""
        found = re.search(rf"^== {re.escape(title)} ==\n(.*?)(?=^== |\Z)", self.text, re.MULTILINE | re.DOTALL)
        assert found, f"the mail has no section {title!r}"
        return found[1]

    def step(self, section: str, title: str) -> str:
        """The commands below the step whose title begins with `title`."""
        found = re.search(rf"^\* {re.escape(title)}.*\n\n((?:.+\n)+)", self.section(section), re.MULTILINE)
        assert found, f"the mail has no step {title!r} in {section!r}"
        return found[1]

    def command(self, beginning: str) -> str:
        """The command that begins with `beginning`, including continuation lines."""
        found = re.search(rf"^{re.escape(beginning)}(?:.*\\\n)*.*$", self.text, re.MULTILINE)
        assert found, f"the mail has no command {beginning!r}"
        return found[0]

    @property
    def key(self) -> str:
        """The token in the mail."""
        found = KEY.search(self.text)
        assert found, "the mail contains no token"
        return found[0]


SET_UP, FIND = "Set up your package managers", "Find your key"
# The titles of each client's steps in the mails, for setting it up and for finding its key.
TITLES: dict[type[Client], tuple[str, str]] = {
    Npm: ("npm", "npm"),
    NpmBefore: ("npm", "npm"),
    Pnpm: ("pnpm", "pnpm 11"),
    YarnClassic: ("yarn 1", "npm, yarn 1"),
    YarnBerry: ("yarn 2", "yarn 2"),
    Bun: ("bun", "bun"),
    Pip: ("pip", "pip"),
    Uv: ("uv", "uv"),
    Poetry: ("poetry", "poetry"),
}


@pytest.mark.parametrize("kind", CLIENTS, ids=lambda kind: kind.name)
def test_mail_commands_set_up_find_and_reset_the_key(
    service: Service, make_client: MakeClient, kind: type[Any], email: str
) -> None:
    setup_title, find_title = TITLES[kind]
    client = make_client(kind)
    client.require()

    welcome = Mail(service.register(email)["text"])
    assert service.status(welcome.key).json["status"] == "pending"
    client.set_up(welcome.step(SET_UP, setup_title))
    client.install().ok()
    assert_installed(client)
    count = len(client.closure)
    expected = {"total": count, "npm": 0, "pypi": 0} | {client.ecosystem: count}
    assert service.downloads(welcome.key, at_least=count) == expected
    assert service.status(welcome.key).json["status"] == "active"

    recovery = Mail(service.register(email)["text"])
    client.shell(recovery.step(FIND, find_title)).says(welcome.key)
    reset = client.shell(recovery.command("curl --json").replace("curl ", "curl -sS ", 1)).ok()
    new_key = json.loads(reset.output)["token"]
    service.secrets.add(new_key)

    client.forget()
    assert_refused(client, client.install_locked(), client.authentication_error_locked)
    client.set_up(recovery.step(SET_UP, setup_title).replace(PLACEHOLDER, new_key))
    client.install_locked().ok()
    assert_installed(client)
    assert service.downloads(new_key, at_least=count) == expected


@pytest.mark.parametrize("kind", [Npm, Uv], ids=lambda kind: kind.name)
def test_welcome_mail_commands_regenerate_and_revoke_the_key(
    service: Service, make_client: MakeClient, kind: type[Any], email: str
) -> None:
    welcome = Mail(service.register(email)["text"])
    client = make_client(kind)
    client.require()
    client.configure(service.url, welcome.key)
    client.install().ok()

    command = welcome.command("curl -X POST").replace("curl ", "curl -sS ", 1)
    new_key = json.loads(client.shell(command).ok().output)["token"]
    service.secrets.add(new_key)
    client.forget()
    assert_refused(client, client.install_locked(), client.authentication_error_locked)
    client.configure(service.url, new_key)
    client.install_locked().ok()

    client.shell(welcome.command("curl -X DELETE").replace(welcome.key, new_key)).ok()
    assert service.status(new_key).status == 401
    client.forget()
    assert_refused(client, client.install_locked(), client.authentication_error_locked)


# --- the documented set-up and calls


@dataclass(frozen=True)
class Reference:
    """A documented configuration of a client, and the documented command that finds the key again.

    `{npm}`, `{pypi}` and `{host}` stand for our hosts.
    """

    kind: type[Client]
    file: str | None
    configuration: str
    find: str


REFERENCES = {
    # The first line is not part of the documented set-up, which assumes a configured registry.
    "npm, .npmrc": Reference(
        Npm,
        ".npmrc",
        "registry={scheme}{npm}/\n//{npm}/:_authToken=tg_anon_xxxxxx\n",
        "cat ~/.npmrc | grep {host}",
    ),
    "pnpm, .npmrc": Reference(
        Pnpm,
        ".npmrc",
        "registry={scheme}{npm}/\n//{npm}/:_authToken=tg_anon_xxxxxx\n",
        "cat ~/.npmrc | grep {host}",
    ),
    "yarn berry, .yarnrc.yml": Reference(
        YarnBerry,
        "../project/.yarnrc.yml",
        "npmRegistryServer: {scheme}{npm}/\nnpmAlwaysAuth: true\nnpmAuthToken: tg_anon_xxxxxx\n",
        "grep npmAuthToken .yarnrc.yml",
    ),
    "bun, bunfig.toml": Reference(
        Bun,
        "../project/bunfig.toml",
        '[install]\nregistry = {{ url = "{scheme}{npm}/", token = "tg_anon_xxxxxx" }}\n',
        "grep token bunfig.toml",
    ),
    "pip config set": Reference(
        Pip,
        None,
        "pip config set global.index-url {scheme}token:tg_anon_xxxxxx@{pypi}/simple/",
        "pip config get global.index-url",
    ),
    "uv, UV_INDEX_URL": Reference(
        Uv,
        None,
        "export UV_INDEX_URL={scheme}token:tg_anon_xxxxxx@{pypi}/simple/",
        ". ~/.bashrc; echo $UV_INDEX_URL",
    ),
    "uv, uv.toml": Reference(
        Uv,
        ".config/uv/uv.toml",
        'index-url = "{scheme}token:tg_anon_xxxxxx@{pypi}/simple/"\n',
        "grep -r {host} ~/.config/uv/uv.toml uv.toml pyproject.toml 2>/dev/null",
    ),
    "poetry config http-basic": Reference(
        Poetry,
        None,
        "poetry source add --priority=primary takumi-guard {scheme}{pypi}/simple/\n"
        "poetry config http-basic.takumi-guard token tg_anon_xxxxxx",
        "cat ~/.config/pypoetry/auth.toml",
    ),
}


@pytest.mark.parametrize("place", ["at paths", "at hosts of their own"])
@pytest.mark.parametrize("name", REFERENCES)
def test_documented_configuration_installs_and_finds_the_key(
    service: Service, own_hosts: dict[str, OwnHost], make_client: MakeClient, name: str, place: str, email: str
) -> None:
    reference = REFERENCES[name]
    key = Mail(service.register(email)["text"]).key
    scheme, mark, host = service.url.partition("://")
    hosts = {"scheme": scheme + mark, "host": host, "npm": f"{host}/npm", "pypi": f"{host}/pypi"}
    if place == "at hosts of their own":
        hosts |= {registry: url.partition("://")[2] for registry, url in own_hosts.items()}
        hosts["host"] = hosts[reference.kind.ecosystem]
    client = make_client(reference.kind)
    client.require()
    configuration = reference.configuration.format(**hosts).replace(PLACEHOLDER, key)
    if reference.file:
        path = client.home / reference.file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(configuration)
    else:
        client.set_up(configuration)
    client.install().ok()
    assert_installed(client)
    client.shell(reference.find.format(**hosts)).says(key)


def test_pip_reads_the_index_from_pip_index_url(service: Service, make_client: MakeClient, email: str) -> None:
    client = make_client(Pip)
    client.require()
    key = Mail(service.register(email)["text"]).key
    client.env["PIP_INDEX_URL"] = service.url.replace("://", f"://token:{key}@") + "/pypi/simple/"
    client.install().ok()
    client.shell("echo $PIP_INDEX_URL").says(key)


REFERENCE_CALLS = {
    "register": """curl -X POST {api}/api/v1/tokens \\
-H "Content-Type: application/json" \\
-d '{"email": "you@example.com", "language": "en"}'""",
    "status": """curl -H "Authorization: Bearer tg_anon_xxxxxx" \\
{api}/api/v1/tokens/status""",
    "regenerate": """curl -X POST \\
-H "Authorization: Bearer tg_anon_xxxxxx" \\
{api}/api/v1/tokens/regenerate""",
    "reset": """curl --json '{"email": "you@example.com", "code": "XXXX"}' \\
{api}/api/v1/tokens/reset""",
    "revoke": """curl -X DELETE \\
-H "Authorization: Bearer tg_anon_xxxxxx" \\
{api}/api/v1/tokens""",
}


def test_documented_calls_cover_the_whole_life_of_a_key(service: Service, make_client: MakeClient, email: str) -> None:
    """Makes all calls for one address, and installs with each key."""
    client = make_client(Npm)
    client.require()

    def run(name: str, **replaced: str) -> str:
        command = REFERENCE_CALLS[name].replace("{api}", service.url).replace("curl ", "curl -sS ", 1)
        for placeholder, value in {"you@example.com": email, **replaced}.items():
            command = command.replace(placeholder, value)
        return client.shell(command).ok().output

    def installs(key: str) -> bool:
        service.secrets.add(key)
        client.configure(service.url, key)
        client.forget()
        return client.install().code == 0

    run("register")
    first = Mail(service.mails(email)[0]["text"]).key
    assert installs(first)
    count = len(client.closure)
    assert service.downloads(first, at_least=count)["npm"] == count
    assert json.loads(run("status", tg_anon_xxxxxx=first))["usage"]["total"] == count

    second = json.loads(run("regenerate", tg_anon_xxxxxx=first))["token"]
    assert not installs(first)
    assert installs(second)

    run("register")
    recovery = service.mails(email)[0]["text"]
    code = re.search(r"(?:[0-9A-Z]{4}-){3}[0-9A-Z]{4}", recovery)
    assert code, "the mail contains no code"
    third = json.loads(run("reset", XXXX=code[0]))["token"]
    assert not installs(second)
    assert installs(third)

    run("revoke", tg_anon_xxxxxx=third)
    assert not installs(third)
    assert call(f"{service.url}/api/v1/tokens/status", third).status == 401
