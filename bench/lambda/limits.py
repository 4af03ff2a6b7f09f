"""A share of a processor, as Lambda gives to a function: a quota of a control group of Linux."""

import os
import sys
from pathlib import Path

# Lambda gives a whole processor at this memory, and a proportional share below.
WHOLE_MB = 1_769
# Every so many microseconds the share begins anew.
PERIOD = 20_000

V1, V2 = Path("/sys/fs/cgroup/cpu"), Path("/sys/fs/cgroup")
# Joins the group in the first argument, which takes Linux some milliseconds. Then waits for a line,
# and becomes the program in the others.
JOIN = ["/bin/sh", "-c", 'echo $$ >"$0" && read -r _ && exec "$@"']


def share_of(memory: int) -> float:
    """The processors that Lambda gives to a function with this memory."""
    return memory / WHOLE_MB


class Group:
    """A control group for one function. Without a limit until `limit` sets one, as in init."""

    _made = 0

    def __init__(self) -> None:
        Group._made += 1
        name = f"guard-tokens-bench-{os.getpid()}-{Group._made}"
        self._is_v2 = (V2 / "cgroup.controllers").exists()
        self._folder = (V2 if self._is_v2 else V1) / name
        try:
            if self._is_v2 and "cpu" not in (V2 / "cgroup.subtree_control").read_text().split():
                (V2 / "cgroup.subtree_control").write_text("+cpu")
            self._folder.mkdir()
        except OSError as error:
            sys.exit(f"--cpu needs root on Linux and a control group of processors that it may write: {error}")

    def command(self, command: list[str]) -> list[str]:
        """The same command, which joins the group and waits for a line before it starts."""
        return [*JOIN, str(self._folder / "cgroup.procs"), *command]

    def contains(self, process: int) -> bool:
        """Whether the process has joined."""
        return str(process) in (self._folder / "cgroup.procs").read_text().split()

    def limit(self, share: float) -> None:
        """Limits the processes to this share of one processor, from now on."""
        quota = round(share * PERIOD)
        if self._is_v2:
            (self._folder / "cpu.max").write_text(f"{quota} {PERIOD}")
        else:
            (self._folder / "cpu.cfs_period_us").write_text(str(PERIOD))
            (self._folder / "cpu.cfs_quota_us").write_text(str(quota))

    def remove(self) -> None:
        """Removes the group, whose processes have ended."""
        self._folder.rmdir()
