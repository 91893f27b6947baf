"""The names that are documented are those that are read."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from sienn_ray.api.routes.uploads import upload_dataset
from sienn_ray.datasets.schema import DatasetFormat
from sienn_ray.datasets.shapes.names import BESIDE, COMPLETIONS, IGNORE, MESSAGES, PROMPTS, Part
from sienn_ray.datasets.shapes.roles import CALLS, ROLE_OF
from sienn_ray.datasets.shapes.table import documented_columns, known_columns

DOCS = Path(__file__).parents[4] / "docs"
PAGE = (DOCS / "datasets.md").read_text()


def names_in(line: str) -> set[str]:
    return set(re.findall(r"`([^`]+)`", line))


def row(first: str) -> set[str]:
    """Names in a row of a table, without its first cell."""
    (line,) = re.findall(rf"^\| {re.escape(first)} \| (.*)$", PAGE, re.MULTILINE)
    return names_in(line)


def test_every_name_that_is_read_is_on_the_page() -> None:
    assert known_columns() <= names_in(PAGE)
    assert set(MESSAGES) | {IGNORE} <= names_in(PAGE)


def test_names_of_both_sides() -> None:
    assert (row("Prompt"), row("Completion")) == (set(PROMPTS), set(COMPLETIONS))


@pytest.mark.parametrize(
    ("title", "part"),
    [
        ("System message", Part.SYSTEM),
        ("Earlier turns", Part.HISTORY),
        ("What a prompt is about", Part.INPUT),
        ("Tools", Part.TOOLS),
        ("Reasoning", Part.REASONING),
        ("Label", Part.LABEL),
        ("Variables of the chat template", Part.TEMPLATE_VARIABLES),
    ],
)
def test_names_beside_them(title: str, part: Part) -> None:
    assert row(title) - {"text"} == set(BESIDE[part])


def test_every_part_beside_is_documented() -> None:
    assert len(BESIDE) == 7, "add the new part to docs/datasets.md and above"


@pytest.mark.parametrize("role", ["system", "developer", "user", "assistant", "tool"])
def test_words_for_roles(role: str) -> None:
    assert row(f"`{role}`") == {word for word, known in ROLE_OF.items() if known == role}


def test_words_for_calls() -> None:
    assert row("`assistant`, calling a tool") == CALLS


@pytest.mark.parametrize("dataset_format", DatasetFormat)
def test_main_column_sets_are_in_the_api_and_its_description(dataset_format: DatasetFormat) -> None:
    columns = documented_columns(dataset_format)
    cells = ", ".join(f"`{name}`" for name in columns)
    assert f"| {cells} | `{dataset_format}` |" in (DOCS / "api.md").read_text()
    assert f"`{','.join(columns)}`" in (inspect.getdoc(upload_dataset) or "")
