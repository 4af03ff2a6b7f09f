"""Measures speed and cost of the functions. Started by `bench/run`."""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import cost
import plot
import report
from candidates import AUTHORIZE, INTROSPECT, Peers, Upstream, World, candidates
from emulator import ROOT, harness
from measure import Times, measure

TARGET = Path(os.environ["CARGO_TARGET_DIR"]).resolve()
PEERS = TARGET / "peers"
BINS = TARGET / "lambda-bench"
SIZES = [10, 1_000, 100_000]

COLD, WARM = 40, 2_000
QUICK_COLD, QUICK_WARM = 3, 40


def output_of(*command: str | Path) -> str:
    """Runs a command and returns what it prints."""
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()


def take_times(emulator: Path, before: Path | None, cold: int, warm: int) -> list[Times]:
    """Starts the local service and the upstream, and measures all functions."""
    node = Path(output_of("node", "-p", "process.execPath"))
    peers = Peers(
        str(node), PEERS / "node/node_modules", PEERS / "node/bundle/verify.js", str(PEERS / "python/bin/python")
    )
    with tempfile.TemporaryDirectory(prefix="guard-tokens-bench-") as folder, ExitStack() as stack:
        service = harness.Service(BINS / "guard-tokens", Path(folder))
        stack.callback(service.stop)
        upstream = Upstream()
        stack.callback(upstream.stop)
        world = World(service, upstream.url)
        return measure(candidates(world, BINS, before, peers, Path(folder)), emulator, Path(folder), cold, warm)


def surroundings(emulator: Path, load_before: float, cold: int, warm: int) -> str:
    """Describes the commit, the versions and the machine of the figures."""
    changed = output_of("git", "status", "--porcelain", "--", "*.rs", "*Cargo.toml", "Cargo.lock")
    commit = output_of("git", "rev-parse", "--short", "HEAD") + (
        " with changes that are not committed" if changed else ""
    )
    node_parts = json.loads((ROOT / "bench/peers/node/package.json").read_text())["dependencies"]
    python_parts = dict(
        line.split("==")
        for line in (ROOT / "bench/peers/python/requirements.txt").read_text().splitlines()
        if "==" in line
    )
    info = Path("/proc/cpuinfo").read_text()
    model = re.search(r"model name\s*: (.*)", info)
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
    return (
        f"Commit {commit}; {' '.join(output_of('rustc', '--version').split()[:2])}, "
        f"{os.environ['BENCH_PROFILE']}. Node.js {output_of('node', '--version').removeprefix('v')} with "
        f"@aws-sdk/client-dynamodb\n{node_parts['@aws-sdk/client-dynamodb']}, "
        f"bundled by esbuild {node_parts['esbuild']}, on aws-lambda-ric {node_parts['aws-lambda-ric']}; Python "
        f"{output_of(PEERS / 'python/bin/python', '-c', 'import platform; print(platform.python_version())')} "
        f"with boto3 {python_parts['boto3']}\non awslambdaric {python_parts['awslambdaric']}. "
        f"{model[1] if model else platform.processor()}, {os.cpu_count()} CPUs, {memory:.0f} GB; {platform.system()} "
        f"{platform.release()}; load average\n{load_before:.1f} before the run and {os.getloadavg()[0]:.1f} after it. "
        f"{cold} cold starts and {warm:,} warm calls of each.\n"
    )


def count_units(sizes: list[int]) -> list[cost.Call]:
    """Counts the DynamoDB units of every call, in organizations of these sizes."""
    print(f"units with {', '.join(f'{size:,}' for size in sizes)} tokens", file=sys.stderr)
    return cost.read_calls(json.loads(output_of(TARGET / "debug/cost", *map(str, sizes))))


def units_sentence(calls: list[cost.Call]) -> str:
    """A sentence about the units of a verification."""
    found = {(call.operation, call.what): call for call in calls}
    one, asked = found[AUTHORIZE, "a token"], found[INTROSPECT, "a token"]
    sizes = list(one.taken)
    return (
        f"A verification consumes **{cost.same(one, 0)} read unit** of DynamoDB ({cost.same(asked, 0)} through "
        "introspection, which also reads\nthe bot), whether the organization has "
        f"{', '.join(f'{size:,}' for size in sizes[:-1])} or {sizes[-1]:,} tokens."
    )


def arguments() -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(prog="bench/run", description=__doc__)
    parser.add_argument("--update", action="store_true", help="also update the figures in README.md and docs/")
    parser.add_argument("--quick", action="store_true", help="only a few rounds, to try this script")
    parser.add_argument("--before", type=Path, help="a folder with other builds of the functions, to compare with")
    parser.add_argument("--rie", type=Path, default=None, help="path of the emulator")
    return parser.parse_args()


def find_emulator(given: Path | None) -> Path:
    """The Runtime Interface Emulator, which comes with the SAM CLI."""
    machine = {"aarch64": "arm64"}.get(platform.machine(), platform.machine())
    found = given or next(
        TARGET.glob(f"tools/lib/python3*/site-packages/samcli/local/rapid/aws-lambda-rie-{machine}"), None
    )
    if found is None or not found.exists():
        sys.exit("aws-lambda-rie not found: run .ci/run once, or pass its path with --rie")
    return found.resolve()


def main() -> None:
    """Measures, prints the figures, and updates the documents if asked to."""
    options = arguments()
    emulator = find_emulator(options.rie)
    cold, warm = (QUICK_COLD, QUICK_WARM) if options.quick else (COLD, WARM)
    load_before = os.getloadavg()[0]
    times = take_times(emulator, options.before and options.before.resolve(), cold, warm)
    where = surroundings(emulator, load_before, cold, warm)
    calls = count_units([10, 1_000] if options.quick else SIZES)
    prices = cost.Prices(ROOT / "bench/prices.json", times)
    figures = {
        ("docs/COMPARISON.md", "speed"): f"{where}\n{report.speed(times)}",
        ("docs/OPERATIONS.md", "cost"): f"{cost.inputs(prices)}\n{cost.table(calls, prices)}",
        ("docs/SCALING.md", "scale"): cost.at_scale(calls, prices, 10_000),
        ("README.md", "figures"): report.first_screen(times, units_sentence(calls)),
    }
    for text in figures.values():
        print(f"{text}\n")
    if options.before:
        print(report.change(times))
    if options.update:
        for (document, name), text in figures.items():
            report.update(ROOT / document, name, text)
        (ROOT / "docs/cost.svg").write_text(plot.svg(calls, prices))


if __name__ == "__main__":
    main()
