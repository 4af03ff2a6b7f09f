"""A proxy that records requests and responses and makes the changes that API Gateway makes."""

import http.client
import re
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

# Headers that a proxy must not forward.
HOP_BY_HOP = {"connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"}

Headers = list[tuple[str, str]]


@dataclass(frozen=True)
class Exchange:
    """A request and its response."""

    method: str
    target: str
    headers: Headers
    body: bytes
    status: int
    answer_headers: Headers

    def header(self, name: str) -> str | None:
        """The value of a request header."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)

    def everything_sent(self) -> str:
        """Path, headers and body of the request as one text, to search for secrets."""
        headers = "\n".join(f"{name}: {value}" for name, value in self.headers)
        return f"{self.method} {self.target}\n{headers}\n\n{self.body.decode(errors='replace')}"


class Server(ThreadingHTTPServer):
    """A server on a free port of a loopback address, with a thread per connection."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, address: str, handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__((address, 0), handler)
        self.exchanges: list[Exchange] = []
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    @property
    def port(self) -> int:
        """The port on which it listens."""
        return self.server_address[1]

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignores errors: clients may close connections at any time."""

    def stop(self) -> None:
        """Stops the server."""
        self.shutdown()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    """Common base of the suite's servers: HTTP/1.1, chunked bodies, and a record of every
    exchange."""

    protocol_version = "HTTP/1.1"
    # With Nagle's algorithm, a body would wait for the acknowledgement of its headers.
    disable_nagle_algorithm = True
    wbufsize = -1
    server: Server

    def log_message(self, format: str, *args: object) -> None:
        """Prints nothing: exchanges are recorded instead."""

    def read_body(self) -> bytes:
        """Reads the request's body."""
        if "chunked" in (self.headers.get("transfer-encoding") or "").lower():
            body = b""
            while size := int(self.rfile.readline().split(b";")[0], 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            while self.rfile.readline().strip():
                pass
            return body
        return self.rfile.read(int(self.headers.get("content-length") or 0))

    def answer(self, status: int, headers: Headers, body: bytes, sent: bytes = b"", reason: str | None = None) -> None:
        """Records the exchange, then responds, so that a client with the response finds the
        record."""
        self.server.exchanges.append(
            Exchange(self.command, self.path, list(self.headers.items()), sent, status, headers)
        )
        self.send_response_only(status, reason)
        names = {name.lower() for name, _ in headers}
        for name, value in headers:
            self.send_header(name, value)
        if "content-length" not in names and status not in (204, 304):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        self.wfile.flush()


@dataclass
class Behaviour:
    """The changes that a proxy makes."""

    # Number of 503 responses for each metadata path before a request is forwarded. Tarballs always
    # succeed: our service does not fetch them, and yarn 1 does not retry them.
    hiccups: int = 0

    # Response headers to rename, as API Gateway does.
    rename: dict[str, str] = field(default_factory=dict)
    # Maps the request target to the forwarded one.
    target: Callable[[str], str] = lambda target: target
    # Maps the response body to the forwarded one.
    body: Callable[[bytes], bytes] | None = None


API_GATEWAY_RENAMES = {"www-authenticate": "x-amzn-Remapped-WWW-Authenticate"}


def decoded_once(target: str) -> str:
    """The target with encoded slashes decoded, as API Gateway's `$default` stages forward paths."""
    path, mark, query = target.partition("?")
    return re.sub("%2f", "/", path, flags=re.IGNORECASE) + mark + query


PLAIN = Behaviour()
HICCUPS = Behaviour(hiccups=1)
ENCODED = Behaviour(rename=API_GATEWAY_RENAMES)
DECODED = Behaviour(rename=API_GATEWAY_RENAMES, target=decoded_once)


class Proxy(Server):
    """Forwards every request to `base` with its original `Host`, and records it. With `renames`,
    the server behind sees its own name instead, or the name `known_as`, and clients see only the
    proxy's."""

    def __init__(
        self,
        base: str,
        behaviour: Behaviour = PLAIN,
        address: str = "127.0.0.1",
        name: str | None = None,
        renames: bool = False,
        known_as: str | None = None,
    ):
        self.behind = urlsplit(base)
        self.known_as = known_as or self.behind.netloc
        self.behaviour = behaviour
        self.renames = renames
        self.name = name or address
        self._asked: Counter[str] = Counter()
        super().__init__(address, ProxyHandler)

    def asked(self, target: str) -> int:
        """Counts a request for the target, and returns the number of requests so far."""
        self._asked[target] += 1
        return self._asked[target]

    def forget(self) -> None:
        """Resets the counters, so that the hiccups start again."""
        self._asked.clear()

    @property
    def url(self) -> str:
        """Its base URL, without a trailing slash."""
        return f"http://{self.name}:{self.port}"


class ProxyHandler(Handler):
    """A connection to a `Proxy`."""

    server: Proxy

    def do_any(self) -> None:
        """Forwards a request."""
        sent = self.read_body()
        behaviour = self.server.behaviour
        if not self.path.endswith(".tgz") and self.server.asked(self.path) <= behaviour.hiccups:
            self.answer(503, [("Content-Type", "text/plain")], b"ask again", sent)
            return
        behind = http.client.HTTPConnection(self.server.behind.netloc, timeout=60)
        try:
            behind.putrequest(self.command, behaviour.target(self.path), skip_host=True, skip_accept_encoding=True)
            omitted = HOP_BY_HOP | {"content-length", "expect"}
            if behaviour.body or self.server.renames:
                # A body to be changed must arrive uncompressed.
                omitted |= {"accept-encoding"}
            if self.server.renames:
                omitted |= {"host"}
                behind.putheader("Host", self.server.known_as)
            for name, value in self.headers.items():
                if name.lower() not in omitted:
                    behind.putheader(name, value)
            if sent or "content-length" in self.headers:
                behind.putheader("Content-Length", str(len(sent)))
            behind.endheaders(sent or None)
            answer = behind.getresponse()
            body = answer.read()
            if behaviour.body:
                body = behaviour.body(body)
            if self.server.renames:
                body = body.replace(f"http://{self.server.known_as}".encode(), self.server.url.encode())
        except OSError as error:
            self.answer(
                502, [("Content-Type", "text/plain")], f"the proxy cannot reach the server: {error}".encode(), sent
            )
            return
        finally:
            behind.close()
        headers = [
            (behaviour.rename.get(name.lower(), name), value)
            for name, value in answer.getheaders()
            if name.lower() not in HOP_BY_HOP and (name.lower() != "content-length" or self.command == "HEAD")
        ]
        self.answer(answer.status, headers, body, sent, answer.reason)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_any
