"""The packages that the clients install, built here so that every name, version and file in a log
entry is known.

Every resolver selects the same versions: `guard-e2e-app` 1.0.0 needs `NPM_CLOSURE` or
`PYPI_CLOSURE` in all clients.
"""

import base64
import gzip
import hashlib
import io
import json
import tarfile
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

APP = "guard-e2e-app"
SCOPED = "@guard-e2e/colour"
PLAIN = "guard-e2e-strings"


@dataclass(frozen=True)
class File:
    """A file of a package version, as the installation log names it."""

    package: str
    version: str
    file: str


# --- npm


@dataclass(frozen=True)
class NpmPackage:
    """A version of an npm package."""

    name: str
    version: str
    dependencies: dict[str, str] = field(default_factory=dict)
    bin: str | None = None

    def write(self, folder: Path) -> Path:
        """Writes the package's sources for `npm publish`."""
        folder = folder / f"{self.name.replace('/', '-').lstrip('@')}-{self.version}"
        folder.mkdir(parents=True)
        manifest: dict[str, object] = {"name": self.name, "version": self.version, "main": "index.js", "license": "MIT"}
        if self.dependencies:
            manifest["dependencies"] = self.dependencies
        if self.bin:
            manifest["bin"] = {self.bin: "cli.js"}
            (folder / "cli.js").write_text("#!/usr/bin/env node\nconsole.log(require('./index.js'));\n")
        (folder / "package.json").write_text(json.dumps(manifest))
        needed = ", ".join(f"require({json.dumps(name)})" for name in self.dependencies)
        own = json.dumps(f"{self.name}@{self.version}")
        (folder / "index.js").write_text(f"module.exports = [{own}, {needed}].flat().sort().join(' ');\n")
        return folder


NPM_PACKAGES = [
    NpmPackage(PLAIN, "1.0.0"),
    NpmPackage(PLAIN, "1.1.0"),
    NpmPackage(PLAIN, "2.0.0"),
    NpmPackage(SCOPED, "1.0.0", {PLAIN: "^1.0.0"}),
    NpmPackage(SCOPED, "1.1.0", {PLAIN: "^1.0.0"}),
    NpmPackage(APP, "1.0.0", {SCOPED: "^1.0.0", PLAIN: "^1.1.0"}, bin="guard-e2e"),
    NpmPackage(APP, "1.0.1", {PLAIN: "^2.0.0"}),
]
NPM_CLOSURE = {
    File(APP, "1.0.0", "guard-e2e-app-1.0.0.tgz"),
    File(SCOPED, "1.1.0", "colour-1.1.0.tgz"),
    File(PLAIN, "1.1.0", "guard-e2e-strings-1.1.0.tgz"),
}


# --- PyPI

# A build backend inside the source archive, so that building it needs no index.
BACKEND = '''\
"""Packs the one module beside this file."""

import base64, hashlib, pathlib, zipfile

NAME, VERSION = {name!r}, {version!r}
METADATA = {metadata!r}


def _info(stem):
    return {{
        f"{{stem}}.dist-info/METADATA": METADATA,
        f"{{stem}}.dist-info/WHEEL": "Wheel-Version: 1.0\\nGenerator: e2e\\n"
        "Root-Is-Purelib: true\\nTag: py3-none-any\\n",
    }}


def prepare_metadata_for_build_wheel(directory, config_settings=None):
    stem = f"{{NAME}}-{{VERSION}}"
    for path, text in _info(stem).items():
        path = pathlib.Path(directory, path)
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return f"{{stem}}.dist-info"


def build_wheel(directory, config_settings=None, metadata_directory=None):
    stem = f"{{NAME}}-{{VERSION}}"
    contents = _info(stem) | {{f"{{NAME}}.py": pathlib.Path(f"{{NAME}}.py").read_text()}}
    record = f"{{stem}}.dist-info/RECORD"
    lines = []
    with zipfile.ZipFile(pathlib.Path(directory, f"{{stem}}-py3-none-any.whl"), "w") as wheel:
        for path, text in contents.items():
            digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
            lines.append(f"{{path}},sha256={{digest}},{{len(text.encode())}}\\n")
            wheel.writestr(path, text)
        wheel.writestr(record, "".join(lines) + f"{{record}},,\\n")
    return f"{{stem}}-py3-none-any.whl"
'''


@dataclass(frozen=True)
class PypiPackage:
    """A version of a Python package, with a single file: a wheel or a source archive."""

    name: str
    version: str
    requires: tuple[str, ...] = ()
    sdist: bool = False

    @property
    def module(self) -> str:
        """The name of the module, also used in file names."""
        return self.name.replace("-", "_")

    @property
    def file(self) -> str:
        """The file's name."""
        return f"{self.module}-{self.version}" + (".tar.gz" if self.sdist else "-py3-none-any.whl")

    @property
    def metadata(self) -> str:
        """The contents of `METADATA` or `PKG-INFO`, also served as PEP 658 metadata."""
        lines = ["Metadata-Version: 2.2", f"Name: {self.name}", f"Version: {self.version}", "Requires-Python: >=3.8"]
        return "\n".join(lines + [f"Requires-Dist: {each}" for each in self.requires]) + "\n"

    @property
    def contents(self) -> bytes:
        """The file's bytes, identical for every call."""
        return self._source_archive() if self.sdist else self._wheel()

    @property
    def sha256(self) -> str:
        """The digest of the file."""
        return hashlib.sha256(self.contents).hexdigest()

    def _source(self) -> str:
        return f'VERSION = "{self.version}"\n'

    def _wheel(self) -> bytes:
        info = f"{self.module}-{self.version}.dist-info"
        files = {
            f"{self.module}.py": self._source(),
            f"{info}/METADATA": self.metadata,
            f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: e2e\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        }
        record = ""
        for path, text in files.items():
            digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
            record += f"{path},sha256={digest},{len(text.encode())}\n"
        files[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n"
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as wheel:
            for path, text in files.items():
                wheel.writestr(zipfile.ZipInfo(path), text)
        return out.getvalue()

    def _source_archive(self) -> bytes:
        stem = f"{self.module}-{self.version}"
        project = f'[project]\nname = "{self.name}"\nversion = "{self.version}"\nrequires-python = ">=3.8"\n'
        if self.requires:
            project += f"dependencies = {json.dumps(list(self.requires))}\n"
        build = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        files = {
            "PKG-INFO": self.metadata,
            "pyproject.toml": f"{build}\n{project}",
            "backend.py": BACKEND.format(name=self.module, version=self.version, metadata=self.metadata),
            f"{self.module}.py": self._source(),
        }
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
            for path, text in files.items():
                entry = tarfile.TarInfo(f"{stem}/{path}")
                entry.size = len(text.encode())
                archive.addfile(entry, io.BytesIO(text.encode()))
        return gzip.compress(out.getvalue(), mtime=0)


PYPI_COLOUR = "guard-e2e-colour"
PYPI_PACKAGES = [
    PypiPackage(PLAIN, "1.0.0", sdist=True),
    PypiPackage(PLAIN, "1.1.0", sdist=True),
    PypiPackage(PLAIN, "2.0.0", sdist=True),
    PypiPackage(PYPI_COLOUR, "1.0.0", (f"{PLAIN}>=1,<2",)),
    PypiPackage(PYPI_COLOUR, "1.1.0", (f"{PLAIN}>=1,<2",)),
    # Not normalised, so that clients and index have to normalise it.
    PypiPackage(APP, "1.0.0", (f"{PYPI_COLOUR}~=1.0", "Guard_E2E.Strings~=1.1")),
    PypiPackage(APP, "1.0.1", (f"{PLAIN}>=2",)),
]
PYPI_CLOSURE = {
    File(APP, "1.0.0", "guard_e2e_app-1.0.0-py3-none-any.whl"),
    File(PYPI_COLOUR, "1.1.0", "guard_e2e_colour-1.1.0-py3-none-any.whl"),
    File(PLAIN, "1.1.0", "guard_e2e_strings-1.1.0.tar.gz"),
}
