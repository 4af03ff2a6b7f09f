"""What the functions' containers need: Docker, the base image, a network, and access to servers on
this machine."""

import contextlib
import io
import ipaddress
import os
import re
import shutil
import socket
import socketserver
import subprocess
import sys
import tarfile
import threading
import time
import urllib.parse
from pathlib import Path

import harness

SECONDS_TO_START = 120


class Upstream(harness.Upstream):
    """An npm registry and a Python index with one package each."""

    def do_GET(self):
        if not self.path.startswith("/simple/"):
            return super().do_GET()
        link = b'<a href="../../packages/widgets-1.0-py3-none-any.whl">widgets</a>'
        body = b"<!DOCTYPE html><html><body>" + link + b"</body></html>"
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Forwarder(socketserver.BaseRequestHandler):
    """Forwards a connection to a port on 127.0.0.1, whose server answers only to that name."""

    def handle(self):
        with socket.create_connection(("127.0.0.1", self.server.inner_port)) as inner:
            back = threading.Thread(target=self.copy, args=(inner, self.request), daemon=True)
            back.start()
            host, port = self.server.server_address
            names = (f"host: {host}:{port}".encode(), f"host: 127.0.0.1:{self.server.inner_port}".encode())
            self.copy(self.request, inner, names)
            back.join()

    @staticmethod
    def copy(source, sink, change=(b"", b"")):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                # The SDKs send all headers of a request at once.
                sink.sendall(data.replace(*change, 1) if change[0] else data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)


class Server(socketserver.ThreadingTCPServer):
    """A server that does not wait for open connections when it stops."""

    daemon_threads = True
    block_on_close = False


def serve(stack, server):
    """Runs a server until the stack unwinds, and returns its port."""
    threading.Thread(target=server.serve_forever, daemon=True).start()
    stack.callback(server.server_close)
    stack.callback(server.shutdown)
    return server.server_address[1]


def forward(stack, host, url):
    """Makes a server that listens only on 127.0.0.1 reachable for containers, and returns its URL
    for them."""
    server = Server((host, 0), Forwarder)
    server.inner_port = urllib.parse.urlsplit(url).port
    return f"http://{host}:{serve(stack, server)}"


def run(*command, env=None, check=True, quiet=False):
    """Runs a command; prints it and its output unless `quiet`."""
    if not quiet:
        print("$", *command, flush=True)
    out = subprocess.DEVNULL if quiet else None
    command = [str(part) for part in command]
    return subprocess.run(command, env=env, check=check, stdin=subprocess.DEVNULL, stdout=out, stderr=out)


def output(*command):
    """Runs a command and returns what it prints."""
    done = subprocess.run(command, check=True, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    return done.stdout.strip()


def docker_answers():
    """Whether a Docker daemon is running and accessible."""
    return bool(shutil.which("docker")) and run("docker", "version", check=False, quiet=True).returncode == 0


def install_docker():
    """Installs Debian's Docker if no daemon is running and none is installed."""
    if docker_answers():
        return
    os.environ["PATH"] += f"{os.pathsep}/usr/sbin"
    if os.geteuid() != 0:
        sys.exit("no Docker daemon is running: start one, or run this as root to have one started")
    if shutil.which("dockerd") and shutil.which("docker"):
        return
    if not shutil.which("apt-get"):
        sys.exit("dockerd not found: install Docker (automatic only where there is apt-get)")
    env = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    run("apt-get", "-qq", "update", env=env)
    options = ["--yes", "--no-install-recommends", "-o", "Dpkg::Use-Pty=0"]
    run("apt-get", "-qq", "install", *options, "docker.io", env=env)


def start_docker(stack, folder):
    """Starts a daemon with all of its files in the folder, unless one is running."""
    install_docker()
    # Installing the package may have started one.
    if docker_answers():
        return
    command = ["dockerd", "--host", f"unix://{folder}/docker.sock"]
    command += ["--data-root", folder / "data", "--exec-root", folder / "exec"]
    # The functions may reach this machine only: no forwarding, no firewall rules.
    command += ["--pidfile", folder / "dockerd.pid", "--iptables=false", "--ip-forward=false", "--ip-masq=false"]
    had_bridge = Path("/sys/class/net/docker0").exists()
    folder.mkdir()
    print("$", *command, flush=True)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([str(part) for part in command], stdout=log, stderr=subprocess.STDOUT)
    if not had_bridge and shutil.which("ip"):
        stack.callback(run, "ip", "link", "delete", "docker0", check=False, quiet=True)
    stack.callback(stop, process)
    os.environ["DOCKER_HOST"] = f"unix://{folder}/docker.sock"
    deadline = time.monotonic() + SECONDS_TO_START
    while not docker_answers():
        if process.poll() is not None or time.monotonic() > deadline:
            text = (folder / "log").read_text(errors="replace")[-3000:]
            sys.exit(f"dockerd did not start; the functions cannot run without it:\n{text}")
        time.sleep(0.2)


def docker_network(stack):
    """Creates a network for the containers. Returns its name and this machine's address in it."""
    name = f"guard-tokens-{os.getpid()}"
    run("docker", "network", "create", name, quiet=True)
    stack.callback(remove_docker_network, name)
    gateway = output("docker", "network", "inspect", name, "--format", "{{(index .IPAM.Config 0).Gateway}}")
    address = gateway.split("/")[0]
    assert ipaddress.ip_address(address).is_private, f"the gateway of the network is not a private address: {address}"
    return name, address


def remove_docker_network(name):
    """Removes the network and all containers that are still in it."""
    for container in output("docker", "ps", "--all", "--quiet", "--filter", f"network={name}").split():
        run("docker", "rm", "--force", container, check=False, quiet=True)
    run("docker", "network", "rm", name, check=False, quiet=True)


def base_image(stack, architecture):
    """Provides the image in which the SAM CLI starts functions, and returns where it came from."""
    name = f"public.ecr.aws/lambda/provided:al2023-{architecture}"
    remove = ["docker", "image", "rm", "--force"]
    if run("docker", "image", "inspect", name, check=False, quiet=True).returncode == 0:
        return f"{name}, already present"
    # The SAM CLI builds this from the base image by adding the Runtime Interface Emulator.
    with_emulator = f"public.ecr.aws/lambda/provided:al2023-rapid-{architecture}"
    run(*remove, with_emulator, check=False, quiet=True)
    stack.callback(run, *remove, name, with_emulator, check=False, quiet=True)
    if run("timeout", "300", "docker", "pull", "--quiet", name, check=False, quiet=True).returncode == 0:
        return f"{name}, pulled"
    subprocess.run(["docker", "import", "-", name], input=root_file_system(), check=True, stdout=subprocess.DEVNULL)
    return f"{name}, composed from this machine's files, since it cannot be pulled"


def root_file_system():
    """A tar archive with the files that a function and the SAM CLI need."""
    programs = [shutil.which(name) for name in ("sh", "mv", "chmod", "cp")]
    needed = re.findall(r"(/\S+) \(0x", "\n".join(output("ldd", program) for program in programs))
    loader = next(path for path in needed if "/ld-" in path)
    libraries = next(Path(path).parent for path in needed if path.endswith("/libc.so.6"))
    # Libraries that Rust's standard library may need.
    names = ("libm.so.6", "libgcc_s.so.1", "libdl.so.2", "libpthread.so.0", "librt.so.1")
    needed += [str(libraries / name) for name in names]
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:

        def add(source, target, mode=0o755):
            data = Path(source).resolve().read_bytes()
            entry = tarfile.TarInfo(target.lstrip("/"))
            entry.size, entry.mode = len(data), mode
            archive.addfile(entry, io.BytesIO(data))

        for folder in ("tmp", "var/task", "var/rapid", "dev", "proc"):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if folder == "tmp" else 0o755
            archive.addfile(entry)
        for program in programs:
            add(program, f"/bin/{Path(program).name}")
        for path in sorted(set(needed)):
            # Programs name the loader by its path; the loader finds the libraries in one folder.
            add(path, path if path == loader else f"{libraries}/{Path(path).name}")
        certificates = "/etc/ssl/certs/ca-certificates.crt"
        if Path(certificates).exists():
            add(certificates, certificates, 0o644)
            add(certificates, "/etc/pki/tls/certs/ca-bundle.crt", 0o644)
    return buffer.getvalue()


def stop(process):
    """Stops a process that this script started, leaving it time to stop its containers."""
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(60)
    harness.stop(process)
