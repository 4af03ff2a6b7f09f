"""The documents that the benchmark's upstream serves, generated from a fixed seed so that every run
is the same.

The metadata resembles real metadata, in which only hashes and signatures do not compress well.
"""

import base64
import gzip
import hashlib
import html
import json
import random
from dataclasses import dataclass

ABBREVIATED = "application/vnd.npm.install-v1+json"
FULL = "application/json"
SIMPLE_JSON = "application/vnd.pypi.simple.v1+json"
SIMPLE_HTML = "text/html"

PUBLISHED = "2026-01-02T03:04:05.000Z"

# Numbers of versions for full metadata of about 10 KB, 500 KB and 10 MB.
NPM_VERSIONS = {"small": 4, "medium": 205, "large": 4200}
# Numbers of files for a JSON page of about 10 KB and 500 KB.
PYPI_FILES = {"small": 20, "medium": 1000}
FILE_SIZES = {"100k": 100_000, "5m": 5_000_000}

# Packages with this prefix are answered with the delay of a remote registry.
FAR = "far-"
FAR_MILLISECONDS = 20


@dataclass(frozen=True)
class Document:
    """A response body of the upstream."""

    content_type: str
    body: bytes

    @property
    def etag(self) -> str:
        """The entity tag."""
        return f'"{hashlib.sha256(self.body).hexdigest()[:32]}"'

    @property
    def compressed(self) -> bytes:
        """The body with gzip compression."""
        return gzip.compress(self.body, 6, mtime=0)


def digest(source: random.Random, size: int) -> str:
    """Random bytes in Base64."""
    return base64.b64encode(source.randbytes(size)).decode()


# --- npm


def _install_part(name: str, version: str, dist: dict[str, object]) -> dict[str, object]:
    """The fields of a version in abbreviated metadata."""
    needed = {f"bench-dependency-{letter}": "^1.2.3" for letter in "abcdefgh"}
    developed = {f"bench-development-{letter}": "^4.5.6" for letter in "abcdefghijkl"}
    return {
        "name": name,
        "version": version,
        "dependencies": needed,
        "devDependencies": developed,
        "bin": {name: "bin/cli.js"},
        "engines": {"node": ">=18"},
        "dist": dist,
    }


def _rest(source: random.Random, name: str) -> dict[str, object]:
    """The additional fields of a version in full metadata."""
    person = {"name": "A maintainer of it", "email": "maintainer@example.com"}
    return {
        "description": "A package that is nothing but its metadata, for measuring how fast metadata passes.",
        "keywords": ["benchmark", "metadata", "registry"],
        "license": "MIT",
        "author": person,
        "maintainers": [person] * 3,
        "repository": {"type": "git", "url": f"git+https://git.example.com/{name}.git"},
        "homepage": f"https://www.example.com/{name}",
        "bugs": {"url": f"https://git.example.com/{name}/issues"},
        "main": "./lib/index.js",
        "types": "./lib/index.d.ts",
        "exports": {".": {"import": "./lib/index.mjs", "require": "./lib/index.js", "types": "./lib/index.d.ts"}},
        "scripts": {step: f"node scripts/{step}.js --all" for step in ("build", "lint", "test", "prepack", "release")},
        "files": ["bin", "lib", "README.md"],
        "gitHead": source.randbytes(20).hex(),
        "_id": name,
        "_npmUser": person,
        "_npmOperationalInternal": {"host": "packages", "tmp": f"tmp/{name}_{source.randbytes(12).hex()}"},
        "_hasShrinkwrap": False,
    }


def _packuments(base: str, name: str, hashes: list[dict[str, object]]) -> dict[str, Document]:
    """The metadata of a package by media type, with a version for each of the hashes."""
    source = random.Random(name)
    short, long = {}, {}
    for number, hashed in enumerate(hashes):
        version = f"1.{number}.0"
        dist = {
            "tarball": f"{base}/npm/{name}/-/{name}-{version}.tgz",
            "fileCount": 40,
            "unpackedSize": 123_456,
            "signatures": [{"keyid": "SHA256:" + digest(source, 32), "sig": digest(source, 70)}],
        }
        short[version] = _install_part(name, version, hashed | dist)
        long[version] = short[version] | _rest(source, name)
    common = {"name": name, "dist-tags": {"latest": f"1.{len(hashes) - 1}.0"}}
    full = common | {
        "_id": name,
        "versions": long,
        "time": {"created": PUBLISHED, "modified": PUBLISHED} | dict.fromkeys(long, PUBLISHED),
        "readme": "What a README says of it.\n" * 40,
    }
    abbreviated = common | {"versions": short, "modified": PUBLISHED}
    return {
        ABBREVIATED: Document(ABBREVIATED, json.dumps(abbreviated, separators=(",", ":")).encode()),
        FULL: Document(FULL, json.dumps(full, separators=(",", ":")).encode()),
    }


def npm_packages(base: str) -> dict[str, dict[str, Document]]:
    """The metadata of every package by name; `base` is the upstream's URL."""
    found = {}
    for size, versions in NPM_VERSIONS.items():
        source = random.Random(size)
        hashes: list[dict[str, object]] = [
            {"integrity": "sha512-" + digest(source, 64), "shasum": source.randbytes(20).hex()} for _ in range(versions)
        ]
        found |= {name: _packuments(base, name, hashes) for name in (f"bench-{size}", f"{FAR}bench-{size}")}
    for size in FILE_SIZES:
        contents = file(size)
        integrity = "sha512-" + base64.b64encode(hashlib.sha512(contents).digest()).decode()
        hashed: dict[str, object] = {"integrity": integrity, "shasum": hashlib.sha1(contents).hexdigest()}
        for name in (f"bench-file-{size}", f"{FAR}bench-file-{size}"):
            found[name] = _packuments(base, name, [hashed])
    return found


# --- PyPI


def pypi_projects(base: str) -> dict[str, dict[str, Document]]:
    """The page of every project by name. All files have the same contents."""
    found = {}
    contents = hashlib.sha256(file("100k")).hexdigest()
    for size, files in PYPI_FILES.items():
        name, entries, anchors = f"bench-{size}", [], []
        source = random.Random(name)
        for number in range(files):
            filename = f"bench_{size}-1.{number}.0-py3-none-any.whl"
            place = f"{base}/pypi/packages/{source.randbytes(32).hex()}/{filename}"
            metadata = source.randbytes(32).hex()
            entries.append(
                {
                    "filename": filename,
                    "url": place,
                    "hashes": {"sha256": contents},
                    "requires-python": ">=3.9",
                    "size": FILE_SIZES["100k"],
                    "upload-time": PUBLISHED,
                    "yanked": False,
                    "core-metadata": {"sha256": metadata},
                    "data-dist-info-metadata": {"sha256": metadata},
                }
            )
            anchors.append(
                f'<a href="{place}#sha256={contents}" data-requires-python="{html.escape(">=3.9")}" '
                f'data-dist-info-metadata="sha256={metadata}" data-core-metadata="sha256={metadata}">'
                f"{filename}</a><br />\n"
            )
        page = {"meta": {"api-version": "1.1"}, "name": name, "versions": [], "files": entries}
        text = f"<!DOCTYPE html>\n<html><body>\n<h1>Links for {name}</h1>\n{''.join(anchors)}</body></html>\n"
        found[name] = {
            SIMPLE_JSON: Document(SIMPLE_JSON, json.dumps(page, separators=(",", ":")).encode()),
            SIMPLE_HTML: Document(SIMPLE_HTML, text.encode()),
        }
    return found


def file(size: str) -> bytes:
    """The contents of a file, which cannot be compressed."""
    return random.Random(size).randbytes(FILE_SIZES[size])
