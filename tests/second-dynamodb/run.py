"""Runs the service against a second implementation of DynamoDB, MiniStack, which shares no code
with the embedded one: tests/second-dynamodb/run [OPTIONS]

1. Every function's binary is called once, as tests/rie does. OPTIONS are passed on to it.
2. The life of each kind of token is gone through over HTTP, as tests/sam-local does.

Both begin with empty tables that `guardctl table create` creates. What one implementation accepts
and the other refuses is a request that DynamoDB might refuse.

Needs the binaries of `cargo build --workspace --bins`, the emulator of tests/rie, and MiniStack in
the virtual environment that .ci/run creates, or on the PATH.
"""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
BINARIES = TARGET / "debug"
SECONDS_TO_START = 60

sys.dont_write_bytecode = True
sys.path[:0] = [str(HERE.parent / "rie"), str(HERE.parent / "sam-local")]
from harness import Service, free_ports, stop  # noqa: E402
from tour import (  # noqa: E402
    life_of_an_access_token,
    life_of_an_api_key,
    life_of_an_email_token,
    life_of_an_org_user_token,
)

LIVES = [life_of_an_org_user_token, life_of_an_email_token, life_of_an_api_key, life_of_an_access_token]


@contextlib.contextmanager
def ministack(program, folder):
    """MiniStack with its DynamoDB alone. Yields the URL."""
    folder.mkdir()
    (port,) = free_ports(1)
    env = {
        "PATH": os.defpath,
        "HOME": str(folder),
        "TMPDIR": str(folder),
        "BIND_HOST": "127.0.0.1",
        "GATEWAY_PORT": str(port),
        "SERVICES": "dynamodb",
        "LOG_LEVEL": "WARNING",
        "DOCKER_HOST": f"unix://{folder}/none",  # It looks for containers of its other services.
        "IOT_MTLS_ENABLED": "0",
        "SFTP_ENABLED": "0",
    }
    log_path = folder / "ministack.log"
    with log_path.open("wb") as log:
        process = subprocess.Popen([program], env=env, cwd=folder, stdout=log, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + SECONDS_TO_START
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > deadline:
                    sys.exit(f"MiniStack did not start:\n{log_path.read_text(errors='replace')}")
                time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        stop(process)


def create_tables(url):
    """Creates both tables, as for any emulator."""
    env = {
        "AWS_ENDPOINT_URL_DYNAMODB": url,
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "local",
        "AWS_SECRET_ACCESS_KEY": "local",
        "AWS_EC2_METADATA_DISABLED": "true",
        "TOKENS_TABLE": "guard-tokens",
        "INSTALLATIONS_TABLE": "guard-tokens-installations",
    }
    subprocess.run([BINARIES / "guardctl", "table", "create"], env=env, check=True)


def call_every_function(url, options):
    """Runs tests/rie and returns its exit code."""
    command = [HERE.parent / "rie" / "run", "--dynamodb", url, *options]
    return subprocess.run(command).returncode


def go_through_lives(url, folder):
    """Goes through the life of each kind of token. Returns the number of failures."""
    folder.mkdir()
    failures = 0
    service = Service(BINARIES / "guard-tokens", folder, url)
    try:
        for life in LIVES:
            name = life.__name__.replace("_", " ")
            try:
                life(service)
                print(f"ok    {name}", flush=True)
            except Exception as error:  # Report it and continue with the others.
                print(f"FAIL  {name}: {type(error).__name__}: {error}", flush=True)
                failures += 1
    finally:
        service.stop()
    for line in service.log.read_text(errors="replace").splitlines():
        if "ERROR" in line or "panicked" in line:
            print(f"logged by the service: {line}")
            failures += 1
    return failures


def main():
    """Runs both parts and returns the exit code."""
    installed = TARGET / "tools" / "dynamodb" / "bin" / "ministack"
    program = installed if installed.exists() else shutil.which("ministack")
    if program is None:
        sys.exit("ministack not found: run .ci/run once, or install .ci/requirements-dynamodb.txt")
    for binary in ("guardctl", "guard-tokens"):
        if not (BINARIES / binary).exists():
            sys.exit(f"{binary} is not built; run cargo build --workspace --bins")
    with tempfile.TemporaryDirectory(prefix="guard-tokens-dynamodb-") as folder:
        folder = Path(folder)
        with ministack(program, folder / "first") as url:
            create_tables(url)
            failures = call_every_function(url, sys.argv[1:])
        with ministack(program, folder / "second") as url:
            create_tables(url)
            failures += go_through_lives(url, folder / "service")
    print(f"{failures} failures with the second DynamoDB")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
