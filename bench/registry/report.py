"""The figures as Markdown."""

import re
from collections.abc import Iterable
from pathlib import Path

from measuring import REDIRECT, Result
from ways import CONTROL, UPSTREAM

BEGIN, END = "<!-- figures: written by bench/registry/run --update -->", "<!-- /figures -->"

HEADER = """\
| case | way | p50 ms | added | ratio | p99 ms | added | ratio | CPU ms |
|---|---|--:|--:|--:|--:|--:|--:|--:|
"""


def number(value: float) -> str:
    """A number with three significant digits."""
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}" if abs(value) < 100 else f"{value:.0f}"


def size(number_of_bytes: int) -> str:
    """A size for people."""
    return f"{number_of_bytes / 1e6:.1f} MB" if number_of_bytes >= 1e6 else f"{number_of_bytes / 1e3:.0f} KB"


def rows(result: Result) -> Iterable[str]:
    """The rows of a case."""
    case, taken = result.case, result.taken
    base = taken[UPSTREAM]
    label = f"{case.name} ({size(result.size)}); {case.rounds} rounds"
    yield f"| {label} | {UPSTREAM} | {number(base.median)} | | 1 | {number(base.at(0.99))} | | 1 | |"
    for way, times in taken.items():
        if way in (UPSTREAM, CONTROL):
            continue
        cells = []
        for mine, alone in ((times.median, base.median), (times.at(0.99), base.at(0.99))):
            # The upstream serves the file without a redirect, so there is nothing to compare with.
            against = ["", ""] if way == REDIRECT else [number(mine - alone), number(mine / alone)]
            cells += [number(mine), *against]
        cells.append("" if times.cpu is None else number(times.cpu))
        yield f"| | {way} | {' | '.join(cells)} |"


def table(title: str, results: Iterable[Result]) -> str:
    """A heading and the rows of some cases."""
    lines = [row for result in results for row in rows(result)]
    return f"#### {title}\n\n{HEADER}" + "\n".join(lines) + "\n"


def noise(results: Iterable[Result]) -> str:
    """A sentence about the difference between the two measurements of the upstream."""
    ratios: dict[float, list[float]] = {0.5: [], 0.99: []}
    for result in results:
        again, alone = result.taken[CONTROL], result.taken[UPSTREAM]
        ratios[0.5].append(again.median / alone.median)
        ratios[0.99].append(again.at(0.99) / alone.at(0.99))
    middle, end = ratios[0.5], ratios[0.99]
    return (
        "Noise: the upstream was measured twice in every round. The second took "
        f"{min(middle):.2f} to {max(middle):.2f} times as long as the first at\nthe median, "
        f"and {min(end):.2f} to {max(end):.2f} times at the 99th percentile, depending on the case.\n"
    )


def update(document: Path, figures: str) -> None:
    """Replaces the figures between the document's markers."""
    text = document.read_text()
    marked = re.compile(f"{re.escape(BEGIN)}.*?{re.escape(END)}", re.DOTALL)
    assert marked.search(text), f"{document.name} has no markers for the figures"
    document.write_text(marked.sub(lambda _: f"{BEGIN}\n\n{figures}\n{END}", text))
