"""Sends requests on persistent connections and measures them."""

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

REDIRECT = "guard-tokens: redirect only"

# The first rounds warm up caches and do not count.
WARM_UP = 10


@dataclass(frozen=True)
class Answer:
    """A complete response, after at most one redirect."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes
    # Seconds until the first host's response, and until the final response was complete.
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
        """Sends a request and follows a redirect, without the credentials."""
        started = time.perf_counter()
        response, body = self._ask(url, headers | credentials)
        first = time.perf_counter() - started
        redirected = response.status == 302
        if redirected:
            response, body = self._ask(response.headers["location"], headers)
        return Answer(response.status, response.headers, body, first, time.perf_counter() - started, redirected)


@dataclass(frozen=True)
class Case:
    """A request that is measured on every route."""

    name: str
    rounds: int
    # `npm` or `pypi`; routes without this registry are skipped.
    registry: str
    # The URLs on a route, requested in turn.
    places: Callable[[Way], Sequence[str]]
    headers: dict[str, str]
    # Raises if the first response is wrong.
    check: Callable[[Way, Answer], None]
    # Whether the request is conditional, so that the response is 304.
    conditional: bool = False
    # Whether it is a file, which a route may redirect to.
    is_file: bool = False


@dataclass
class Times:
    """The measurements of a case on one route."""

    seconds: list[float] = field(default_factory=list)
    cpu: float | None = None

    def at(self, share: float) -> float:
        """A quantile of the requests, in milliseconds."""
        ordered = sorted(self.seconds)
        return ordered[math.ceil(share * len(ordered)) - 1] * 1000

    @property
    def median(self) -> float:
        """The median of the requests, in milliseconds."""
        return statistics.median(self.seconds) * 1000


def cpu_seconds(way: Way) -> float | None:
    """The CPU time of the route's server so far, if the system has `/proc`."""
    try:
        fields = Path(f"/proc/{way.process.pid}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        return None
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Result:
    """The measurements of a case on all routes."""

    case: Case
    # The size of the upstream's response, in bytes.
    size: int
    taken: dict[str, Times]


class Sessions:
    """Numbers the runs of the simulated client, and counts those through our service."""

    def __init__(self) -> None:
        self._last = 0
        self.with_us = 0

    def next(self, way: str) -> str:
        """Starts a new run."""
        self._last += 1
        self.with_us += way == GUARD
        return f"{self._last:016x}"


class Measurement:
    """A case measured on all routes, in a new random order in every round."""

    def __init__(self, case: Case, ways: list[Way], sessions: Sessions) -> None:
        self.case = case
        self._sessions = sessions
        self._ways = {way.name: way for way in ways if case.registry in way.roots}
        # The upstream a second time in every round: the difference between the two is noise.
        self._ways[CONTROL] = self._ways[UPSTREAM]
        self._callers = {name: Caller() for name in self._ways}
        self._places = {name: case.places(way) for name, way in self._ways.items()}
        self._headers = {name: dict(case.headers) for name in self._ways}

    def run(self) -> Result:
        """Measures the case on each route."""
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
            # The upstream serves all routes, so its CPU time cannot be attributed to one.
            if before is not None and after is not None and name not in (UPSTREAM, CONTROL):
                taken[name].cpu = (after - before) / rounds * 1000
        return Result(self.case, size, taken)

    def _prepare(self) -> int:
        """Checks each route's response and keeps its entity tag. Returns the size of the upstream's
        response."""
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
            # A new run of the client each time, so that each download is logged. Clients of PyPI
            # send no id of a run; they download a different file each time.
            session = self._sessions.next(name)
            headers = headers | ({"npm-session": session} if "npm-command" in headers else {})
        return self._callers[name].get(places[number % len(places)], headers, self._ways[name].headers)
