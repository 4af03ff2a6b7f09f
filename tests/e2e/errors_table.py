"""Writes the output recorded by `test_errors.py` as a page of the documentation, one table per kind
of error."""

import html
import json
import sys
from pathlib import Path

from clients import CLIENTS
from test_errors import CASES, VERBOSE

HEAD = """\
# What each client prints

The errors that people see, recorded from the real clients by `tests/e2e/run --errors` with API
Gateway's changes to our responses. Each table shows the first lines that give the reason, without
repetitions. `guard.example.com` stands for the deployment's host.

- **npm** prints the message of our response after the status. If a `WWW-Authenticate` header
  arrives, as in local mode, npm hides the message and advises to log in; API Gateway renames the
  header. npm always prints an `npm-notice` header.
- **yarn 1** prints only our message, so the message of a 401 begins with the status.
- **pip** prints "No matching distribution found" for any error. It prints `401 Error` before that
  only if the URL contains a credential. `pip -vv` prints the status of every response; `-v` does
  not.
- **pnpm**, **yarn 4**, **bun**, **uv** and **poetry** show the status in their own words.
- **`npm login`** fails and prints our sentence: "This registry has no accounts to log in to. Get a
  token from your organization, or by mail from /api/v1/tokens, and set it as _authToken of this
  registry in .npmrc."
"""


def main(notes: Path, page: Path) -> None:
    """Writes the page from the notes, unless a client or a case is missing."""
    rows = [json.loads(path.read_text()) for path in notes.glob("*.json")]
    found = {(row["client"], row["case"]): row for row in rows}
    names = [kind.name for kind in CLIENTS]
    names.insert(names.index("pip") + 1, VERBOSE)
    if missing := [f"{name}, {case}" for name in names for case in CASES if (name, case) not in found]:
        print(f"{page.name} is unchanged: not every test has run (missing: {missing[0]})")
        return

    def table(case: str) -> str:
        lines = "| client | what it prints |\n|---|---|\n"
        for name in names:
            row = found[name, case]
            label = name if name == VERBOSE else f"{row['product']} {row['version']}"
            printed = (f"<code>{html.escape(line, quote=False).replace('|', '&#124;')}</code>" for line in row["lines"])
            lines += f"| {label} | {'<br>'.join(printed)} |\n"
        return lines

    # Cases with identical output share a table.
    cases: dict[str, list[str]] = {}
    for case in CASES:
        cases.setdefault(table(case), []).append(case)
    text = HEAD
    for lines, alike in cases.items():
        text += f"\n## {', '.join(alike).capitalize()}\n\n{lines}"
    page.write_text(text)
    print(f"Errors by client: {page}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
