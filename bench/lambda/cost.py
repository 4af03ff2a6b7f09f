"""The price of calls: counted DynamoDB units, modelled Lambda time, and the prices of
bench/prices.json."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from candidates import AUTHORIZE, INTROSPECT, ISSUE, NPM
from measure import Times
from report import number

# Memory in template.yaml; the first entry is the default.
MEMORY = {"": 256, "registry-npm": 1024, "registry-pypi": 1024, "org-user-tokens-revoke-by-user": 512}
# Functions with parallel DynamoDB calls: the equivalent number of sequential calls.
AT_ONCE = {"installations-list": 2}
# Functions that send a mail.
MAILS = {"email-tokens-register", "email-tokens-regenerate", "email-tokens-reset", "email-tokens-revoke"}


@dataclass(frozen=True)
class Call:
    """A call and its DynamoDB consumption in organizations of each size."""

    operation: str
    what: str
    # By size: read units, write units, number of DynamoDB calls.
    taken: dict[int, tuple[float, float, int]]

    @property
    def name(self) -> str:
        """Its name in a table."""
        return f"`{self.operation}`, {self.what}"

    @property
    def memory(self) -> int:
        """The memory of its function, in MB."""
        return MEMORY.get(self.operation, MEMORY[""])


def read_calls(counted: dict[str, list[dict[str, Any]]]) -> list[Call]:
    """Parses the output of `bench/cost`."""
    calls = []
    for at, first in enumerate(next(iter(counted.values()))):
        same = {int(size): found[at] for size, found in counted.items()}
        assert all((each["operation"], each["what"]) == (first["operation"], first["what"]) for each in same.values())
        taken = {
            size: (each["cost"]["read"], each["cost"]["write"], each["cost"]["calls"]) for size, each in same.items()
        }
        calls.append(Call(first["operation"], first["what"], taken))
    return calls


class Prices:
    """Computes the price of calls."""

    def __init__(self, file: Path, times: list[Times]) -> None:
        data = json.loads(file.read_text())
        self.checked, self.region = data["checked"], data["region"]
        self.dollars, self.assumed = data["dollars"], data["assumed"]
        self._measured = {each.candidate.name: each for each in times}

    def cpu(self, call: Call) -> Times:
        """The measurements that give the call's CPU time: its own function's, or those of the most
        similar one."""
        if call.operation in self._measured:
            return self._measured[call.operation]
        if call.operation.startswith("registry-"):
            return self._measured[NPM]
        (_, write, _) = next(iter(call.taken.values()))
        return self._measured[ISSUE if write > 1 else INTROSPECT]

    def milliseconds(self, call: Call, size: int) -> float:
        """The billed duration of a warm call."""
        stretched = self.cpu(call).warm_cpu_ms * max(1, self.assumed["memory_of_a_whole_cpu_mb"] / call.memory)
        taken = stretched + self.waited(call, size)
        return max(self.assumed["registration_ms"], taken) if call.operation == "email-tokens-register" else taken

    def waited(self, call: Call, size: int) -> float:
        """The milliseconds that a call waits for DynamoDB and its upstream."""
        _, write, calls = call.taken[size]
        calls = AT_ONCE.get(call.operation, calls)
        assumed = self.assumed
        # Calls are sequential; the last one is a write, if there is any.
        waited = (calls - (write > 0)) * assumed["dynamodb_read_ms"] + (write > 0) * assumed["dynamodb_write_ms"]
        if call.operation.startswith("registry-") and call.what == "metadata":
            waited += assumed["upstream_ms"]
        return waited

    def gigabyte_milliseconds(self, call: Call, size: int) -> float:
        """The mean billed Lambda time of a call, including its share of cold starts."""
        stretch = max(1, self.assumed["memory_of_a_whole_cpu_mb"] / call.memory)
        cold = self.assumed["cold_share"] * self.cpu(call).cold_cpu_ms * stretch
        return call.memory / 1024 * (self.milliseconds(call, size) + cold)

    def of_dynamodb(self, call: Call, size: int) -> float:
        """DynamoDB's price for a million calls, in dollars."""
        read, write, _ = call.taken[size]
        return read * self.dollars["read_units_million"] + write * self.dollars["write_units_million"]

    def of_lambda(self, call: Call, size: int) -> float:
        """Lambda's price for a million calls, in dollars."""
        seconds = self.gigabyte_milliseconds(call, size) * 1e6 / 1e3
        return seconds * self.dollars["lambda_gb_second"] + self.dollars["lambda_requests_million"]

    def of_api(self, call: Call) -> float:
        """API Gateway's price for a million calls, in dollars. An authorizer's call is part of
        another request."""
        return 0 if call.operation == AUTHORIZE else self.dollars["http_api_requests_million"]

    def of_egress(self, call: Call) -> float:
        """The price of sending a million answers to the internet, in dollars: a million KB are one
        GB. Files come from the upstream itself, and an authorizer's answer stays inside AWS."""
        if call.operation == AUTHORIZE:
            return 0
        kilobytes = self.assumed["metadata_kb" if call.what == "metadata" else "answer_kb"]
        return kilobytes * self.dollars["egress_gb"]

    def of_all(self, call: Call, size: int) -> float:
        """The price of a million calls in dollars, without mails."""
        return self.of_dynamodb(call, size) + self.of_lambda(call, size) + self.of_api(call) + self.of_egress(call)


def table(calls: list[Call], prices: Prices) -> str:
    """A row for each call."""
    sizes = list(calls[0].taken)
    head = (
        f"| call | read units at {', '.join(f'{size:,}' for size in sizes)} tokens | write units | ms | GB-ms "
        "| DynamoDB $ | Lambda $ | API $ | egress $ | a million calls, $ |\n|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n"
    )
    rows = []
    for call in calls:
        size = sizes[-1]
        cells = [same(call, 0), same(call, 1), f"{prices.milliseconds(call, size):.0f}"]
        cells += [number(prices.gigabyte_milliseconds(call, size)), f"{prices.of_dynamodb(call, size):.2f}"]
        cells += [f"{prices.of_lambda(call, size):.2f}", f"{prices.of_api(call):.2f}"]
        cells.append(f"{prices.of_egress(call):.2f}")
        mails = f" + {prices.dollars['mails_thousand'] * 1000:.0f} for mails" if call.operation in MAILS else ""
        rows.append(f"| {call.name} | {' | '.join(cells)} | {prices.of_all(call, size):.2f}{mails} |\n")
    return head + "".join(rows)


def same(call: Call, at: int) -> str:
    """The units at all sizes, as one number if they are equal."""
    units = [f"{taken[at]:g}" for taken in call.taken.values()]
    return units[0] if len(set(units)) == 1 else ", ".join(units)


def inputs(prices: Prices) -> str:
    """The prices and assumptions behind the table."""
    dollars, assumed = prices.dollars, prices.assumed
    return (
        f"Prices of {prices.checked} ({prices.region}): {dollars['write_units_million']} US dollars per "
        f"million\nwrite units, {dollars['read_units_million']} per million read units, "
        f"{dollars['lambda_gb_second']:.10f} per GB-second and {dollars['lambda_requests_million']:.2f} per million\n"
        f"Lambda requests, {dollars['http_api_requests_million']:.2f} per million HTTP API requests, "
        f"{dollars['egress_gb']:.2f} per GB sent to the internet.\nAssumptions: "
        f"{assumed['metadata_kb']} KB for compressed metadata and {assumed['answer_kb']} KB for other answers, "
        f"{assumed['dynamodb_read_ms']} ms per DynamoDB read,\n{assumed['dynamodb_write_ms']} ms per write, "
        f"{assumed['upstream_ms']} ms for an upstream's response, {assumed['cold_share']:.0%} cold starts. "
        "All of these are in\n[`bench/prices.json`](../bench/prices.json).\n"
    )


def at_scale(calls: list[Call], prices: Prices, rate: int) -> str:
    """Load and price of this rate of warm verifications, for recently used tokens and for
    others."""
    found = {(call.operation, call.what): call for call in calls}
    hot, first = found[AUTHORIZE, "a token"], found[AUTHORIZE, "a token, its first use in a minute"]
    size = next(reversed(hot.taken))
    rows = [
        ("read units per second", *(f"{rate * call.taken[size][0]:,.0f}" for call in (hot, first))),
        ("write units per second", *(f"{rate * call.taken[size][1]:,.0f}" for call in (hot, first))),
        ("ms per call", *(f"{prices.milliseconds(call, size):.1f}" for call in (hot, first))),
        (
            "concurrent Lambda environments",
            *(f"{rate * prices.milliseconds(call, size) / 1000:,.0f}" for call in (hot, first)),
        ),
    ]
    million_hours = rate * 3600 / 1e6
    for what, dollars in (
        ("DynamoDB, dollars per hour", prices.of_dynamodb),
        ("Lambda, dollars per hour", prices.of_lambda),
        ("HTTP API, dollars per hour", lambda *_: prices.dollars["http_api_requests_million"]),
    ):
        rows.append((what, *(f"{million_hours * dollars(call, size):.2f}" for call in (hot, first))))
    head = "| authorizer | tokens used in the last minute | tokens not used in the last minute |\n|---|--:|--:|\n"
    return head + "".join(f"| {' | '.join(row)} |\n" for row in rows)
