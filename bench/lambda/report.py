"""Formats the figures as Markdown and writes them into the documents."""

import re
from collections.abc import Iterable
from pathlib import Path

from candidates import AUTHORIZE, BEFORE, FLOOR, NODE, PYTHON
from measure import Times

COMMAND = "bench/run --update"


def number(value: float) -> str:
    """A number with three significant digits."""
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def megabytes(number_of_bytes: int) -> str:
    """A size for people, in millions of bytes."""
    return f"{number_of_bytes / 1e6:.2f}" if number_of_bytes >= 1e4 else "0.00"


def speed(times: Iterable[Times]) -> str:
    """The table of a run, without other builds given by `--before`."""
    by_name = {each.candidate.name: each for each in times}
    floor = by_name[FLOOR]
    head = (
        "| function | cold start p50 ms | ÷ no-op | p95 ms | CPU ms "
        "| warm p50 ms | p99 ms | CPU ms | peak MB | code MB, zipped MB |\n"
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n"
    )
    rows = []
    for each in by_name.values():
        if each.candidate.name.endswith(BEFORE):
            continue
        cells = [number(each.cold_ms), number(each.cold_ms / floor.cold_ms), number(each.cold_at(0.95))]
        cells += [number(each.cold_cpu_ms), number(each.warm_ms(0.5)), number(each.warm_ms(0.99))]
        cells += [number(each.warm_cpu_ms), f"{each.peak / 1e6:.0f}"]
        cells.append(f"{megabytes(each.candidate.unpacked)}, {megabytes(each.candidate.zipped)}")
        rows.append(f"| {each.candidate.name} | {' | '.join(cells)} |\n")
    return head + "".join(rows)


def change(times: Iterable[Times]) -> str:
    """Compares the two builds of functions that were measured in one run."""
    by_name = {each.candidate.name: each for each in times}
    floor = by_name[FLOOR]
    head = (
        "| function | cold start p50 ms | ÷ no-op | CPU ms | warm p50 ms | peak MB | code MB |\n"
        "|---|--:|--:|--:|--:|--:|--:|\n"
    )
    rows = []
    for before in (each for name, each in by_name.items() if name.endswith(BEFORE)):
        after = by_name[before.candidate.name.removesuffix(BEFORE)]
        pairs = [
            (number(before.cold_ms), number(after.cold_ms)),
            (number(before.cold_ms / floor.cold_ms), number(after.cold_ms / floor.cold_ms)),
            (number(before.cold_cpu_ms), number(after.cold_cpu_ms)),
            (number(before.warm_ms(0.5)), number(after.warm_ms(0.5))),
            (f"{before.peak / 1e6:.0f}", f"{after.peak / 1e6:.0f}"),
            (megabytes(before.candidate.unpacked), megabytes(after.candidate.unpacked)),
        ]
        rows.append(f"| {after.candidate.name} | {' | '.join(f'{old} → {new}' for old, new in pairs)} |\n")
    return head + "".join(rows)


def first_screen(times: Iterable[Times], units: str) -> str:
    """The figures for the README."""
    by_name = {each.candidate.name: each for each in times}
    ours, floor = by_name[AUTHORIZE], by_name[FLOOR]
    head = (
        "| checking a token | Rust, this service | Node.js 20 | Python 3.11 | a no-op in Rust |\n"
        "|---|--:|--:|--:|--:|\n"
    )
    order = [ours, by_name[NODE], by_name[PYTHON], floor]
    cold = " | ".join(f"{number(each.cold_ms)} ms" for each in order)
    warm = " | ".join(f"{number(each.warm_ms(0.5))} ms" for each in order)
    memory = " | ".join(f"{each.peak / 1e6:.0f} MB" for each in order)
    rows = [f"| cold start | {cold} |", f"| warm, p50 | {warm} |", f"| peak memory | {memory} |"]
    return head + "\n".join(rows) + f"\n\n{units}\n"


def update(document: Path, name: str, figures: str, command: str = COMMAND) -> None:
    """Replaces the figures between the document's markers, which name the command that does so."""
    begin, end = f"<!-- {name}: written by {command} -->", f"<!-- /{name} -->"
    text = document.read_text()
    marked = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    assert marked.search(text), f"{document.name} has no markers for {name}"
    document.write_text(marked.sub(lambda _: f"{begin}\n\n{figures.strip()}\n\n{end}", text))
