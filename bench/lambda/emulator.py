"""Starts, calls, watches (in `/proc`) and stops functions under Amazon's Runtime Interface
Emulator."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[2] / "tests/rie"))

import harness
import runtime
from limits import Group

ROOT = Path(__file__).resolve().parents[2]
SECONDS_TO_START = 30
SECONDS_TO_ANSWER = 60


@dataclass(frozen=True)
class Program:
    """A program for the emulator to run."""

    command: list[str]
    env: dict[str, str]
    folder: Path


def answers(port: int) -> bool:
    """Whether a process listens on the port."""
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", port)) == 0


def peak_bytes(processes: list[int]) -> int:
    """The peak memory of these processes."""
    total = 0
    for pid in processes:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    return total


class Function(runtime.Started):
    """A program that fetches its events from us, without the emulator. Answers are parsed."""

    def __init__(self, program: Program, log: Path, memory: int, group: Group | None) -> None:
        command = group.command(program.command) if group else program.command
        is_ready = group.contains if group else None
        super().__init__(command, program.env, log, folder=program.folder, memory=memory, is_ready=is_ready)

    def call(self, event: bytes) -> tuple[float, Any]:
        """Sends an event. Returns the seconds until the response was complete, and the response."""
        seconds, body = super().call(event)
        return seconds, json.loads(body)


class Running:
    """A program under its own emulator. As on Lambda, the first call starts the program."""

    def __init__(self, emulator: Path, program: Program, log: Path) -> None:
        port, api_port = harness.free_ports(2)
        command = [emulator, "--runtime-interface-emulator-address", f"127.0.0.1:{port}"]
        command += ["--runtime-api-address", f"127.0.0.1:{api_port}", *program.command]
        self._log = log
        with log.open("wb") as out:
            # A new session, so that the emulator's children can be stopped with it.
            self._process = subprocess.Popen(
                command, env=program.env, cwd=program.folder, stdout=out, stderr=out, start_new_session=True
            )
        deadline = time.monotonic() + SECONDS_TO_START
        # The first port takes calls; functions fetch their events from the second.
        for each in (port, api_port):
            while not answers(each):
                assert self._process.poll() is None and time.monotonic() < deadline, "the emulator did not start"
                time.sleep(0.002)
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS_TO_ANSWER)
        self._connection.connect()
        self._connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def call(self, event: bytes) -> tuple[float, Any]:
        """Sends an event. Returns the seconds until the response was complete, and the response."""
        started = time.perf_counter()
        self._connection.request("POST", "/2015-03-31/functions/function/invocations", event)
        body = self._connection.getresponse().read()
        seconds = time.perf_counter() - started
        try:
            return seconds, json.loads(body)
        except ValueError:
            raise AssertionError(f"{body[:500]!r}\n{self._log.read_text(errors='replace')}") from None

    def processes(self) -> list[int]:
        """The ids of all processes that the emulator started."""
        parents = {}
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
            except (OSError, IndexError):
                continue
        found = [self._process.pid]
        for pid in found:
            found += [child for child, parent in parents.items() if parent == pid]
        return found[1:]

    def cpu_seconds(self) -> float:
        """The CPU time used so far, from the scheduler's count in nanoseconds."""
        schedstats = (file for pid in self.processes() for file in Path(f"/proc/{pid}/task").glob("*/schedstat"))
        return sum(int(file.read_text().split()[0]) for file in schedstats) / 1e9

    def peak_bytes(self) -> int:
        """The peak memory of its processes."""
        return peak_bytes(self.processes())

    def stop(self) -> None:
        """Stops the emulator and its children."""
        self._connection.close()
        started = self.processes()
        self._process.kill()
        self._process.wait()
        for pid in started:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
