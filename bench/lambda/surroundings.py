"""Where figures come from: commit, compiler and machine."""

import os
import platform
import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def output_of(*command: str | Path) -> str:
    """Runs a command and returns what it prints."""
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()


def commit() -> str:
    """The commit that is measured."""
    changed = output_of("git", "status", "--porcelain", "--", "*.rs", "*Cargo.toml", "Cargo.lock")
    return output_of("git", "rev-parse", "--short", "HEAD") + (
        " with changes that are not committed" if changed else ""
    )


def compiler() -> str:
    """The version of the compiler."""
    return " ".join(output_of("rustc", "--version").split()[:2])


def machine(load_before: float) -> str:
    """The machine, and how busy it was before and after."""
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
    return (
        f"{model[1] if model else platform.processor()}, {os.cpu_count()} CPUs, {memory:.0f} GB; {platform.system()} "
        f"{platform.release()}; load average\n{load_before:.1f} before the run and {os.getloadavg()[0]:.1f} after it."
    )


def sentence(load_before: float, profile: str) -> str:
    """All of it."""
    return f"Commit {commit()}; {compiler()}, {profile}. {machine(load_before)}\n"
