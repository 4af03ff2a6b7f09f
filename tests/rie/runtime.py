"""Lambda's Runtime API for one function, without the emulator.

The emulator starts a function at its first call. Lambda also starts functions in advance, and gives
them a whole processor until they ask for their first event. Here the caller sees that moment:
`Started.wait` returns at it. Uses only Python's standard library.
"""

import selectors
import socket
import subprocess
import time

SECONDS_TO_ANSWER = 60
# Variables that Lambda sets and runtime clients require.
VARIABLES = {
    "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
    "AWS_LAMBDA_LOG_GROUP_NAME": "/aws/lambda/function",
    "AWS_LAMBDA_LOG_STREAM_NAME": "stream",
    "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
}


class Started:
    """A function that has been started, and the server of its events.

    The server runs on the caller's thread, in `wait` and `call`: a function sends one request at a
    time. With `is_ready`, the command waits for a line from us, sent once this function returns
    true: what it does before does not count as the start."""

    def __init__(self, command, env, log_path, folder=None, memory=256, timeout=10, is_ready=None):
        self.timeout, self.log_path = timeout, log_path
        self.selector = selectors.DefaultSelector()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.selector.register(self.listener, selectors.EVENT_READ)
        self.calls = 0
        # The connection on which the function waits for an event.
        self.waiting = None
        host, port = self.listener.getsockname()
        env = env | VARIABLES | {"AWS_LAMBDA_RUNTIME_API": f"{host}:{port}"}
        env |= {"AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(memory)}
        self.started = time.perf_counter()
        stdin = subprocess.PIPE if is_ready else subprocess.DEVNULL
        with log_path.open("wb") as log:
            self.process = subprocess.Popen(command, env=env, cwd=folder, stdin=stdin, stdout=log, stderr=log)
        if is_ready:
            while not is_ready(self.process.pid):
                assert self.process.poll() is None, f"the command has ended\n{self.log()}"
                time.sleep(0.001)
            self.started = time.perf_counter()
            self.process.stdin.write(b"\n")
            self.process.stdin.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def wait(self):
        """Waits until the function asks for an event. Returns the seconds since it was started."""
        while self.waiting is None:
            connection, method, path, body = self._request()
            assert method == "GET" and path.endswith("/invocation/next"), f"{method} {path}: {body[:500]!r}"
            self.waiting = connection
        return time.perf_counter() - self.started

    def call(self, event):
        """Gives the function an event, as bytes, and waits until it asks for the next one. Returns
        the seconds until its response was complete, and the response."""
        self.wait()
        self.calls += 1
        headers = {
            "Lambda-Runtime-Aws-Request-Id": f"00000000-0000-4000-8000-{self.calls:012}",
            "Lambda-Runtime-Deadline-Ms": str(int((time.time() + self.timeout) * 1000)),
            "Lambda-Runtime-Invoked-Function-Arn": "arn:aws:lambda:us-east-1:000000000000:function:function",
            "Content-Type": "application/json",
        }
        connection, self.waiting = self.waiting, None
        started = time.perf_counter()
        respond(connection, "200 OK", headers, event)
        connection, method, path, body = self._request()
        seconds = time.perf_counter() - started
        assert method == "POST" and "/invocation/" in path, f"{method} {path}"
        respond(connection, "202 Accepted", {}, b"")
        self.wait()
        return seconds, body

    def _request(self):
        """The next request of the function: connection, method, path and body."""
        deadline = time.monotonic() + SECONDS_TO_ANSWER
        while time.monotonic() < deadline:
            for key, _ in self.selector.select(1):
                if key.fileobj is self.listener:
                    connection = self.listener.accept()[0]
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    self.selector.register(connection, selectors.EVENT_READ, connection.makefile("rb"))
                elif request := read(key.data, key.fileobj):
                    return key.fileobj, *request
                else:
                    self.selector.unregister(key.fileobj)
                    key.data.close()
                    key.fileobj.close()
            assert self.process.poll() is None, f"the function has ended\n{self.log()}"
        raise AssertionError(f"the function did not answer\n{self.log()}")

    def log(self):
        """What the function has written."""
        return self.log_path.read_text(errors="replace")

    def stop(self):
        """Stops the function."""
        self.process.kill()
        self.process.wait()
        for key in list(self.selector.get_map().values()):
            key.fileobj.close()
        self.selector.close()


def read(stream, connection):
    """Reads a request: method, path and body. `None` at the end of the connection."""
    try:
        line = stream.readline()
    except ConnectionError:
        return None
    if not line:
        return None
    method, path, _ = line.decode().split(" ")
    headers = {}
    while line := stream.readline().strip():
        name, _, value = line.decode().partition(":")
        headers[name.lower()] = value.strip()
    if headers.get("expect") == "100-continue":
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
    if headers.get("transfer-encoding") == "chunked":
        body = b""
        while size := int(stream.readline(), 16):
            body += stream.read(size)
            stream.readline()
        stream.readline()
    else:
        body = stream.read(int(headers.get("content-length", 0)))
    return method, path, body


def respond(connection, status, headers, body):
    """Sends a response."""
    lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in headers.items())]
    lines += [f"Content-Length: {len(body)}", "", ""]
    connection.sendall("\r\n".join(lines).encode() + body)
