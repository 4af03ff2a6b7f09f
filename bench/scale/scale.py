"""Installs packages with many clients at once, and says what that means at AWS. Started by
`bench/scale/run`."""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import report
import surroundings

ROOT = Path(__file__).resolve().parents[2]
BINS = Path(os.environ["CARGO_TARGET_DIR"]).resolve() / "release"
COMMAND = "bench/scale/run --update"

# `ThrottleRatePerSecond` in template.yaml, for all requests to one registry.
THROTTLE = 500
# The requests that npm keeps open at once.
NPM_SOCKETS = 15
# The memory must not grow by more than this share between the second and the last quarter.
GROWTH = 0.1


def growth(memory: list[int]) -> float:
    """By which share the memory in the last quarter is more than in the second. The first is the
    time in which caches and allocator fill up."""
    quarter = max(1, len(memory) // 4)
    return statistics.mean(memory[-quarter:]) / statistics.mean(memory[quarter : 2 * quarter]) - 1


def modelled(call: str) -> tuple[float, float]:
    """The milliseconds and the dollars of a million calls, as docs/OPERATIONS.md has them."""
    text = (ROOT / "docs/OPERATIONS.md").read_text()
    row = re.search(rf"^\| {re.escape(call)} \|(.*)\|$", text, re.MULTILINE)
    assert row, f"docs/OPERATIONS.md has no row for {call}"
    cells = [cell.strip() for cell in row[1].split("|")]
    return float(cells[2]), float(cells[-1])


def measured(taken: dict[str, Any]) -> str:
    """The table of what was measured."""
    through, direct, dynamodb = taken["through"], taken["direct"], taken["dynamodb"]
    memory = taken["memory"]
    rows = [
        ("requests a second", f"{direct['per_second']:,.0f}", f"{through['per_second']:,.0f}"),
        (
            "metadata, p50 and p99 ms",
            *(" and ".join(f"{ms:,.0f}" for ms in way["metadata_ms"]) for way in (direct, through)),
        ),
        ("file, p50 and p99 ms", *(" and ".join(f"{ms:,.0f}" for ms in way["file_ms"]) for way in (direct, through))),
        ("requests", f"{direct['requests']:,}", f"{through['requests']:,}"),
        ("completed installs", f"{direct['installs']:,}", f"{through['installs']:,}"),
        ("repeated requests", f"{direct['repeated']:,}", f"{through['repeated']:,}"),
        ("failed installs", f"{direct['failed']:,}", f"{through['failed']:,}"),
        ("calls to DynamoDB, and throttled ones", "", f"{dynamodb['calls']:,} and {dynamodb['throttled']:,}"),
        (
            "processor time of the service per request, ms",
            "",
            f"{taken['cpu_seconds'] / through['requests'] * 1000:.2f}",
        ),
        ("memory of the service, highest and growth", "", f"{max(memory) / 1e6:,.0f} MB, {growth(memory):+.0%}"),
    ]
    head = (
        f"{taken['clients']} clients, {taken['packages']} packages each, {taken['sockets']} connections each, for "
        f"{taken['seconds'] / 60:.1f} minutes; DynamoDB takes {taken['latency_ms']} ms a call\nmore than here and "
        f"throttles one call in {taken['throttled_one_of']}.\n\n"
        "| | from the upstream itself | through the service |\n|---|--:|--:|\n"
    )
    noise = taken["direct_again"]["per_second"] / direct["per_second"]
    noise = f"\nNoise: the upstream itself was measured twice, and served {noise:.2f} times as many the second time.\n"
    return head + "".join(f"| {' | '.join(row)} |\n" for row in rows) + noise


def meaning(taken: dict[str, Any]) -> str:
    """What such an installation takes at AWS, by the model of docs/OPERATIONS.md."""
    (metadata_ms, metadata_dollars), (file_ms, file_dollars) = (
        modelled(f"`registry-npm`, {what}") for what in ("metadata", "a file")
    )
    clients, packages, sockets = taken["clients"], taken["packages"], NPM_SOCKETS
    pair = metadata_ms + file_ms
    dollars = packages * (metadata_dollars + file_dollars) / 1e6
    rows = [
        ("requests to the service, of one install", f"{2 * packages:,}"),
        ("the same of all clients", f"{2 * packages * clients:,}"),
        (f"environments, if each client keeps {NPM_SOCKETS} requests open, as npm does", f"{clients * sockets:,}"),
        ("an install then takes, in seconds", f"{packages / sockets * pair / 1000:.1f}"),
        ("environments, if all installs are spread over a minute", f"{clients * packages * pair / 60_000:,.0f}"),
        (
            f"all installs at the default of {THROTTLE} requests a second, in minutes",
            f"{2 * packages * clients / THROTTLE / 60:.1f}",
        ),
        ("one install, dollars", f"{dollars:.4f}"),
        ("all installs, dollars", f"{dollars * clients:.2f}"),
    ]
    return "| at AWS, by the model | |\n|---|--:|\n" + "".join(f"| {' | '.join(row)} |\n" for row in rows)


def main() -> None:
    """Measures, prints the figures, and updates the document if asked to."""
    parser = argparse.ArgumentParser(prog="bench/scale/run", description=__doc__)
    parser.add_argument("--update", action="store_true", help="also update the figures in docs/SCALING.md")
    parser.add_argument("--minutes", type=float, default=1, help="how long clients install through the service")
    for name in ("clients", "packages", "sockets"):
        parser.add_argument(f"--{name}", type=int)
    options = parser.parse_args()
    command = [BINS / "scale", "--guard", BINS / "guard-tokens", "--seconds", str(round(options.minutes * 60))]
    for name in ("clients", "packages", "sockets"):
        if value := getattr(options, name):
            command += [f"--{name}", str(value)]
    load_before = os.getloadavg()[0]
    taken = json.loads(subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout)
    where = surroundings.sentence(load_before, "release profile")
    figures = f"{where}\n{measured(taken)}\n{meaning(taken)}"
    print(figures)
    if options.update:
        report.update(ROOT / "docs/SCALING.md", "installs", figures, COMMAND)
    if taken["through"]["failed"]:
        sys.exit("an install failed")
    if growth(taken["memory"]) > GROWTH and options.minutes >= 5:
        sys.exit("the memory of the service grows")


if __name__ == "__main__":
    main()
