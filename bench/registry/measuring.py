"""Requests on kept connections, and how long they took."""

import gc
import http.client
import math
import os
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from ways import CONTROL, GUARD, UPSTREAM, Way

REDIRECT = "guard-tokens: the redirect by itself"

# Rounds whose times do not count: until here, what can be warm is.
WARM_UP = 10


@dataclass(frozen=True)
class Answer:
    """An answer in full, after at most one redirect."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes
    # When the first host had answered, and when all was there, in seconds.
    first: float
    whole: float
    redirected: bool


class Caller:
    """A client that keeps one connection to each host."""

    def __init__(self) -> None:
        self._connections: dict[str, http.client.HTTPConnection] = {}

    def _ask(self, url: str, headers: dict[str, str]) -> tuple[http.client.HTTPResponse, bytes]:
        host, path = urlsplit(url).netloc, urlsplit(url).path
        connection = self._connections.get(host)
        if not connection:
            connection = self._connections[host] = http.client.HTTPConnection(host, timeout=120)
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        return response, response.read()

    def get(self, url: str, headers: dict[str, str], credentials: dict[str, str]) -> Answer:
        """Asks, and goes on to where it is sent, without the credentials."""
        started = time.perf_counter()
        response, body = self._ask(url, headers | credentials)
        first = time.perf_counter() - started
        redirected = response.status == 302
        if redirected:
            response, body = self._ask(response.headers["location"], headers)
        return Answer(response.status, response.headers, body, first, time.perf_counter() - started, redirected)


@dataclass(frozen=True)
class Case:
    """What is asked in every way, again and again."""

    name: str
    rounds: int
    # `npm` or `pypi`: what is not in a way, is not asked of it.
    registry: str
    # Where it lies, by a way. Where these are several, they are asked for one after the other.
    places: Callable[[Way], Sequence[str]]
    headers: dict[str, str]
    # Fails where the first answer is not what was asked for.
    check: Callable[[Way, Answer], None]
    # Whether the caller has it already.
    conditional: bool = False
    # Whether it is a file, to which a way may redirect.
    is_file: bool = False


@dataclass
class Times:
    """How long one case took in one way."""

    seconds: list[float] = field(default_factory=list)
    cpu: float | None = None

    def at(self, share: float) -> float:
        """The time that this share of the requests did not exceed, in milliseconds."""
        ordered = sorted(self.seconds)
        return ordered[math.ceil(share * len(ordered)) - 1] * 1000

    @property
    def median(self) -> float:
        """The time that half of the requests did not exceed, in milliseconds."""
        return statistics.median(self.seconds) * 1000


def cpu_seconds(way: Way) -> float | None:
    """How much processor time the way's server has taken so far, where the system says so in `/proc`."""
    try:
        fields = Path(f"/proc/{way.process.pid}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        return None
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Result:
    """What was measured of one case."""

    case: Case
    # How many bytes the upstream sends.
    size: int
    taken: dict[str, Times]


class Sessions:
    """Numbers the runs of the client that is played here, and counts those that we have logged."""

    def __init__(self) -> None:
        self._last = 0
        self.with_us = 0

    def next(self, way: str) -> str:
        """Another run."""
        self._last += 1
        self.with_us += way == GUARD
        return f"{self._last:016x}"


class Measurement:
    """One case in all ways, taken in turn in every round, in an order that chance makes anew."""

    def __init__(self, case: Case, ways: list[Way], sessions: Sessions) -> None:
        self.case = case
        self._sessions = sessions
        self._ways = {way.name: way for way in ways if case.registry in way.roots}
        # The upstream a second time, in every round as well: what differs between the two is noise.
        self._ways[CONTROL] = self._ways[UPSTREAM]
        self._callers = {name: Caller() for name in self._ways}
        self._places = {name: case.places(way) for name, way in self._ways.items()}
        self._headers = {name: dict(case.headers) for name in self._ways}

    def run(self) -> Result:
        """Takes the times, in each of the ways."""
        size = self._prepare()
        rounds = self.case.rounds
        order = list(self._ways)
        chance = random.Random(self.case.name)
        warm_up = min(WARM_UP, math.ceil(rounds / 10))
        taken = {name: Times() for name in order}
        if self.case.is_file:
            taken[REDIRECT] = Times()
        cpu_before: dict[str, float | None] = {}
        gc.collect()
        gc.disable()
        for number in range(warm_up + rounds):
            if number == warm_up:
                cpu_before = {name: cpu_seconds(way) for name, way in self._ways.items()}
            chance.shuffle(order)
            for name in order:
                answer = self._once(name, number + 1)
                assert answer.status == (304 if self.case.conditional else 200), (self.case.name, name, answer.status)
                assert answer.redirected == (self.case.is_file and name == GUARD), (self.case.name, name)
                if number >= warm_up:
                    taken[name].seconds.append(answer.whole)
                    if answer.redirected:
                        taken[REDIRECT].seconds.append(answer.first)
        gc.enable()
        for name, before in cpu_before.items():
            after = cpu_seconds(self._ways[name])
            # The upstream serves all ways, so its own time says nothing of one.
            if before is not None and after is not None and name not in (UPSTREAM, CONTROL):
                taken[name].cpu = (after - before) / rounds * 1000
        return Result(self.case, size, taken)

    def _prepare(self) -> int:
        """Checks what each way answers, and notes by what it is known again. Returns its size at the upstream."""
        sizes = {}
        for name, way in self._ways.items():
            answer = self._once(name, 0)
            sizes[name] = len(answer.body)
            assert answer.status == 200, (self.case.name, name, answer.status, answer.body[:500])
            self.case.check(way, answer)
            if self.case.conditional:
                self._headers[name]["If-None-Match"] = answer.headers["etag"]
        return sizes[UPSTREAM]

    def _once(self, name: str, number: int) -> Answer:
        places = self._places[name]
        headers = self._headers[name]
        if self.case.is_file:
            # Another run of the client each time, so that each is an entry of its own in the installation log. Clients of
            # PyPI do not name their runs; there, it is another file each time.
            session = self._sessions.next(name)
            headers = headers | ({"npm-session": session} if "npm-command" in headers else {})
        return self._callers[name].get(places[number % len(places)], headers, self._ways[name].headers)
