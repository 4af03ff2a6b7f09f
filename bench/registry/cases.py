"""The measured cases."""

import gzip
import hashlib
import json
from collections.abc import Callable, Sequence

from documents import (
    ABBREVIATED,
    FAR,
    FAR_MILLISECONDS,
    FULL,
    NPM_VERSIONS,
    PYPI_FILES,
    SIMPLE_HTML,
    SIMPLE_JSON,
    file,
)
from measuring import Answer, Caller, Case
from ways import Way

# Rounds by size. With fifty, the 99th percentile is the maximum.
ROUNDS = {"small": 500, "medium": 200, "large": 50}
FAR_ROUNDS = 100
FILE_ROUNDS = 300

GZIP = {"Accept-Encoding": "gzip"}
# What makes our service fetch and rewrite a document that it keeps. verdaccio ignores it.
RELOAD = {"Cache-Control": "no-cache"}
# The `Accept` headers that npm sends.
ACCEPT = {ABBREVIATED: f"{ABBREVIATED}; q=1.0, application/json; q=0.8, */*", FULL: FULL}
NPM = {"User-Agent": "npm/12.2.0 node/v24.19.0 linux x64 workspaces/false", "npm-command": "install"}
PIP = {"User-Agent": 'pip/26.3 {"ci":null,"installer":{"name":"pip","version":"26.3"}}'}


def decoded(answer: Answer) -> bytes:
    """The decompressed body."""
    return gzip.decompress(answer.body) if answer.headers["content-encoding"] == "gzip" else answer.body


def npm_metadata(name: str, versions: int) -> Callable[[Way, Answer], None]:
    """Checks that metadata is compressed and complete, and that its files are on the same route."""

    def check(way: Way, answer: Answer) -> None:
        assert answer.headers["content-encoding"] == "gzip" or len(answer.body) < 1_024, way.name
        found = json.loads(decoded(answer))["versions"]
        assert len(found) == versions, (way.name, len(found))
        for version in found.values():
            assert version["dist"]["tarball"].startswith(f"{way.roots['npm']}{name}/-/"), (way.name, version["dist"])

    return check


def pypi_page(files: int) -> Callable[[Way, Answer], None]:
    """Checks that metadata is compressed and complete, and that its files are on the same route."""

    def check(way: Way, answer: Answer) -> None:
        assert answer.headers["content-encoding"] == "gzip", way.name
        text = decoded(answer).decode()
        assert text.count(way.roots["pypi"].removesuffix("simple/")) == files, way.name

    return check


def contents(size: str) -> Callable[[Way, Answer], None]:
    """Checks that the body is the file."""
    expected = hashlib.sha256(file(size)).digest()

    def check(way: Way, answer: Answer) -> None:
        assert hashlib.sha256(answer.body).digest() == expected, way.name

    return check


def below(registry: str, path: str) -> Callable[[Way], Sequence[str]]:
    """The URL of this path on each route."""
    return lambda way: [way.roots[registry] + path]


def files_of(project: str) -> Callable[[Way], Sequence[str]]:
    """All files of a Python project, from its page."""

    def places(way: Way) -> Sequence[str]:
        page = Caller().get(f"{way.roots['pypi']}{project}/", {"Accept": SIMPLE_JSON}, way.headers)
        return [entry["url"] for entry in json.loads(page.body)["files"]]

    return places


def metadata(size: str, kind: str, unchanged: bool = False, far: str = "", reload: bool = False) -> Case:
    """A case for npm metadata. With `reload`, our service uses nothing that it keeps."""
    package = f"{far}bench-{size}"
    name = f"{'abbreviated' if kind == ABBREVIATED else 'full'}, {size}"
    name += (", unchanged" if unchanged else "") + (", nothing kept" if reload else "")
    rounds = FAR_ROUNDS if far else ROUNDS[size]
    headers = NPM | GZIP | {"Accept": ACCEPT[kind]} | (RELOAD if reload else {})
    return Case(
        name, rounds, "npm", below("npm", package), headers, npm_metadata(package, NPM_VERSIONS[size]), unchanged
    )


def page(size: str, kind: str, unchanged: bool = False, reload: bool = False) -> Case:
    """A case for the page of a Python project. With `reload`, our service uses nothing kept."""
    name = f"{'JSON' if kind == SIMPLE_JSON else 'HTML'}, {size}"
    name += (", unchanged" if unchanged else "") + (", nothing kept" if reload else "")
    headers = PIP | GZIP | {"Accept": kind} | (RELOAD if reload else {})
    return Case(
        name, ROUNDS[size], "pypi", below("pypi", f"bench-{size}/"), headers, pypi_page(PYPI_FILES[size]), unchanged
    )


def npm_file(size: str, far: str = "") -> Case:
    """A case for the file of an npm package."""
    package = f"{far}bench-file-{size}"
    places = below("npm", f"{package}/-/{package}-1.0.0.tgz")
    rounds = FAR_ROUNDS if far else FILE_ROUNDS
    return Case("npm file", rounds, "npm", places, NPM | {"Accept": "*/*"}, contents(size), is_file=True)


def pypi_file() -> Case:
    """A case for the files of a Python project: many, because repeated downloads of one file are
    not logged again."""
    headers, check = PIP | {"Accept": "*/*"}, contents("100k")
    return Case("Python file", FILE_ROUNDS, "pypi", files_of("bench-medium"), headers, check, is_file=True)


# The cases, by heading in the report.
CASES: dict[str, list[Case]] = {
    "npm metadata": [
        *(metadata(size, ABBREVIATED) for size in ROUNDS),
        *(metadata(size, FULL) for size in ROUNDS),
        *(metadata(size, ABBREVIATED, unchanged=True) for size in ROUNDS),
        *(metadata(size, FULL, reload=True) for size in ROUNDS),
    ],
    "Python project pages": [
        *(page(size, kind) for kind in (SIMPLE_JSON, SIMPLE_HTML) for size in PYPI_FILES),
        page("medium", SIMPLE_JSON, unchanged=True),
        *(page("medium", kind, reload=True) for kind in (SIMPLE_JSON, SIMPLE_HTML)),
    ],
    "Files": [npm_file("100k"), npm_file("5m"), pypi_file()],
    f"With an upstream that answers after {FAR_MILLISECONDS} ms": [
        metadata("medium", ABBREVIATED, far=FAR),
        metadata("medium", ABBREVIATED, unchanged=True, far=FAR),
        npm_file("100k", far=FAR),
    ],
}
