"""Fuzzes the parsers of untrusted input with libFuzzer: fuzz/run [--seconds 60] [TARGET...]

Builds the targets with the stable compiler and runs each for the given time, as many at once as
there are cores. A target starts from its folder in `corpus/` and from the findings of earlier runs
in target/fuzz. Input that causes a panic or takes too long is saved and reported, and the exit code
is 1. Needs a C++ compiler.
"""

import argparse
import math
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).absolute()
TARGETS = sorted(path.name for path in (HERE / "corpus").iterdir())
LONGEST_INPUT = 300
SECONDS_PER_INPUT = 5


def build(targets):
    """Compiles the targets. `--workspace` gives dependencies the features of all other builds, so
    they are shared."""
    command = ["cargo", "build", "--workspace", "--features", "fuzz/libfuzzer"]
    command += [f"--bin=fuzz-{target}" for target in targets]
    env = os.environ | {"RUSTC_WORKSPACE_WRAPPER": str(HERE / "instrument")}
    subprocess.run(command, cwd=ROOT, env=env, check=True)


def fuzz(target, seconds, seed):
    """Runs a target and returns its failures."""
    found, crashes = TARGET / "fuzz" / target, TARGET / "fuzz" / "crashes" / target
    for folder in (found, crashes):
        folder.mkdir(parents=True, exist_ok=True)
    command = [TARGET / "debug" / f"fuzz-{target}", found, HERE / "corpus" / target]
    command += [f"-dict={HERE / 'dictionaries' / target}", f"-artifact_prefix={crashes}/"]
    command += [f"-max_total_time={seconds}", f"-max_len={LONGEST_INPUT}", f"-timeout={SECONDS_PER_INPUT}"]
    command += ["-rss_limit_mb=2048", "-print_final_stats=1", f"-seed={seed}"]
    run = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    covered = re.findall(r"cov: (\d+)", run.stdout)
    executed = re.search(r"stat::number_of_executed_units: (\d+)", run.stdout)
    inputs, branches = executed[1] if executed else "?", covered[-1] if covered else "?"
    print(f"{target}: {inputs} inputs, {branches} branches", flush=True)
    if run.returncode == 0:
        return []
    tail = "\n".join(run.stdout.splitlines()[-40:])
    return [f"{target}: exit code {run.returncode}; the input is in {crashes}\n{tail}"]


def main():
    """Fuzzes the targets and returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="fuzz/run", description="Fuzzes the parsers of untrusted input with libFuzzer."
    )
    parser.add_argument("--seconds", type=int, default=60, help="time for each target (default: 60)")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"one of {', '.join(TARGETS)}; all by default")
    options = parser.parse_args()
    targets = options.targets or TARGETS
    if unknown := set(targets) - set(TARGETS):
        parser.error(f"unknown target: {', '.join(sorted(unknown))}")
    build(targets)
    # Two runs per target, the second with the findings of the first, so that an odd number of
    # targets keeps all cores busy to the end.
    runs = [(target, math.ceil(options.seconds / 2), seed) for seed in (1, 2) for target in targets]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        failures = [failure for found in pool.map(lambda run: fuzz(*run), runs) for failure in found]
    for failure in failures:
        print(f"\n{failure}")
    print(f"{len(targets)} targets fuzzed for {options.seconds} s each, {len(failures)} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
