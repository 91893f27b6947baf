"""Output of commands."""

from __future__ import annotations

import json
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

console = Console()


def print_line(text: str | Text) -> None:
    """One line as it is, however long, and even if it looks like markup."""
    console.print(text, soft_wrap=True, markup=False, highlight=False)


def print_json(value: Any) -> None:
    """A response, readable."""
    console.print_json(json.dumps(value))


def print_table(rows: list[dict[str, Any]], columns: tuple[str, ...]) -> None:
    """Some fields of each row; the first column is never cut, since an id is there to be copied."""
    table = Table(box=None)
    for place, column in enumerate(columns):
        table.add_column(column, no_wrap=place == 0, overflow="fold" if place == 0 else "ellipsis")
    for row in rows:
        # A file name may look like markup.
        table.add_row(*(escape("" if row[column] is None else str(row[column])) for column in columns))
    console.print(table)
