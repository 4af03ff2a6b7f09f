"""Cold starts and warm calls with the share of a processor that Lambda gives for each memory size,
and what they cost: AWS calls it power tuning."""

import gc
import math
import random
import statistics
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from candidates import AUTHORIZE, FLOOR, FLOOR_WITH_TLS, NODE, PYTHON, Candidate
from cost import Call, Prices
from emulator import Function, peak_bytes
from limits import PERIOD, WHOLE_MB, Group
from measure import at
from report import number

# Calls come at random moments of the quota's period: after a pause of at most this time.
PAUSE = PERIOD / 1e6
# Consecutive warm calls of a function before the next one's turn.
BATCH = 10
WARM_UP = 20


@dataclass
class Taken:
    """The measurements of a function at one size. Times are in seconds."""

    candidate: Candidate
    # Of one processor; `None` for as much as it can get.
    share: float | None
    init: list[float] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    warm: list[float] = field(default_factory=list)
    peak: int = 0

    @property
    def memory(self) -> int:
        """The memory size that has this share, in MB."""
        return WHOLE_MB if self.share is None else round(self.share * WHOLE_MB)

    @property
    def cold_ms(self) -> float:
        """The median time from the start to the first answer, in milliseconds."""
        return statistics.median(map(sum, zip(self.init, self.first, strict=True))) * 1000

    @property
    def init_ms(self) -> float:
        """The median time from the start to the question for the first event."""
        return statistics.median(self.init) * 1000

    @property
    def first_ms(self) -> float:
        """The median time of the first call."""
        return statistics.median(self.first) * 1000

    def warm_ms(self, share: float) -> float:
        """A quantile of the warm calls, in milliseconds."""
        return at(self.warm, share) * 1000


class Sized:
    """A started function with a group of its own. Its processor is whole until it asks for its
    first event, as on Lambda, where that lasts ten seconds at most."""

    def __init__(self, taken: Taken, log: Path) -> None:
        self.taken = taken
        self._group = Group() if taken.share else None
        self.function = Function(taken.candidate.program, log, taken.memory, self._group)
        self.init = self.function.wait()
        if self._group and taken.share:
            self._group.limit(taken.share)

    def call(self, event: bytes) -> tuple[float, bytes]:
        """Calls it at a random moment of its period."""
        time.sleep(random.random() * PAUSE)
        return self.function.call(event)

    def stop(self) -> None:
        """Stops it."""
        self.function.stop()
        if self._group:
            self._group.remove()


def measure(cases: list[tuple[Candidate, float | None]], folder: Path, cold: int, warm: int) -> list[Taken]:
    """Measures this number of cold starts and warm calls of each candidate with this share."""
    everything = [Taken(candidate, share) for candidate, share in cases]
    chance = random.Random(1)
    gc.collect()
    gc.disable()
    # The first round fills the page cache and does not count.
    for turn in range(cold + 1):
        print(f"\rcold start {turn} of {cold} ", end="", file=sys.stderr, flush=True)
        for taken in chance.sample(everything, len(everything)):
            event, check = taken.candidate.prepare()
            sized = Sized(taken, folder / "cold.log")
            try:
                seconds, answer = sized.call(event)
                check(answer)
            finally:
                sized.stop()
            if turn:
                taken.init.append(sized.init)
                taken.first.append(seconds)
    print(file=sys.stderr)
    for share in dict.fromkeys(share for _, share in cases):
        measure_warm([taken for taken in everything if taken.share == share], folder, warm, chance)
    gc.enable()
    return everything


def measure_warm(everything: list[Taken], folder: Path, warm: int, chance: random.Random) -> None:
    """Measures warm calls of functions that run beside each other."""
    running: list[Sized] = []
    try:
        for number_of, taken in enumerate(everything):
            running.append(Sized(taken, folder / f"warm-{number_of}.log"))
            event, check = taken.candidate.prepare()
            for _ in range(WARM_UP):
                check(running[-1].function.call(event)[1])
        for turn in range(math.ceil(warm / BATCH)):
            print(f"\r{everything[0].memory} MB, warm calls: {turn * BATCH} ", end="", file=sys.stderr, flush=True)
            for sized in chance.sample(running, len(running)):
                event, check = sized.taken.candidate.prepare()
                # Opens the connection again, which may have been idle for too long.
                check(sized.function.call(event)[1])
                for _ in range(BATCH):
                    seconds, answer = sized.call(event)
                    check(answer)
                    sized.taken.warm.append(seconds)
        print(file=sys.stderr)
        for sized in running:
            sized.taken.peak = peak_bytes([sized.function.process.pid])
    finally:
        for sized in running:
            sized.stop()


class Bill:
    """What a million calls cost at Lambda, in dollars."""

    def __init__(self, prices: Prices, calls: list[Call]) -> None:
        self._prices = prices
        self._calls = {call.operation: call for call in calls if call.what in ("a token", "metadata")}

    def of(self, taken: Taken) -> float:
        """The measured time, whole milliseconds of it, and what DynamoDB and an upstream take
        longer than here. Init is billed as well."""
        call = self._calls.get(taken.candidate.operation)
        waited = self._prices.waited(call, next(iter(call.taken))) if call else 0
        milliseconds = statistics.mean(math.ceil(seconds * 1000 + waited) for seconds in taken.warm)
        milliseconds += self._prices.assumed["cold_share"] * (taken.init_ms + taken.first_ms)
        dollars = self._prices.dollars
        seconds = milliseconds * taken.memory / 1024 * 1e6 / 1e3
        return seconds * dollars["lambda_gb_second"] + dollars["lambda_requests_million"]


def table(everything: Iterable[Taken], bill: Bill) -> str:
    """A row for each function and size."""
    everything = list(everything)
    # With TLS if the functions have it: the later of the two.
    floor = {taken.share: taken for taken in everything if taken.candidate.name in (FLOOR, FLOOR_WITH_TLS)}
    head = (
        "| function | MB | cold start p50 ms | of it init | ÷ no-op's | first call | ÷ warm "
        "| warm p50 ms | p99 ms | peak MB | Lambda, a million calls, $ |\n"
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n"
    )
    rows = []
    for taken in everything:
        cells = [str(taken.memory), number(taken.cold_ms), number(taken.init_ms)]
        cells.append(number(taken.init_ms / floor[taken.share].init_ms))
        cells += [number(taken.first_ms), number(taken.first_ms / taken.warm_ms(0.5)), number(taken.warm_ms(0.5))]
        cells += [number(taken.warm_ms(0.99)), f"{taken.peak / 1e6:.0f}", f"{bill.of(taken):.2f}"]
        rows.append(f"| {taken.candidate.name} | {' | '.join(cells)} |\n")
    return head + "".join(rows)


def first_screen(everything: Iterable[Taken]) -> str:
    """The figures for the README: the check of a token at the smallest size."""
    everything = list(everything)
    smallest = min(taken.memory for taken in everything)
    found = {taken.candidate.name: taken for taken in everything if taken.memory == smallest}
    order = [found[name] for name in (AUTHORIZE, NODE, PYTHON, FLOOR)]
    rows = [
        ("cold start", *(f"{number(taken.cold_ms)} ms" for taken in order)),
        ("warm, p50", *(f"{number(taken.warm_ms(0.5))} ms" for taken in order)),
    ]
    head = (
        f"| the same as on Lambda: {smallest} MB, TLS | Rust, this service | Node.js 20 | Python 3.11 "
        "| a no-op in Rust |\n|---|--:|--:|--:|--:|\n"
    )
    return head + "".join(f"| {' | '.join(row)} |\n" for row in rows)


def noise(everything: Iterable[Taken]) -> str:
    """How far single cold starts are from the median, over all rows."""
    spread = []
    for taken in everything:
        cold = [sum(each) for each in zip(taken.init, taken.first, strict=True)]
        spread.append((at(cold, 0.75) - at(cold, 0.25)) / statistics.median(cold))
    return (
        f"Noise: half of the cold starts of a row lie within {statistics.median(spread):.0%} of each other at the "
        f"median of all rows,\nand within {max(spread):.0%} in the worst.\n"
    )
