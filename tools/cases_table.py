"""Writes docs/cases.md: `python -m tools.cases_table`.

Each case of `tests/cases` is sent to the service in one process, with a tiny random base model behind it. `before` is
what the service made of the case when it was first tried.
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.support.cases import Outcome, answering, load_cases, run_case
from tests.support.tiny_model import save_tiny_model

PAGE = Path(__file__).parents[1] / "docs" / "cases.md"
_HEAD = """\
# Cases

Files and requests as people have them, modelled on public reports, and what became of each: when first tried, and
now. `python -m tools.cases_table` sends them and writes this page; `tests/unit/cases` does the same in each run of the
tests. A case is right where it is taken in full, or refused in words that name the cause and the way out.

"""
_BEFORE = {"OK": "right", "LOOK": "not right", "SKIPPED": "not tried"}
_TITLES = {
    "data": "Files",
    "client": "Requests of clients of the OpenAI API",
    "serving": "Questions",
    "training": "Fine-tunes, up to the answer to the request",
    "export": "Exports",
}
_MAX_WORDS_CHARS = 160


def main() -> int:
    """Send all cases and write the page; returns the exit code, 1 where a case isn't right."""
    cases = load_cases()
    with tempfile.TemporaryDirectory() as folder:
        save_tiny_model(Path(folder) / "model")
        with answering(Path(folder) / "model", Path(folder)) as client:
            outcomes = [run_case(client, case) for case in cases]
    PAGE.write_text(page(cases, outcomes), encoding="utf-8")
    wrong = [f"{case['id']}: {each.fault}" for case, each in zip(cases, outcomes, strict=True) if each.fault]
    sys.stdout.write("".join(f"{line}\n" for line in wrong))
    return 1 if wrong else 0


def page(cases: Sequence[dict[str, Any]], outcomes: Sequence[Outcome]) -> str:
    """Return the page for cases and their outcomes."""
    before = Counter(_BEFORE[case["before"]] for case in cases)
    now = Counter("not right" if outcome.fault else "right" for outcome in outcomes)
    parts = [
        _HEAD,
        "| | Right | Not right | Not tried |\n|---|---|---|---|\n",
        f"| Before | {before['right']} | {before['not right']} | {before['not tried']} |\n",
        f"| Now | {now['right']} | {now['not right']} | 0 |\n",
    ]
    for kind, title in _TITLES.items():
        rows = [
            f"| `{case['id']}` | {_cell(case['wanted'])} | {_BEFORE[case['before']]} | {_now(outcome)} |\n"
            for case, outcome in zip(cases, outcomes, strict=True)
            if case["kind"] == kind
        ]
        parts += [f"\n## {title}\n\n", "| Case | Wanted | Before | Now |\n|---|---|---|---|\n", *rows]
    return "".join(parts)


def _now(outcome: Outcome) -> str:
    if outcome.fault:
        return f"not right: {_cell(outcome.fault)}"
    if outcome.status < 400:
        return "taken"
    return f"refused: {_cell(outcome.words)}"


def _cell(text: str) -> str:
    """Text within a table, cut."""
    line = " ".join(text.encode("ascii", "backslashreplace").decode().split())
    cut = line if len(line) <= _MAX_WORDS_CHARS else line[:_MAX_WORDS_CHARS] + "…"
    for mark in ("\\", "|", "<", "`", "*", "_", "[", "{"):
        cut = cut.replace(mark, f"\\{mark}")
    return cut


if __name__ == "__main__":
    sys.exit(main())
