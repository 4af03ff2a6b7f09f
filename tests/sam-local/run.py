"""Builds the functions with `sam build`, as a deployment does, and calls them over HTTP through
`sam local start-api`.

    tests/sam-local/run                       all functions, built as they are deployed
    tests/sam-local/run --one-of-each-group   one function from each folder under functions/
    tests/sam-local/run --architecture arm64 --build-only

Sends each function the request of its event in `events/`, through the routes and the authorizer of
template.yaml. The answer must match tests/rie/expectations.py. Then checks refusals, and the life
of each kind of token across functions. The functions run in containers, from the files that `sam
build` has made. Tables, mail outbox and upstream registries run on this machine; the containers
reach them at an address of the Docker network.

Needs Linux, cargo and Python 3.11 with venv. Installs what is missing: the SAM CLI, cargo-lambda
and zig into target/tools, and Docker (Debian's docker.io, if run as root). Starts a Docker daemon
if none is running, without touching the firewall, and stops it at the end. If Lambda's base image
cannot be pulled, composes one from this machine's files. Removes the images, containers and files
it has created; tools and packages stay.
"""

import argparse
import contextlib
import http.server
import json
import os
import platform
import signal
import socket
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "rie"))

from building import MACHINES, TARGET, check_binary, check_profile, functions, groups, install_tools, sam_build
from containers import (
    SECONDS_TO_START,
    Upstream,
    base_image,
    docker_network,
    forward,
    install_docker,
    run,
    serve,
    start_docker,
    stop,
)
from harness import MAIL, Service, free_ports
from tour import CALLED_BEFORE, PUBLIC_URL, Deployed, tour


def start_api(stack, folder, parameters, variables, network, port):
    """Starts `sam local start-api` on the build, and returns the path of its log."""
    (folder / "variables.json").write_text(json.dumps({"Parameters": variables}))
    # Variables of this shell would override the template's.
    kept = ("PATH", "HOME", "DOCKER_HOST", "DOCKER_CONFIG", "TMPDIR")
    env = {name: os.environ[name] for name in kept if name in os.environ}
    env |= {
        "SAM_CLI_TELEMETRY": "0",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_DEFAULT_REGION": variables["AWS_REGION"],
        "AWS_ACCESS_KEY_ID": variables["AWS_ACCESS_KEY_ID"],
        "AWS_SECRET_ACCESS_KEY": variables["AWS_SECRET_ACCESS_KEY"],
    }
    command = ["sam", "local", "start-api", "--template", folder / "build/template.yaml", "--port", port]
    command += ["--docker-network", network, "--skip-pull-image", "--warm-containers", "LAZY"]
    command += ["--layer-cache-basedir", folder / "layers"]
    command += ["--env-vars", folder / "variables.json", "--parameter-overrides", *parameters]
    log_path = folder / "api.log"
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            [str(part) for part in command], env=env, stdout=log, stderr=subprocess.STDOUT, cwd=folder
        )
    stack.callback(stop, process)
    deadline = time.monotonic() + SECONDS_TO_START
    while True:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), 1).close()
            return log_path
        if process.poll() is not None or time.monotonic() > deadline:
            sys.exit(f"sam local start-api did not start:\n{log_path.read_text(errors='replace')[-4000:]}")
        time.sleep(0.2)


def arguments(machine):
    """Parses the command line."""
    parser = argparse.ArgumentParser(
        prog="tests/sam-local/run", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--one-of-each-group", action="store_true", help="only the first function in each folder of functions/"
    )
    which.add_argument(
        "--only", nargs="+", metavar="NAME", choices=functions(), help="only these functions, such as docs-openapi"
    )
    parser.add_argument(
        "--architecture",
        choices=MACHINES,
        default=machine,
        help="build for this architecture; one other than this machine's is not run",
    )
    parser.add_argument("--build-only", action="store_true", help="build and check the binaries, without Docker")
    parser.add_argument("--quick-build", action="store_true", help="build without optimization, unlike a deployment")
    parser.add_argument("--service", type=Path, help="path of the local service's binary; built by default")
    parser.add_argument("--install-only", action="store_true", help="install the tools and Docker, and stop there")
    return parser.parse_args()


def main():
    """Builds, calls the functions and returns the exit code."""
    machine = {"x86_64": "x86_64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    options = arguments(machine)
    everything = not (options.one_of_each_group or options.only)
    chosen = functions().keys() if everything else groups() if options.one_of_each_group else set(options.only)
    chosen = sorted(set(chosen) | {CALLED_BEFORE[name] for name in CALLED_BEFORE.keys() & set(chosen)})
    if "tokens-whoami" in chosen and "tokens-authorize" not in chosen:
        chosen.append("tokens-authorize")
    build_only = options.build_only or options.architecture != machine
    os.environ |= {"SAM_CLI_TELEMETRY": "0", "CARGO_TARGET_DIR": str(TARGET)}
    os.environ.setdefault("AWS_DEFAULT_REGION", "us-east-1")
    # Clean up on SIGTERM, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with contextlib.ExitStack() as stack:
        folder = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="guard-tokens-sam-", ignore_cleanup_errors=True))
        )
        check_profile()
        install_tools()
        if options.install_only:
            install_docker()
            return 0
        if not build_only:
            # Before the long build, since this is what a machine may lack.
            start_docker(stack, folder / "docker")
            # Pulled while the functions are built.
            image = stack.enter_context(ThreadPoolExecutor()).submit(base_image, stack, options.architecture)
            if not options.service:
                run("cargo", "build", "--quiet", "--workspace", "--bin", "guard-tokens")
        parameters = [
            f"Architecture={options.architecture}",
            f"PublicUrl={PUBLIC_URL}",
            f"MailFrom={MAIL['MAIL_FROM']}",
        ]
        parameters += ["MailIdentity=guard.example.com", "NpmUpstream=https://packages.example.com/npm/"]
        parameters += ["PypiUpstream=https://packages.example.com/simple/"]
        built = sam_build(set(chosen), folder, parameters, options.quick_build)
        sizes = {name: check_binary(built / functions()[name] / "bootstrap", options.architecture) for name in chosen}
        size, newest = sum(size for size, _ in sizes.values()) / 1e6, max(glibc for _, glibc in sizes.values())
        print(
            f"{len(sizes)} binaries for {options.architecture}, {size:.0f} MB, need glibc {newest[0]}.{newest[1]}",
            flush=True,
        )
        if build_only:
            if not options.build_only:
                print(f"Built but not run, since this machine is {machine}.")
            return 0
        print(f"Base image: {image.result()}", flush=True)
        service = Service((options.service or TARGET / "debug/guard-tokens").resolve(), folder)
        stack.callback(service.stop)
        network, bridge = docker_network(stack)
        upstream = f"http://{bridge}:{serve(stack, http.server.ThreadingHTTPServer((bridge, 0), Upstream))}"
        names = [key for key in service.env if key.startswith("AWS_") or key.endswith("_TABLE")]
        variables = {key: service.env[key] for key in names}
        variables["AWS_ENDPOINT_URL_DYNAMODB"] = forward(stack, bridge, service.env["AWS_ENDPOINT_URL_DYNAMODB"])
        variables["AWS_ENDPOINT_URL_SESV2"] = forward(stack, bridge, service.env["BASE_URL"]) + "/_local/ses"
        variables |= MAIL | {"NPM_UPSTREAM": f"{upstream}/", "PYPI_UPSTREAM": f"{upstream}/simple/"}
        port = free_ports(1)[0]
        started = time.monotonic()
        log = start_api(stack, folder, parameters, variables, network, port)
        deployed = Deployed(service, f"http://127.0.0.1:{port}")
        failures = tour(chosen, everything, deployed, service, upstream, log)
        if failures:
            print(log.read_text(errors="replace")[-6000:])
        for failure in failures:
            print(f"\n{failure}")
        print(
            f"{len(chosen)} functions under sam local in {time.monotonic() - started:.0f} s, {len(failures)} failures"
        )
        return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
