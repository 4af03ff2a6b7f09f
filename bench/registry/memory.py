"""Measures the memory that the registries need for large metadata. Started by
`bench/registry/memory`."""

import argparse
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from large import HTML, JSON, NPM, Large, LargeUpstream, needed

ROOT = Path(__file__).resolve().parents[2]
BINARY = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve() / "debug/guard-tokens"
DOCUMENT = ROOT / "docs/SCALING.md"
BEGIN, END = "<!-- memory: written by bench/registry/memory --update -->", "<!-- /memory -->"

KINDS = {NPM: "npm", JSON: "Python, JSON", HTML: "Python, HTML"}
SIZES = (1, 10, 40, 120)
# What the upstream sends, and what the client accepts.
ENCODINGS = (("gzip", "gzip"), ("plain", "identity"))

HEADER = """\
| metadata | upstream sends | client accepts | 1 MB | 10 MB | 40 MB | 120 MB |
|---|---|---|--:|--:|--:|--:|
"""


def rows(upstream: LargeUpstream, folder: Path) -> Iterator[str]:
    """The figures."""
    for kind, name in KINDS.items():
        for sent, accepted in ENCODINGS:
            cells = []
            for size in SIZES:
                document = Large(kind, size, upstream.url)
                place = folder / f"{document.kind.replace('/', '-')}-{sent}-{size}"
                found = needed(BINARY, place, upstream, document, sent, accepted)
                cells.append(f"{found.more / 1e6:.0f} MB, {found.more / document.size:.1f}")
                print(name, sent, accepted, found, file=sys.stderr)
            yield f"| {name} | {sent} | {accepted} | {' | '.join(cells)} |"


def main() -> None:
    """Measures, prints the figures, and updates the document if asked to."""
    parser = argparse.ArgumentParser(prog="bench/registry/memory", description=__doc__.split(". ")[0] + ".")
    parser.add_argument("--update", action="store_true", help="also update the figures in docs/SCALING.md")
    arguments = parser.parse_args()
    upstream = LargeUpstream()
    with tempfile.TemporaryDirectory() as folder:
        figures = HEADER + "\n".join(rows(upstream, Path(folder))) + "\n"
    upstream.stop()
    print(figures)
    if arguments.update:
        marked = re.compile(f"{re.escape(BEGIN)}.*?{re.escape(END)}", re.DOTALL)
        text, changed = marked.subn(lambda _: f"{BEGIN}\n\n{figures}\n{END}", DOCUMENT.read_text())
        assert changed, f"{DOCUMENT.name} has no markers for the figures"
        DOCUMENT.write_text(text)


if __name__ == "__main__":
    main()
