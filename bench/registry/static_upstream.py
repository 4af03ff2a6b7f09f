"""The benchmark's upstream registry, which serves prepared responses from memory:
static_upstream.py URL

Does as little work per request as possible, so that the benchmark does not measure it.
"""

import sys
import time
from socketserver import StreamRequestHandler, ThreadingTCPServer
from urllib.parse import urlsplit

from documents import (
    ABBREVIATED,
    FAR,
    FAR_MILLISECONDS,
    FULL,
    SIMPLE_HTML,
    SIMPLE_JSON,
    Document,
    file,
    npm_packages,
    pypi_projects,
)

NOT_FOUND = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"


class Prepared:
    """A document as complete HTTP responses."""

    def __init__(self, document: Document) -> None:
        self.etag = document.etag.encode()
        described = (
            f"ETag: {document.etag}\r\nVary: Accept, Accept-Encoding\r\nCache-Control: public, max-age=300\r\n"
            f"Content-Type: {document.content_type}\r\n"
        )
        compressed = document.compressed
        self.not_modified = f"HTTP/1.1 304 Not Modified\r\n{described}\r\n".encode()
        plain = f"HTTP/1.1 200 OK\r\n{described}Content-Length: {len(document.body)}\r\n\r\n"
        self.plain = plain.encode() + document.body
        gzipped = f"HTTP/1.1 200 OK\r\n{described}Content-Encoding: gzip\r\nContent-Length: {len(compressed)}\r\n\r\n"
        self.gzipped = gzipped.encode() + compressed

    def answer(self, headers: dict[bytes, bytes]) -> bytes:
        """The response to a request with these headers."""
        if headers.get(b"if-none-match") == self.etag:
            return self.not_modified
        return self.gzipped if b"gzip" in headers.get(b"accept-encoding", b"") else self.plain


class Upstream(ThreadingTCPServer):
    """The server and its responses."""

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 64

    def __init__(self, base: str) -> None:
        # By path: a media type, the response if `Accept` contains it, and the response otherwise.
        self.metadata: dict[bytes, tuple[bytes, Prepared, Prepared]] = {}
        for name, npm in npm_packages(base).items():
            self.metadata[f"/npm/{name}".encode()] = (
                ABBREVIATED.encode(),
                Prepared(npm[ABBREVIATED]),
                Prepared(npm[FULL]),
            )
        for name, pypi in pypi_projects(base).items():
            path = f"/pypi/simple/{name}/".encode()
            self.metadata[path] = (SIMPLE_JSON.encode(), Prepared(pypi[SIMPLE_JSON]), Prepared(pypi[SIMPLE_HTML]))
        self._small_file, self._large_file = (
            f"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            + body
            for body in (file("100k"), file("5m"))
        )
        super().__init__(("127.0.0.1", urlsplit(base).port), Connection)

    def answer(self, path: bytes, headers: dict[bytes, bytes]) -> bytes:
        """The response to a request."""
        if found := self.metadata.get(path):
            kind, named, other = found
            return (named if kind in headers.get(b"accept", b"") else other).answer(headers)
        if path.endswith((b".tgz", b".whl")):
            return self._large_file if b"-file-5m-" in path else self._small_file
        return NOT_FOUND


class Connection(StreamRequestHandler):
    """A persistent connection."""

    disable_nagle_algorithm = True
    server: Upstream

    def handle(self) -> None:
        """Responds to requests in turn. None of them has a body."""
        far = FAR.encode()
        while line := self.rfile.readline():
            path = line.split(b" ")[1]
            headers = {}
            while header := self.rfile.readline().rstrip(b"\r\n"):
                name, _, value = header.partition(b":")
                headers[name.lower()] = value.strip()
            if far in path:
                time.sleep(FAR_MILLISECONDS / 1000)
            self.connection.sendall(self.server.answer(path, headers))


if __name__ == "__main__":
    Upstream(sys.argv[1]).serve_forever()
