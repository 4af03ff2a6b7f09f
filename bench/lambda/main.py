"""Measures speed and cost of the functions. Started by `bench/run`."""

import argparse
import json
import os
import platform
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import cost
import limits
import plot
import power
import report
from candidates import (
    AUTHORIZE,
    FLOOR,
    FLOOR_WITH_TLS,
    INTROSPECT,
    NODE,
    PYTHON,
    Candidate,
    Peers,
    Upstream,
    World,
    candidates,
)
from emulator import ROOT, harness
from measure import measure
from surroundings import commit, compiler, machine, output_of
from tls import Tls

TARGET = Path(os.environ["CARGO_TARGET_DIR"]).resolve()
PEERS = TARGET / "peers"
BINS = TARGET / "lambda-bench"
SIZES = [10, 1_000, 100_000]

COLD, WARM = 40, 2_000
QUICK_COLD, QUICK_WARM = 3, 40

# The memory sizes of the power tuning, in MB, and the rounds of each. The peers are slow: they are
# measured at the smallest and the largest size alone.
MEMORIES = [256, 512, 1_024, limits.WHOLE_MB]
POWER_COLD, POWER_WARM = 12, 200
POWER_COMMAND = "bench/run --power --update"


@contextmanager
def world(tls: bool, before: Path | None) -> Iterator[tuple[list[Candidate], Path]]:
    """Starts the local service and the upstream, for as long as the context lasts. Yields all
    functions, and a folder."""
    node = Path(output_of("node", "-p", "process.execPath"))
    peers = Peers(
        str(node), PEERS / "node/node_modules", PEERS / "node/bundle/verify.js", str(PEERS / "python/bin/python")
    )
    with tempfile.TemporaryDirectory(prefix="guard-tokens-bench-") as name, ExitStack() as stack:
        folder = Path(name)
        service = harness.Service(BINS / "guard-tokens", folder)
        stack.callback(service.stop)
        upstream = Upstream()
        stack.callback(upstream.stop)
        made = World(service, upstream.url)
        if tls:
            made.tls = Tls(urlsplit(service.env["AWS_ENDPOINT_URL_DYNAMODB"]).port, folder)
            stack.callback(made.tls.stop)
        yield candidates(made, BINS, before, peers, folder), folder


def surroundings(load_before: float, cold: int, warm: int) -> str:
    """Describes the commit, the versions and the machine of the figures."""
    node_parts = json.loads((ROOT / "bench/peers/node/package.json").read_text())["dependencies"]
    python_parts = dict(
        line.split("==")
        for line in (ROOT / "bench/peers/python/requirements.txt").read_text().splitlines()
        if "==" in line
    )
    node, python = output_of("node", "--version"), output_of(PEERS / "python/bin/python", "--version").split()[1]
    return (
        f"Commit {commit()}; {compiler()}, {os.environ['BENCH_PROFILE']}. Node.js {node.removeprefix('v')} with "
        f"@aws-sdk/client-dynamodb\n{node_parts['@aws-sdk/client-dynamodb']}, bundled by esbuild "
        f"{node_parts['esbuild']}, on aws-lambda-ric {node_parts['aws-lambda-ric']}; Python {python} with boto3 "
        f"{python_parts['boto3']}\non awslambdaric {python_parts['awslambdaric']}. {machine(load_before)} "
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
    parser.add_argument("--tls", action="store_true", help="put TLS between the functions and DynamoDB")
    parser.add_argument("--cpu", type=float, metavar="SHARE", help="give a function this share of a processor")
    parser.add_argument("--power", action="store_true", help="TLS, and the shares of several memory sizes")
    parser.add_argument("--only", metavar="NAME", help="only functions with this in their name, and the no-op")
    parser.add_argument("--rie", type=Path, default=None, help="path of the emulator")
    options = parser.parse_args()
    if options.update and (options.tls or options.cpu or options.only) and not options.power:
        parser.error("--update needs all figures of a document: without options, or with --power")
    if options.update and options.only:
        parser.error("--update needs all functions")
    return options


def find_emulator(given: Path | None) -> Path:
    """The Runtime Interface Emulator, which comes with the SAM CLI."""
    machine = {"aarch64": "arm64"}.get(platform.machine(), platform.machine())
    found = given or next(
        TARGET.glob(f"tools/lib/python3*/site-packages/samcli/local/rapid/aws-lambda-rie-{machine}"), None
    )
    if found is None or not found.exists():
        sys.exit("aws-lambda-rie not found: run .ci/run once, or pass its path with --rie")
    return found.resolve()


def speed_and_cost(options: argparse.Namespace, before: Path | None) -> None:
    """Measures under the emulator, prints the figures, and updates the documents if asked to."""
    emulator = find_emulator(options.rie)
    cold, warm = (QUICK_COLD, QUICK_WARM) if options.quick else (COLD, WARM)
    load_before = os.getloadavg()[0]
    with world(False, before) as (found, folder):
        times = measure(found, emulator, folder, cold, warm)
    where = surroundings(load_before, cold, warm)
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
    if before:
        print(report.change(times))
    if options.update:
        for (document, name), text in figures.items():
            report.update(ROOT / document, name, text)
        (ROOT / "docs/cost.svg").write_text(plot.svg(calls, prices))


def like_lambda(options: argparse.Namespace, before: Path | None) -> None:
    """Measures with TLS and shares of a processor, prints the figures, and updates the document if
    asked to."""
    cold, warm = (QUICK_COLD, QUICK_WARM) if options.quick else (POWER_COLD, POWER_WARM)
    shares = [limits.share_of(memory) for memory in MEMORIES] if options.power else [options.cpu]
    load_before = os.getloadavg()[0]
    with world(options.tls or options.power, before) as (found, folder):
        cases = [
            (candidate, share)
            for candidate in found
            for share in (shares[:: len(shares) - 1] if candidate.name in (NODE, PYTHON) and options.power else shares)
            if options.only is None or options.only in candidate.name or candidate.name in (FLOOR, FLOOR_WITH_TLS)
        ]
        taken = power.measure(cases, folder, cold, warm)
    bill = power.Bill(cost.Prices(ROOT / "bench/prices.json", []), count_units([10]))
    where = surroundings(load_before, cold, warm)
    figures = f"{where}\n{power.table(taken, bill)}\n{power.noise(taken)}"
    print(figures)
    if options.power and not options.only:
        print(power.first_screen(taken))
    if options.update:
        report.update(ROOT / "docs/COMPARISON.md", "power", figures, POWER_COMMAND)
        report.update(ROOT / "README.md", "power", power.first_screen(taken), POWER_COMMAND)


def main() -> None:
    """Measures what the options name."""
    options = arguments()
    before = options.before and options.before.resolve()
    if options.power or options.tls or options.cpu:
        like_lambda(options, before)
    else:
        speed_and_cost(options, before)


if __name__ == "__main__":
    main()
