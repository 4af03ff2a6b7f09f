"""Writes what `test_errors.py` has noted as a page of the documentation: one table for each way to be refused."""

import html
import json
import sys
from pathlib import Path

from clients import CLIENTS
from test_errors import CASES, VERBOSE

HEAD = """\
# What each client prints

What people see who are refused, as `tests/e2e/run --errors` has recorded it from the real clients, with API Gateway's changes
to our answers: the first lines that say why, each once. The host stands for ours.

- **npm** prints the sentence of our answer behind the status. API Gateway renames `WWW-Authenticate`; where that header comes
  through, as in local mode, npm hides the sentence and advises to log in. An `npm-notice` header it prints in any case.
- **yarn 1** prints our sentence, and no status.
- **pip** says "No matching distribution found" for whatever an index answers. `401 Error` stands before it only where the URL
  holds a credential. `pip -vv` shows the status of every answer; `-v` does not.
- **pnpm**, **yarn 4**, **bun**, **uv** and **poetry** show the status in their own words.
"""


def main(notes: Path, page: Path) -> None:
    """Turns the notes into the page."""
    rows = [json.loads(path.read_text()) for path in notes.glob("*.json")]
    found = {(row["client"], row["case"]): row for row in rows}
    names = [kind.name for kind in CLIENTS]
    names.insert(names.index("pip") + 1, VERBOSE)
    if missing := [f"{name}, {case}" for name in names for case in CASES if (name, case) not in found]:
        print(f"{page.name} stays as it is: not everything was run ({missing[0]}, for one)")
        return

    def table(case: str) -> str:
        lines = "| client | what it prints |\n|---|---|\n"
        for name in names:
            row = found[name, case]
            label = name if name == VERBOSE else f"{row['product']} {row['version']}"
            printed = (f"<code>{html.escape(line, quote=False).replace('|', '&#124;')}</code>" for line in row["lines"])
            lines += f"| {label} | {'<br>'.join(printed)} |\n"
        return lines

    # Cases that nobody can tell apart stand together.
    cases: dict[str, list[str]] = {}
    for case in CASES:
        cases.setdefault(table(case), []).append(case)
    text = HEAD
    for lines, alike in cases.items():
        text += f"\n## {', '.join(alike).capitalize()}\n\n{lines}"
    page.write_text(text)
    print(f"What each client prints when it is refused: {page}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
