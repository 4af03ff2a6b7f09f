"""Measures the time that our registries add to the upstream, next to verdaccio. Started by
`bench/registry/run`."""

import argparse
import dataclasses
import json
import os
import platform
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import report
from cases import CASES
from measuring import Case, Measurement, Result, Sessions
from tools import Tools
from ways import VERDACCIO, VERDACCIO_FRESH, Guard, log_in, start_upstream, start_verdaccio

ROOT = Path(__file__).resolve().parents[2]
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve()

QUICK = 20


def measure(tools: Tools, folder: Path, cases: dict[str, list[Case]]) -> dict[str, list[Result]]:
    """Starts all servers and measures every case."""
    sessions = Sessions()
    with ExitStack() as stack:
        upstream = start_upstream(folder / "upstream")
        stack.callback(upstream.stop)
        binary = TARGET / "release/guard-tokens"
        guard = Guard(binary, folder / "guard", upstream.roots["npm"], upstream.roots["pypi"])
        stack.callback(guard.stop)
        ways = [upstream, guard.as_way()]
        for name, maxage in ((VERDACCIO, "2m"), (VERDACCIO_FRESH, "0s")):
            verdaccio = start_verdaccio(name, tools, folder / f"verdaccio-{maxage}", upstream, maxage)
            stack.callback(verdaccio.stop)
            log_in(verdaccio)
            ways.append(verdaccio)
        results: dict[str, list[Result]] = {}
        for heading, group in cases.items():
            results[heading] = []
            for case in group:
                print(f"{heading}: {case.name}", file=sys.stderr)
                results[heading].append(Measurement(case, ways, sessions).run())
        logged = len(guard.installations())
    assert logged == sessions.with_us, (
        f"{sessions.with_us} files were downloaded through our service, but {logged} were logged"
    )
    return results


def output_of(*command: str) -> str:
    """Runs a command and returns what it prints."""
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()


def surroundings(tools: Tools, load_before: float) -> str:
    """Describes the commit, the versions and the machine of the figures."""
    changed = output_of("git", "status", "--porcelain", "--", "*.rs", "*Cargo.toml", "Cargo.lock")
    commit = output_of("git", "rev-parse", "--short", "HEAD") + (
        " with changes that are not committed" if changed else ""
    )
    verdaccio = json.loads((ROOT / "tests/e2e/package.json").read_text())["dependencies"]["verdaccio"]
    return (
        f"Commit {commit}, release build by {' '.join(output_of('rustc', '--version').split()[:2])}; "
        f"verdaccio {verdaccio} on Node.js {output_of(tools.node, '--version').removeprefix('v')};\n"
        f"upstream and client on Python {platform.python_version()}; {platform.system()} {platform.machine()}, "
        f"{os.cpu_count()} CPUs, load average {load_before:.1f} before the\n"
        f"run and {os.getloadavg()[0]:.1f} after it.\n"
    )


def quick(cases: dict[str, list[Case]]) -> dict[str, list[Case]]:
    """The cases with fewer rounds."""
    return {title: [dataclasses.replace(case, rounds=QUICK) for case in group] for title, group in cases.items()}


def main() -> None:
    """Measures, prints the figures, and updates the document if asked to."""
    parser = argparse.ArgumentParser(prog="bench/registry/run", description=__doc__.split(". ")[0] + ".")
    parser.add_argument("--update", action="store_true", help="also update the figures in docs/COMPARISON.md")
    parser.add_argument("--quick", action="store_true", help=f"only {QUICK} rounds of each case, to try this script")
    arguments = parser.parse_args()
    tools = Tools(TARGET / "e2e")
    load_before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        results = measure(tools, Path(folder), quick(CASES) if arguments.quick else CASES)
    everything = [result for group in results.values() for result in group]
    parts = [surroundings(tools, load_before), report.noise(everything)]
    parts += [report.table(heading, group) for heading, group in results.items()]
    figures = "\n".join(parts)
    print(figures)
    if arguments.update:
        report.update(ROOT / "docs/COMPARISON.md", figures)


if __name__ == "__main__":
    main()
