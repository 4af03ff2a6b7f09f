"""The upstream registries, filled with the fixtures: verdaccio, pypiserver, and an index of our
own.

All record every request, so that tests can assert that no token reaches them. Their host name
differs from our service's, so that the clients' rules about hosts apply.
"""

import hashlib
import html
import itertools
import json
import random
import re
import socket
import subprocess
import time
from pathlib import Path
from urllib.parse import unquote, urlsplit

from fixtures import NPM_PACKAGES, PYPI_PACKAGES, NpmPackage, PypiPackage
from gateway import Behaviour, Exchange, Handler, Headers, Proxy, Server
from tools import Tools

UPSTREAM_NAME = "localhost"
FILE_HOST = "127.0.0.2"
SECONDS_TO_START = 60
PUBLISHED = "2026-01-02T03:04:05.000Z"


def free_port() -> int:
    """A free port below the range from which the kernel assigns ports."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as each:
            try:
                each.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue


def wait_for(port: int, process: subprocess.Popen, log: Path) -> None:
    """Waits until the process listens on the port."""
    deadline = time.monotonic() + SECONDS_TO_START
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"did not start: {process.args!r}\n{log.read_text(errors='replace')}") from None
            time.sleep(0.05)


def stop(process: subprocess.Popen) -> None:
    """Stops a process."""
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class Started:
    """A server in a separate process, behind a proxy that records its requests."""

    def __init__(self, command: list[str], port: int, folder: Path, env: dict[str, str]) -> None:
        log = folder / "server.log"
        with log.open("wb") as out:
            self._process = subprocess.Popen(command, cwd=folder, env=env, stdout=out, stderr=subprocess.STDOUT)
        wait_for(port, self._process, log)
        self.proxy = Proxy(f"http://127.0.0.1:{port}", name=UPSTREAM_NAME)

    @property
    def exchanges(self) -> list[Exchange]:
        """All recorded requests."""
        return self.proxy.exchanges

    def stop(self) -> None:
        """Stops the server."""
        self.proxy.stop()
        stop(self._process)


VERDACCIO = """\
storage: ./storage
uplinks: {}
packages:
  '**':
    access: $all
    publish: $all
log: { type: stdout, format: pretty, level: warn }
web: { enable: false }
"""


class Verdaccio(Started):
    """An npm registry without an upstream."""

    def __init__(self, tools: Tools, folder: Path) -> None:
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text(VERDACCIO)
        port = free_port()
        command = [*tools.verdaccio, "--config", "config.yaml", "--listen", f"127.0.0.1:{port}"]
        super().__init__(command, port, folder, tools.environment(folder))
        self.url = f"{self.proxy.url}/"
        self._publish(tools, folder)
        self.exchanges.clear()

    def _publish(self, tools: Tools, folder: Path) -> None:
        """Publishes the fixtures with npm: first the first version of each package, then the
        second, and so on."""
        env = tools.environment(folder)
        # Anyone may publish, but npm requires a credential.
        host = urlsplit(self.url).netloc
        (folder / ".npmrc").write_text(f"registry={self.url}\n//{host}/:_authToken=anybody\n")
        versions: dict[str, list[NpmPackage]] = {}
        for package in NPM_PACKAGES:
            versions.setdefault(package.name, []).append(package)
        for number, packages in enumerate(itertools.zip_longest(*versions.values())):
            workspace = folder / "fixtures" / str(number)
            names = [package.write(workspace).name for package in packages if package]
            (workspace / "package.json").write_text(json.dumps({"private": True, "workspaces": names}))
            command = [*tools.npm, "publish", "--workspaces", "--tag", "latest" if number else "first"]
            done = subprocess.run(command, cwd=workspace, env=env, capture_output=True, text=True)
            if done.returncode != 0:
                raise RuntimeError(f"publishing failed:\n{done.stdout}{done.stderr}")
        # By default, pnpm and yarn 4 do not install versions published within the last day.
        for name in versions:
            path = folder / "storage" / name / "package.json"
            document = json.loads(path.read_text())
            document["time"] = dict.fromkeys(document["time"], PUBLISHED)
            path.write_text(json.dumps(document))


class ScatteredFiles:
    """Verdaccio with its tarballs on another host, under opaque names, as in some registries."""

    def __init__(self, verdaccio: Verdaccio) -> None:
        self._files = Proxy(verdaccio.url, Behaviour(target=self._path), address=FILE_HOST)
        self._registry = Proxy(verdaccio.url, Behaviour(body=self._scattered), name=UPSTREAM_NAME)
        self.url = f"{self._registry.url}/"

    def _scattered(self, body: bytes) -> bytes:
        def elsewhere(found: re.Match[bytes]) -> bytes:
            return f'"tarball": "{self._files.url}/blobs/{found[1].hex()}"'.encode()

        return re.sub(rb'"tarball": ?"http://[^/"]+(/[^"]+)"', elsewhere, body)

    def _path(self, target: str) -> str:
        return bytes.fromhex(target.removeprefix("/blobs/")).decode()

    @property
    def exchanges(self) -> list[Exchange]:
        """All recorded requests to the host of the tarballs."""
        return self._files.exchanges

    def stop(self) -> None:
        """Stops the server."""
        self._registry.stop()
        self._files.stop()


class PypiServer(Started):
    """pypiserver: only HTML, with the files on the host of the index."""

    kind = "pypiserver"

    def __init__(self, tools: Tools, folder: Path) -> None:
        packages = folder / "packages"
        packages.mkdir(parents=True)
        for package in PYPI_PACKAGES:
            (packages / package.file).write_bytes(package.contents)
        port = free_port()
        command = [*tools.pypiserver, "run", "-i", "127.0.0.1", "-p", str(port), "--disable-fallback", str(packages)]
        super().__init__(command, port, folder, tools.environment(folder))
        self.url = f"{self.proxy.url}/simple/"


# --- an index with the features of PyPI

JSON = "application/vnd.pypi.simple.v1+json"
HTML = "application/vnd.pypi.simple.v1+html"


def normalised(name: str) -> str:
    """The normalised form of a name (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


class SimpleIndex:
    """JSON or HTML by `Accept`, PEP 658 metadata for wheels, and all files on another host."""

    kind = "own index"

    def __init__(self) -> None:
        self._files = Server(FILE_HOST, FilesHandler)
        self._index = IndexServer(f"http://{FILE_HOST}:{self._files.port}")
        self._files.exchanges = self._index.exchanges
        self.url = f"http://{UPSTREAM_NAME}:{self._index.port}/simple/"
        self.file_host = f"{FILE_HOST}:{self._files.port}"

    @property
    def exchanges(self) -> list[Exchange]:
        """All recorded requests to both hosts."""
        return self._index.exchanges

    def stop(self) -> None:
        """Stops the server."""
        self._index.stop()
        self._files.stop()


class IndexServer(Server):
    """The host of the index."""

    def __init__(self, files: str) -> None:
        self.files = files
        super().__init__("127.0.0.1", IndexHandler)


def sha256(contents: bytes) -> str:
    """The digest of a file, as the index states it."""
    return hashlib.sha256(contents).hexdigest()


def path_of(package: PypiPackage) -> str:
    """The file's path on its host, which cannot be derived from its name."""
    digest = sha256(package.contents)
    return f"/packages/{digest[:2]}/{digest[2:4]}/{digest[4:]}/{package.file}"


class IndexHandler(Handler):
    """A connection to the index."""

    server: IndexServer

    def do_GET(self) -> None:
        """The list of projects, or the files of one."""
        self.read_body()
        path = unquote(urlsplit(self.path).path)
        found = re.fullmatch(r"/simple/(?:([^/]+)(/?))?", path)
        if not found:
            return self.answer(404, [("Content-Type", "text/plain")], b"404 Not Found")
        name, slash = found.groups()
        if name and (name != normalised(name) or not slash):
            return self.answer(301, [("Location", f"/simple/{normalised(name)}/")], b"")
        packages = [each for each in PYPI_PACKAGES if each.name == name]
        if name and not packages:
            return self.answer(404, [("Content-Type", "text/plain")], b"404 Not Found")
        accept = self.headers.get("accept") or "*/*"
        kind = JSON if JSON in accept else HTML if HTML in accept else "text/html"
        body = self._project(name, packages, kind) if name else self._projects(kind)
        tag = f'"{sha256(body)[:32]}"'
        headers: Headers = [("ETag", tag), ("Vary", "Accept"), ("Cache-Control", "max-age=600, public")]
        if self.headers.get("if-none-match") == tag:
            return self.answer(304, headers, b"")
        self.answer(200, [("Content-Type", kind), *headers], body)

    do_HEAD = do_GET

    def _projects(self, kind: str) -> bytes:
        names = sorted({each.name for each in PYPI_PACKAGES})
        if kind == JSON:
            projects = [{"name": name} for name in names]
            return json.dumps({"meta": {"api-version": "1.0"}, "projects": projects}).encode()
        anchors = "".join(f'<a href="/simple/{name}/">{name}</a><br>\n' for name in names)
        return f"<!DOCTYPE html><html><body>\n{anchors}</body></html>\n".encode()

    def _project(self, name: str, packages: list[PypiPackage], kind: str) -> bytes:
        entries = []
        for package in packages:
            entry: dict[str, object] = {
                "filename": package.file,
                "url": self.server.files + path_of(package),
                "hashes": {"sha256": sha256(package.contents)},
                "requires-python": ">=3.8",
                "size": len(package.contents),
                "upload-time": PUBLISHED,
                "yanked": False,
            }
            metadata = False if package.sdist else {"sha256": sha256(package.metadata.encode())}
            entries.append(entry | {"core-metadata": metadata, "data-dist-info-metadata": metadata})
        if kind == JSON:
            versions = [each.version for each in packages]
            page = {"meta": {"api-version": "1.1"}, "name": name, "versions": versions, "files": entries}
            return json.dumps(page).encode()
        lines = []
        for package, entry in zip(packages, entries, strict=True):
            digest = sha256(package.metadata.encode())
            metadata_hint = "" if package.sdist else f' data-core-metadata="sha256={digest}"'
            link = html.escape(f"{entry['url']}#sha256={sha256(package.contents)}")
            python = html.escape(">=3.8")
            lines.append(f'<a href="{link}" data-requires-python="{python}"{metadata_hint}>{package.file}</a><br>\n')
        head = '<meta name="pypi:repository-version" content="1.1">'
        return f"<!DOCTYPE html><html><head>{head}</head><body>\n{''.join(lines)}</body></html>\n".encode()


class FilesHandler(Handler):
    """A connection to the host of the files."""

    def do_GET(self) -> None:
        """A file, a range of it, or the metadata of a wheel."""
        self.read_body()
        contents = {path_of(each): each.contents for each in PYPI_PACKAGES}
        contents |= {f"{path_of(each)}.metadata": each.metadata.encode() for each in PYPI_PACKAGES if not each.sdist}
        body = contents.get(self.path)
        if body is None:
            return self.answer(404, [("Content-Type", "text/plain")], b"404 Not Found")
        headers: Headers = [("Content-Type", "application/octet-stream"), ("Accept-Ranges", "bytes")]
        part = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("range") or "")
        if part and any(part.groups()):
            first, last = part.groups()
            start = int(first) if first else max(0, len(body) - int(last))
            end = min(int(last) + 1, len(body)) if first and last else len(body)
            headers.append(("Content-Range", f"bytes {start}-{end - 1}/{len(body)}"))
            return self.answer(206, headers, body[start:end])
        self.answer(200, headers, body)

    do_HEAD = do_GET
