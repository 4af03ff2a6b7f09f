"""Metadata as large as that of the largest packages, and the memory that our service needs for
it."""

import itertools
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

from service import Service, call
from upstreams import UPSTREAM_NAME

# For a build that is not optimized.
SECONDS = 120

# The kinds of documents, by media type: what is before the entries, an entry, and what is after
# them. Entries have the size of real ones.
NPM, JSON, HTML = "application/json", "application/vnd.pypi.simple.v1+json", "text/html"
PARTS = {
    NPM: (
        '{"name":"large","versions":{"0.0.0":{"name":"large"}',
        ',"1.%d.0":{"name":"large","dist":{"tarball":"{base}/npm/large/-/large-1.%d.0.tgz","integrity":"sha512-'
        + f'{"A" * 86}=="}},"readme":"{"words of it " * 180}"}}',
        "}}",
    ),
    JSON: (
        '{"meta":{"api-version":"1.1"},"name":"large","files":[{"filename":"large-0.zip","url":"large-0.zip"}',
        ',{"filename":"large-1.%d.zip","url":"{base}/files/large-1.%d.zip","hashes":{"sha256":"'
        + f'{"0" * 64}"}},"requires-python":">=3.9","size":1000,"yanked":false,'
        + f'"core-metadata":{{"sha256":"{"1" * 64}"}}}}',
        "]}",
    ),
    HTML: (
        "<!DOCTYPE html><html><body>\n",
        '<a href="{base}/files/large-1.%d.zip#sha256='
        + f'{"0" * 64}" data-requires-python="&gt;=3.9" '
        + f'data-core-metadata="sha256={"1" * 64}">large-1.%d.zip</a><br/>\n',
        "</body></html>",
    ),
}


@dataclass(frozen=True)
class Large:
    """A document of a kind and of some million bytes."""

    kind: str
    megabytes: int
    base: str

    @property
    def size(self) -> int:
        """Its size in bytes."""
        return self.megabytes * 1_000_000

    def pieces(self) -> Iterator[bytes]:
        """Its text."""
        start, entry, end = (part.replace("{base}", self.base) for part in PARTS[self.kind])
        yield start.encode()
        left = self.size - len(start) - len(end)
        for number in itertools.count():
            piece = entry % (number, number)
            left -= len(piece)
            if left < 0:
                break
            yield piece.encode()
        yield end.encode()

    @cached_property
    def compressed(self) -> list[bytes]:
        """Its text with gzip compression."""
        compressor = zlib.compressobj(6, zlib.DEFLATED, 31)
        return [*map(compressor.compress, self.pieces()), compressor.flush()]


class LargeUpstream:
    """An upstream of both kinds. The last part of a path says how large its document is, and
    whether it is compressed: `plain-40`."""

    def __init__(self) -> None:
        documents: dict[tuple[str, int], Large] = {}

        class Handler(BaseHTTPRequestHandler):
            """Answers with a document."""

            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                encoding, size = self.path.strip("/").rpartition("/")[2].split("-")
                accepted = self.headers["accept"]
                kind = NPM if "/npm/" in self.path else JSON if JSON in accepted else HTML
                base = f"http://{self.headers['host']}"
                document = documents.setdefault((kind, int(size)), Large(kind, int(size), base))
                self.send_response(200)
                self.send_header("Content-Type", kind)
                self.send_header("ETag", f'"{size}"')
                if encoding == "gzip":
                    self.send_header("Content-Encoding", "gzip")
                self.send_header("Connection", "close")
                self.end_headers()
                for piece in document.compressed if encoding == "gzip" else document.pieces():
                    self.wfile.write(piece)

            def log_message(self, *args: object) -> None:
                """Says nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://{UPSTREAM_NAME}:{self._server.server_port}"

    def stop(self) -> None:
        """Stops it."""
        self._server.shutdown()
        self._server.server_close()


@dataclass(frozen=True)
class Needed:
    """What a request needed."""

    status: int
    # The peak of the whole process, and how much of it was not there before, in bytes.
    peak: int
    more: int


def _memory(pid: int, name: str) -> int:
    found = re.search(rf"{name}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1]) * 1024


def needed(
    binary: Path, folder: Path, upstream: LargeUpstream, document: Large, encoding: str, accepted: str
) -> Needed:
    """Starts the service and asks it for a document once. The upstream sends it in one encoding,
    the client accepts another."""
    service = Service(binary, folder, f"{upstream.url}/npm/", f"{upstream.url}/pypi/simple/")
    try:
        name = f"{encoding}-{document.megabytes}"
        path = f"npm/{name}" if document.kind == NPM else f"pypi/simple/{name}/"
        token = service.issue("large").token
        before = _memory(service.pid, "VmRSS")
        headers = {"Accept": document.kind, "Accept_Encoding": accepted}
        answer = call(f"{service.url}/{path}", token, seconds=SECONDS, **headers)
        peak = _memory(service.pid, "VmHWM")
        return Needed(answer.status, peak, peak - before)
    finally:
        service.stop()
