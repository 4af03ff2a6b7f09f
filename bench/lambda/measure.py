"""Measures cold starts and warm calls of all candidates in turn."""

import gc
import math
import random
import statistics
import sys
from dataclasses import dataclass, field
from pathlib import Path

from candidates import Candidate
from emulator import Running

# Consecutive warm calls of a candidate before the next one's turn.
BATCH = 20
WARM_UP = 50


@dataclass
class Times:
    """The measurements of one candidate."""

    candidate: Candidate
    cold: list[float] = field(default_factory=list)
    cold_cpu: list[float] = field(default_factory=list)
    warm: list[float] = field(default_factory=list)
    warm_cpu: float = 0
    peak: int = 0

    @property
    def cold_ms(self) -> float:
        """The median cold start, in milliseconds."""
        return statistics.median(self.cold) * 1000

    def cold_at(self, share: float) -> float:
        """A quantile of the cold starts, in milliseconds."""
        return at(self.cold, share) * 1000

    @property
    def cold_cpu_ms(self) -> float:
        """The median CPU time of a cold start, in milliseconds."""
        return statistics.median(self.cold_cpu) * 1000

    def warm_ms(self, share: float) -> float:
        """A quantile of the warm calls, in milliseconds."""
        return at(self.warm, share) * 1000

    @property
    def warm_cpu_ms(self) -> float:
        """The mean CPU time of a warm call, in milliseconds."""
        return self.warm_cpu / len(self.warm) * 1000


def at(values: list[float], share: float) -> float:
    """The smallest value that at least this share of the values does not exceed."""
    return sorted(values)[math.ceil(share * len(values)) - 1]


def measure(candidates: list[Candidate], emulator: Path, folder: Path, cold: int, warm: int) -> list[Times]:
    """Measures this number of cold starts and warm calls of each candidate."""
    times = [Times(candidate) for candidate in candidates]
    chance = random.Random(1)
    gc.collect()
    gc.disable()
    # The first round fills the page cache and does not count.
    for number in range(cold + 1):
        print(f"\rcold start {number} of {cold} ", end="", file=sys.stderr, flush=True)
        for each in chance.sample(times, len(times)):
            start_cold(each, emulator, folder / "cold.log", counts=number > 0)
    print(file=sys.stderr)
    running = [
        (each, Running(emulator, each.candidate.program, folder / f"warm-{i}.log")) for i, each in enumerate(times)
    ]
    try:
        for each, program in running:
            call_warm(each, program, WARM_UP, counts=False)
        rounds = math.ceil(warm / BATCH)
        for number in range(rounds):
            print(f"\rwarm round {number + 1} of {rounds} ", end="", file=sys.stderr, flush=True)
            for each, program in chance.sample(running, len(running)):
                call_warm(each, program, BATCH, counts=True)
        print(file=sys.stderr)
        for each, program in running:
            each.peak = program.peak_bytes()
    finally:
        for _, program in running:
            program.stop()
    gc.enable()
    return times


def start_cold(each: Times, emulator: Path, log: Path, counts: bool) -> None:
    """Measures a call that starts the process, until the response is complete."""
    event, check = each.candidate.prepare()
    running = Running(emulator, each.candidate.program, log)
    try:
        assert not running.processes(), "the emulator has started the function before it was called"
        seconds, answer = running.call(event)
        check(answer)
        if counts:
            each.cold.append(seconds)
            each.cold_cpu.append(running.cpu_seconds())
    finally:
        running.stop()


def call_warm(each: Times, running: Running, calls: int, counts: bool) -> None:
    """Makes consecutive calls to a running process."""
    event, check = each.candidate.prepare()
    before = running.cpu_seconds()
    for _ in range(calls):
        seconds, answer = running.call(event)
        check(answer)
        if counts:
            each.warm.append(seconds)
    if counts:
        each.warm_cpu += running.cpu_seconds() - before
