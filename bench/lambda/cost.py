"""What calls cost in money: DynamoDB's units as the service counts them, Lambda's time by a formula, prices from a file."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from candidates import AUTHORIZE, INTROSPECT, ISSUE, NPM
from measure import Times
from report import number

# Memory by template.yaml; all others have the first.
MEMORY = {"": 256, "registry-npm": 1024, "registry-pypi": 1024, "org-user-tokens-revoke-by-user": 512}
# Those that call DynamoDB many times at once: how long that takes, in calls one after the other.
AT_ONCE = {"installations-list": 2}
# Those that send a mail.
MAILS = {"email-tokens-register", "email-tokens-regenerate", "email-tokens-reset"}


@dataclass(frozen=True)
class Call:
    """A call, and what it takes in organizations of each size."""

    operation: str
    what: str
    # By size: read units, write units, calls of DynamoDB.
    taken: dict[int, tuple[float, float, int]]

    @property
    def name(self) -> str:
        """What it is called in a table."""
        return f"`{self.operation}`, {self.what}"

    @property
    def memory(self) -> int:
        """The megabytes that its function has."""
        return MEMORY.get(self.operation, MEMORY[""])


def read_calls(counted: dict[str, list[dict[str, Any]]]) -> list[Call]:
    """The calls that `bench/cost` has made."""
    calls = []
    for at, first in enumerate(next(iter(counted.values()))):
        same = {int(size): found[at] for size, found in counted.items()}
        assert all((each["operation"], each["what"]) == (first["operation"], first["what"]) for each in same.values())
        taken = {size: (each["cost"]["read"], each["cost"]["write"], each["cost"]["calls"]) for size, each in same.items()}
        calls.append(Call(first["operation"], first["what"], taken))
    return calls


class Prices:
    """Puts calls into money."""

    def __init__(self, file: Path, times: list[Times]) -> None:
        told = json.loads(file.read_text())
        self.checked, self.region = told["checked"], told["region"]
        self.dollars, self.assumed = told["dollars"], told["assumed"]
        self._measured = {each.candidate.name: each for each in times}

    def cpu(self, call: Call) -> Times:
        """Of which measured function its processor time is taken: its own, or the one that is most like it."""
        if call.operation in self._measured:
            return self._measured[call.operation]
        if call.operation.startswith("registry-"):
            return self._measured[NPM]
        (_, write, _) = next(iter(call.taken.values()))
        return self._measured[ISSUE if write > 1 else INTROSPECT]

    def milliseconds(self, call: Call, size: int) -> float:
        """How long a warm call is paid for."""
        read, write, calls = call.taken[size]
        calls = AT_ONCE.get(call.operation, calls)
        assumed = self.assumed
        stretched = self.cpu(call).warm_cpu_ms * max(1, assumed["memory_of_a_whole_cpu_mb"] / call.memory)
        # One call after the other, the last one a write if there is one.
        waited = (calls - (write > 0)) * assumed["dynamodb_read_ms"] + (write > 0) * assumed["dynamodb_write_ms"]
        if call.operation.startswith("registry-") and call.what == "metadata":
            waited += assumed["upstream_ms"]
        if call.operation == "email-tokens-register":
            return max(assumed["registration_ms"], stretched + waited)
        return stretched + waited

    def gigabyte_milliseconds(self, call: Call, size: int) -> float:
        """What Lambda bills of a call on average, with its share of a cold start."""
        stretch = max(1, self.assumed["memory_of_a_whole_cpu_mb"] / call.memory)
        cold = self.assumed["cold_share"] * self.cpu(call).cold_cpu_ms * stretch
        return call.memory / 1024 * (self.milliseconds(call, size) + cold)

    def of_dynamodb(self, call: Call, size: int) -> float:
        """Dollars for a million calls that DynamoDB takes."""
        read, write, _ = call.taken[size]
        return read * self.dollars["read_units_million"] + write * self.dollars["write_units_million"]

    def of_lambda(self, call: Call, size: int) -> float:
        """Dollars for a million calls that Lambda takes."""
        seconds = self.gigabyte_milliseconds(call, size) * 1e6 / 1e3
        return seconds * self.dollars["lambda_gb_second"] + self.dollars["lambda_requests_million"]

    def of_api(self, call: Call) -> float:
        """Dollars for a million calls that API Gateway takes; the request that an authorizer is asked about has its own."""
        return 0 if call.operation == AUTHORIZE else self.dollars["http_api_requests_million"]

    def of_all(self, call: Call, size: int) -> float:
        """Dollars for a million calls, mails aside."""
        return self.of_dynamodb(call, size) + self.of_lambda(call, size) + self.of_api(call)


def table(calls: list[Call], prices: Prices) -> str:
    """A row for each call."""
    sizes = list(calls[0].taken)
    head = (
        f"| call | read units at {', '.join(f'{size:,}' for size in sizes)} tokens | write units | ms | GB-ms "
        "| DynamoDB $ | Lambda $ | API $ | a million calls, $ |\n|---|--:|--:|--:|--:|--:|--:|--:|--:|\n"
    )
    rows = []
    for call in calls:
        size = sizes[-1]
        cells = [same(call, 0), same(call, 1), f"{prices.milliseconds(call, size):.0f}"]
        cells += [number(prices.gigabyte_milliseconds(call, size)), f"{prices.of_dynamodb(call, size):.2f}"]
        cells += [f"{prices.of_lambda(call, size):.2f}", f"{prices.of_api(call):.2f}"]
        mails = f" + {prices.dollars['mails_thousand'] * 1000:.0f} for mails" if call.operation in MAILS else ""
        rows.append(f"| {call.name} | {' | '.join(cells)} | {prices.of_all(call, size):.2f}{mails} |\n")
    return head + "".join(rows)


def same(call: Call, at: int) -> str:
    """The units at all sizes: one number where they are the same."""
    units = [f"{taken[at]:g}" for taken in call.taken.values()]
    return units[0] if len(set(units)) == 1 else ", ".join(units)


def inputs(prices: Prices) -> str:
    """What the table is made from, besides what was measured."""
    dollars, assumed = prices.dollars, prices.assumed
    return (
        f"Prices of {prices.checked} ({prices.region}): {dollars['write_units_million']} US dollars for a million write "
        f"units,\n{dollars['read_units_million']} for a million read units, {dollars['lambda_gb_second']:.10f} for a GB-second and "
        f"{dollars['lambda_requests_million']:.2f} for a million requests\nof Lambda, "
        f"{dollars['http_api_requests_million']:.2f} for a million requests of an HTTP API. Assumed: "
        f"{assumed['dynamodb_read_ms']} ms for a read of DynamoDB, {assumed['dynamodb_write_ms']} for a\nwrite, "
        f"{assumed['upstream_ms']} for an upstream's answer, {assumed['cold_share']:.0%} cold starts. "
        "All of these are in [`bench/prices.json`](../bench/prices.json).\n"
    )


def at_scale(calls: list[Call], prices: Prices, rate: int) -> str:
    """What so many verifications a second take, all of them warm and of tokens used within the last minute, or none."""
    found = {(call.operation, call.what): call for call in calls}
    hot, first = found[AUTHORIZE, "a token"], found[AUTHORIZE, "a token, its first use in a minute"]
    size = next(reversed(hot.taken))
    rows = [
        ("read units a second", *(f"{rate * call.taken[size][0]:,.0f}" for call in (hot, first))),
        ("write units a second", *(f"{rate * call.taken[size][1]:,.0f}" for call in (hot, first))),
        ("ms of a call", *(f"{prices.milliseconds(call, size):.1f}" for call in (hot, first))),
        ("Lambda environments at a time", *(f"{rate * prices.milliseconds(call, size) / 1000:,.0f}" for call in (hot, first))),
    ]
    million_hours = rate * 3600 / 1e6
    for what, dollars in (
        ("DynamoDB, dollars an hour", prices.of_dynamodb),
        ("Lambda, dollars an hour", prices.of_lambda),
        ("HTTP API, dollars an hour", lambda *_: prices.dollars["http_api_requests_million"]),
    ):
        rows.append((what, *(f"{million_hours * dollars(call, size):.2f}" for call in (hot, first))))
    head = "| authorizer | tokens used within the minute | none of them used within the minute |\n|---|--:|--:|\n"
    return head + "".join(f"| {' | '.join(row)} |\n" for row in rows)
