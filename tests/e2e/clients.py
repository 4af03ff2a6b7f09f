"""The clients: how a person configures each, installs with it, and installs again from its lock
file.

Each has its own project and home folder, isolated from this machine's configuration and other
tests' caches. Each is configured through the file that its users would edit.
"""

import base64
import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from fixtures import APP, NPM_CLOSURE, PYPI_CLOSURE, PYPI_PACKAGES, File
from tools import Tools

SECONDS_FOR_A_COMMAND = 120
# The beginning of a digest in any of the lock files.
DIGEST = re.compile(r"(sha512-|sha256:|checksum: \w+/)([0-9A-Za-z+/]{12})")
# No retries: some clients wait a minute before a retry.
NO_RETRIES = {
    "npm_config_fetch_retries": "0",
    "pnpm_config_fetch_retries": "0",
    "YARN_HTTP_RETRY": "0",
    "UV_HTTP_RETRIES": "0",
    "PIP_RETRIES": "0",
}
SHORT_RETRY_DELAYS = {
    f"{client}_config_fetch_retry_{which}timeout": "200" for client in ("npm", "pnpm") for which in ("min", "max")
}
# Cached, since some clients take a second to print theirs.
VERSIONS: dict[str, str] = {}


@dataclass(frozen=True)
class Outcome:
    """The result of a command."""

    command: str
    code: int
    output: str

    def ok(self) -> "Outcome":
        """Asserts that it succeeded."""
        assert self.code == 0, f"{self}"
        return self

    def failed(self) -> "Outcome":
        """Asserts that it failed."""
        assert self.code != 0, f"should have failed: {self}"
        return self

    def says(self, pattern: str) -> "Outcome":
        """Asserts that its output matches the pattern."""
        assert re.search(pattern, self.output), f"no match of {pattern!r} in the output: {self}"
        return self

    def __str__(self) -> str:
        return f"$ {self.command}\n{self.output}\nexit code {self.code}"


class OwnHost(str):
    """The URL of a host that belongs to one registry, which stands at its root."""


def root_url(base: str, registry: str) -> str:
    """The URL of the registry's root below `base`, with a trailing slash."""
    return f"{base}/" if isinstance(base, OwnHost) else f"{base}/{registry}/"


class Client:
    """One client in one project."""

    name: ClassVar[str]
    # Its name without the major version.
    product: ClassVar[str]
    # Its name in the installation log.
    logged_as: ClassVar[str]
    tells_version: ClassVar[bool] = True
    # The command that it reports, for the first installation and from the lock file.
    logged_commands: ClassVar[tuple[str | None, str | None]] = (None, None)
    ecosystem: ClassVar[str]
    closure: ClassVar[set[File]]
    lock: ClassVar[str]
    # What it prints for an invalid credential; the second pattern applies when it installs from a
    # lock file.
    authentication_error: ClassVar[str]
    authentication_error_locked: ClassVar[str | None] = None
    # What it prints for a file whose digest differs from the lock file.
    integrity_error: ClassVar[str]

    def __init__(self, tools: Tools, folder: Path) -> None:
        self.tools = tools
        self.folder = folder
        self.project = folder / "project"
        self.project.mkdir(parents=True)
        self.home = folder / "home"
        self.env = tools.environment(self.home) | NO_RETRIES
        tools.write_commands(folder / "bin", self.commands())
        self.env["PATH"] = f"{folder / 'bin'}:{self.env['PATH']}"

    def commands(self) -> dict[str, list[str]]:
        """The commands that its set-up instructions use."""
        return {self.program[0].rsplit("/", 1)[-1]: self.program}

    @property
    def program(self) -> list[str]:
        """The command that starts the client."""
        raise NotImplementedError

    def configure(self, base: str, token: str | None) -> None:
        """Configures our registry below `base`, with or without a token."""
        raise NotImplementedError

    def require(self, package: str = APP, version: str = "1.0.0") -> None:
        """Creates a project that depends on the package."""
        raise NotImplementedError

    def install(self) -> Outcome:
        """Installs for the first time and writes the lock file."""
        raise NotImplementedError

    def install_locked(self) -> Outcome:
        """Installs exactly what the lock file says."""
        raise NotImplementedError

    def installed(self) -> dict[str, str]:
        """The installed packages and their versions."""
        raise NotImplementedError

    def forget(self) -> None:
        """Removes installed packages and caches; configuration and lock file stay."""
        raise NotImplementedError

    def allow_retries(self) -> None:
        """Restores the client's default number of retries, with shorter delays."""
        for name in NO_RETRIES:
            del self.env[name]
        self.env |= SHORT_RETRY_DELAYS

    def run(self, *arguments: str, env: dict[str, str] | None = None) -> Outcome:
        """Runs the client in the project."""
        return self.command([*self.program, *arguments], env)

    def command(self, command: list[str], env: dict[str, str] | None = None) -> Outcome:
        """Runs any command in the project, in the client's environment."""
        done = subprocess.run(
            command,
            cwd=self.project,
            env=self.env | (env or {}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=SECONDS_FOR_A_COMMAND,
        )
        shown = " ".join([Path(command[0]).name, *command[1:]])
        return Outcome(shown, done.returncode, done.stdout.decode(errors="replace"))

    def shell(self, script: str) -> Outcome:
        """Runs a shell script in the project's folder, as a person would paste it."""
        return self.command(["bash", "-c", script])

    def set_up(self, instructions: str) -> None:
        """Follows set-up instructions, by default by running them in a shell."""
        self.command(["bash", "-euo", "pipefail", "-c", instructions]).ok()

    def version(self) -> str:
        """The version that the client reports."""
        if self.name not in VERSIONS:
            found = re.search(r"\d+\.\d+(\.\d+)?", self.command([*self._itself(), "--version"]).ok().output)
            assert found, f"{self.name} does not print its version"
            VERSIONS[self.name] = found[0]
        return VERSIONS[self.name]

    def _itself(self) -> list[str]:
        return self.program

    def lock_text(self) -> str:
        """The contents of the lock file."""
        return (self.project / self.lock).read_text(errors="replace")

    def break_lock(self) -> None:
        """Changes every digest in the lock file, so that no file matches."""
        text, count = DIGEST.subn(lambda found: found[1] + "0" * len(found[2]), self.lock_text())
        assert count, f"no digest in {self.lock}"
        (self.project / self.lock).write_text(text)

    def _remove(self, *paths: Path) -> None:
        for path in paths:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


# --- npm and its relatives


class NpmClient(Client):
    """Common base of the clients of an npm registry."""

    ecosystem = "npm"
    closure = NPM_CLOSURE

    def require(self, package: str = APP, version: str = "1.0.0") -> None:
        manifest = {"name": "project", "version": "0.0.0", "private": True, "dependencies": {package: version}}
        (self.project / "package.json").write_text(json.dumps(manifest, indent=2))

    def installed(self) -> dict[str, str]:
        found = self.command([str(self.tools.node), "-p", f"require('{APP}')"]).ok().output
        return dict(each.rsplit("@", 1) for each in found.split())

    def forget(self) -> None:
        self._remove(self.project / "node_modules")
        for path in self.home.iterdir():
            if path.name not in (".npmrc", ".yarnrc.yml", ".bunfig.toml", ".config"):
                self._remove(path)

    def _npmrc(self, base: str, *settings: str) -> None:
        registry = root_url(base, "npm")
        at = registry.removeprefix("http:")
        lines = [f"registry={registry}", *(f"{at}:{setting}" for setting in settings)]
        (self.home / ".npmrc").write_text("\n".join(lines) + "\n")

    def configure(self, base: str, token: str | None) -> None:
        self._npmrc(base, *([f"_authToken={token}"] if token else []))

    def configure_basic(self, base: str, user: str, token: str) -> None:
        """Configures the older setting that is sent as Basic."""
        self._npmrc(base, f"_auth={base64.b64encode(f'{user}:{token}'.encode()).decode()}")


class Npm(NpmClient):
    """npm 12."""

    name = "npm"
    product = "npm"
    logged_as = "npm"
    lock = "package-lock.json"
    logged_commands = ("install", "ci")
    authentication_error = r"npm error code E401"
    integrity_error = r"EINTEGRITY"

    @property
    def program(self) -> list[str]:
        return self.tools.npm

    def commands(self) -> dict[str, list[str]]:
        return {"npm": self.program}

    def install(self) -> Outcome:
        return self.run("install")

    def install_locked(self) -> Outcome:
        return self.run("ci")


class NpmBefore(Npm):
    """npm 11, which comes with today's long-term releases of Node.js."""

    name = "npm 11"

    @property
    def program(self) -> list[str]:
        return self.tools.npm_before


class Pnpm(NpmClient):
    """pnpm."""

    name = "pnpm"
    product = "pnpm"
    logged_as = "pnpm"
    lock = "pnpm-lock.yaml"
    authentication_error = r"ERR_PNPM_FETCH_401"
    authentication_error_locked = r"401 Unauthorized|Unauthorized - 401"
    integrity_error = r"ERR_PNPM_TARBALL_INTEGRITY"

    @property
    def program(self) -> list[str]:
        return self.tools.pnpm

    def install(self) -> Outcome:
        return self.run("install", "--no-frozen-lockfile")

    def install_locked(self) -> Outcome:
        return self.run("install", "--frozen-lockfile")


class YarnClassic(NpmClient):
    """yarn 1."""

    name = "yarn classic"
    product = "yarn"
    logged_as = "yarn"
    lock = "yarn.lock"
    # For metadata it prints only our message, which begins with the status; for a tarball only the
    # status.
    authentication_error = r"error .*http\S+: 401 Unauthorized: .*token"
    authentication_error_locked = r'Request failed "401 Unauthorized"'
    integrity_error = r"Integrity check failed"

    def __init__(self, tools: Tools, folder: Path) -> None:
        super().__init__(tools, folder)
        # For root, its default is a folder shared by the machine.
        self.env["YARN_CACHE_FOLDER"] = str(self.home / ".cache/yarn")

    @property
    def program(self) -> list[str]:
        return self.tools.yarn_classic

    def commands(self) -> dict[str, list[str]]:
        # It reads npm's configuration, which its instructions write with npm.
        return {"npm": self.tools.npm, "yarn": self.program}

    def configure(self, base: str, token: str | None) -> None:
        # Without always-auth, yarn 1 sends no token for unscoped packages.
        self._npmrc(base, "always-auth=true", *([f"_authToken={token}"] if token else []))

    def configure_basic(self, base: str, user: str, token: str) -> None:
        auth = base64.b64encode(f"{user}:{token}".encode()).decode()
        self._npmrc(base, "always-auth=true", f"_auth={auth}")

    def install(self) -> Outcome:
        return self.run("install")

    def install_locked(self) -> Outcome:
        return self.run("install", "--frozen-lockfile")


class YarnBerry(NpmClient):
    """yarn 4."""

    name = "yarn berry"
    product = "yarn"
    # Its user agent is that of its HTTP library, without a version.
    logged_as = "got"
    tells_version = False
    lock = "yarn.lock"
    authentication_error = r"YN0041.*Invalid authentication"
    integrity_error = r"YN0018"

    def __init__(self, tools: Tools, folder: Path) -> None:
        super().__init__(tools, folder)
        self.env |= {
            "YARN_NODE_LINKER": "node-modules",
            "YARN_ENABLE_TELEMETRY": "false",
            # It refuses plain HTTP by default, and the local service has no TLS.
            "YARN_UNSAFE_HTTP_WHITELIST": "127.0.0.1",
        }

    @property
    def program(self) -> list[str]:
        return self.tools.yarn_berry

    def commands(self) -> dict[str, list[str]]:
        return {"yarn": self.program}

    def require(self, package: str = APP, version: str = "1.0.0") -> None:
        super().require(package, version)
        # A lock file marks the folder as a separate project.
        (self.project / "yarn.lock").touch()

    def configure(self, base: str, token: str | None) -> None:
        self._yarnrc(base, [f'npmAuthToken: "{token}"'] if token else [])

    def configure_basic(self, base: str, user: str, token: str) -> None:
        self._yarnrc(base, [f'npmAuthIdent: "{user}:{token}"'])

    def _yarnrc(self, base: str, credential: list[str]) -> None:
        lines = [f'npmRegistryServer: "{root_url(base, "npm")}"']
        if credential:
            lines += ["npmAlwaysAuth: true", *credential]
        (self.project / ".yarnrc.yml").write_text("\n".join(lines) + "\n")

    def install(self) -> Outcome:
        return self.run("install", "--no-immutable")

    def install_locked(self) -> Outcome:
        return self.run("install", "--immutable", "--check-cache")

    def forget(self) -> None:
        super().forget()
        self._remove(self.project / ".yarn")


class Bun(NpmClient):
    """bun."""

    name = "bun"
    product = "bun"
    logged_as = "bun"
    lock = "bun.lock"
    authentication_error = r"error: GET http\S+ - 401"
    integrity_error = r"[Ii]ntegrity check failed"

    @property
    def program(self) -> list[str]:
        return self.tools.bun

    def set_up(self, instructions: str) -> None:
        (self.home / ".bunfig.toml").write_text(instructions)

    def configure(self, base: str, token: str | None) -> None:
        self._bunfig(base, f', token = "{token}"' if token else "")

    def configure_basic(self, base: str, user: str, token: str) -> None:
        self._bunfig(base, f', username = "{user}", password = "{token}"')

    def _bunfig(self, base: str, credential: str) -> None:
        registry = root_url(base, "npm")
        (self.project / "bunfig.toml").write_text(f'[install]\nregistry = {{ url = "{registry}"{credential} }}\n')

    def install(self) -> Outcome:
        return self.run("install")

    def install_locked(self) -> Outcome:
        return self.run("install", "--frozen-lockfile")


# --- PyPI


def index_url(base: str, token: str | None, user: str = "token") -> str:
    """The index's URL, with the credential in it."""
    scheme, rest = f"{root_url(base, 'pypi')}simple/".split("://")
    return f"{scheme}://{user}:{token}@{rest}" if token else f"{scheme}://{rest}"


class PypiClient(Client):
    """Common base of the clients of a Python index."""

    ecosystem = "pypi"
    closure = PYPI_CLOSURE
    user = "token"

    @property
    def environment_python(self) -> Path:
        """The Python of the project's virtual environment."""
        return self.project / ".venv/bin/python"

    def installed(self) -> dict[str, str]:
        names = [each.package for each in PYPI_CLOSURE]
        script = (
            f"import importlib.metadata as m, json\nprint(json.dumps({{name: m.version(name) for name in {names!r}}}))"
        )
        return json.loads(self.command([str(self.environment_python), "-c", script]).ok().output)

    def forget(self) -> None:
        self._remove(self.project / ".venv", self.home / ".cache", self.home / ".local")

    def require(self, package: str = APP, version: str = "1.0.0") -> None:
        (self.project / "pyproject.toml").write_text(
            '[project]\nname = "project"\nversion = "0.0.0"\nrequires-python = ">=3.11"\n'
            f'dependencies = ["{package}=={version}"]\n'
        )


class Pip(PypiClient):
    """pip, with hashes in place of a lock file."""

    name = "pip"
    product = "pip"
    logged_as = "pip"
    lock = "requirements.lock"
    authentication_error = r"401 Error, Credentials not correct"
    integrity_error = r"DO NOT MATCH THE HASHES"

    @property
    def program(self) -> list[str]:
        return [*self.tools.pip, "--python", str(self.environment_python)]

    def commands(self) -> dict[str, list[str]]:
        return {"pip": self.tools.pip}

    def _itself(self) -> list[str]:
        return self.tools.pip

    def _make_environment(self) -> None:
        if not self.environment_python.exists():
            self.command([self.tools.python, "-m", "venv", "--without-pip", str(self.project / ".venv")]).ok()

    def configure(self, base: str, token: str | None) -> None:
        folder = self.home / ".config/pip"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "pip.conf").write_text(f"[global]\nindex-url = {index_url(base, token, self.user)}\n")

    def require(self, package: str = APP, version: str = "1.0.0") -> None:
        (self.project / "requirements.txt").write_text(f"{package}=={version}\n")
        lines = []
        for each in PYPI_PACKAGES:
            if File(each.name, each.version, each.file) in PYPI_CLOSURE:
                lines.append(f"{each.name}=={each.version} --hash=sha256:{each.sha256}\n")
        (self.project / self.lock).write_text("".join(lines))

    def install(self) -> Outcome:
        self._make_environment()
        return self.run("install", "--no-input", "-r", "requirements.txt")

    def verbose_install(self) -> Outcome:
        """Installs with `-vv`: without it, or with one `-v`, pip does not print the status of most
        responses."""
        self._make_environment()
        return self.run("install", "--no-input", "-vv", "-r", "requirements.txt")

    def install_locked(self) -> Outcome:
        self._make_environment()
        return self.run("install", "--no-input", "--require-hashes", "-r", self.lock)


class Uv(PypiClient):
    """uv."""

    name = "uv"
    product = "uv"
    logged_as = "uv"
    logged_commands = ("sync", "sync")
    lock = "uv.lock"
    authentication_error = r"lack of valid authentication credentials \(401 Unauthorized\)"
    authentication_error_locked = r"HTTP status client error \(401 Unauthorized\)"
    integrity_error = r"Hash mismatch"

    def __init__(self, tools: Tools, folder: Path) -> None:
        super().__init__(tools, folder)
        self.env |= {"UV_PYTHON_DOWNLOADS": "never", "UV_PYTHON": self.tools.python}

    @property
    def program(self) -> list[str]:
        return self.tools.uv

    def set_up(self, instructions: str) -> None:
        profile = self.home / ".bashrc"
        profile.write_text(instructions)
        exported = self.shell(f". {profile} && env").ok().output
        self.env |= dict(re.findall(r"^(UV_\w+)=(.*)$", exported, re.MULTILINE))

    def configure(self, base: str, token: str | None) -> None:
        self.env["UV_INDEX_URL"] = index_url(base, token, self.user)

    def install(self) -> Outcome:
        return self.run("sync")

    def install_locked(self) -> Outcome:
        return self.run("sync", "--locked")


class Poetry(PypiClient):
    """poetry."""

    name = "poetry"
    product = "poetry"
    logged_as = "poetry"
    lock = "poetry.lock"
    authentication_error = r"Authorization error accessing"
    integrity_error = r"did not match any known checksums"

    def __init__(self, tools: Tools, folder: Path) -> None:
        super().__init__(tools, folder)
        # A keyring on the machine would outlive the test.
        self.env |= {
            "POETRY_VIRTUALENVS_IN_PROJECT": "true",
            "POETRY_NO_INTERACTION": "1",
            "PYTHON_KEYRING_BACKEND": "keyring.backends.fail.Keyring",
        }

    @property
    def program(self) -> list[str]:
        return self.tools.poetry

    def configure(self, base: str, token: str | None) -> None:
        project = self.project / "pyproject.toml"
        text = project.read_text().split("[[tool.poetry.source]]")[0]
        index = index_url(base, None)
        source = f'[[tool.poetry.source]]\nname = "takumi-guard"\nurl = "{index}"\npriority = "primary"\n'
        project.write_text(text + source)
        folder = self.home / ".config/pypoetry"
        folder.mkdir(parents=True, exist_ok=True)
        login = f'[http-basic.takumi-guard]\nusername = "{self.user}"\npassword = "{token}"\n' if token else ""
        (folder / "auth.toml").write_text(login)

    def install(self) -> Outcome:
        return self.run("install", "--no-root")

    def install_locked(self) -> Outcome:
        return self.run("sync", "--no-root")


NPM_CLIENTS: list[type[NpmClient]] = [Npm, NpmBefore, Pnpm, YarnClassic, YarnBerry, Bun]
PYPI_CLIENTS: list[type[PypiClient]] = [Pip, Uv, Poetry]
CLIENTS: list[type[Client]] = [*NPM_CLIENTS, *PYPI_CLIENTS]
