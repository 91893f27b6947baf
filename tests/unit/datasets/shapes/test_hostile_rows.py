"""Rows with anything under the names that are known: each is read or refused in words, whatever it holds."""

from __future__ import annotations

import random
from typing import Any

import pytest

from sienn_ray.datasets.shapes.names import CHANGES_LEARNING
from sienn_ray.datasets.shapes.table import known_columns
from sienn_ray.errors import InvalidDatasetError
from tests.unit.datasets.shapes.reading import read

NUM_ROWS = 400
COLUMNS = sorted({*known_columns(), *CHANGES_LEARNING, "id"})
MAIN = [
    ("prompt", "completion"),
    ("messages",),
    ("conversations",),
    ("prompt", "chosen", "rejected"),
    ("chosen", "rejected"),
    ("input", "preferred_output", "non_preferred_output"),
    ("question", "answers"),
    ("text",),
]
KEYS = [
    "role",
    "from",
    "content",
    "value",
    "tool_calls",
    "name",
    "weight",
    "train",
    "messages",
    "function",
    "human",
    "assistant",
]
TEXTS = [
    *("", "a", "user", "gpt", "function_call", "[", "{", "true", "NaN", "\u200b", "\ud800", "[['a']]"),
    '[{"role": "user", "content": "q"}]',
    '{"name": "f", "arguments": {}}',
    "\n\nHuman: a\n\nAssistant: b",
]
# What Python would say of a value of the wrong kind.
JARGON = ("NoneType", "'dict'", "<class", "object has no attribute", "unhashable")


def value(source: random.Random, depth: int = 0) -> Any:
    kind = source.random()
    if depth > 3 or kind < 0.5:
        return source.choice(TEXTS)
    if kind < 0.6:
        return source.choice([None, True, False, 0, 1, 0.5, 10**30])
    if kind < 0.8:
        return [value(source, depth + 1) for _ in range(source.randrange(4))]
    return {source.choice(KEYS): value(source, depth + 1) for _ in range(source.randrange(5))}


def turn(source: random.Random) -> dict[str, Any]:
    turn = {"role": source.choice(["user", "assistant", "system", "tool"]), "content": value(source, 2)}
    return turn if source.random() < 0.7 else {**turn, source.choice(KEYS): value(source, 2)}


def cell(source: random.Random) -> Any:
    return value(source) if source.random() < 0.6 else [turn(source) for _ in range(source.randrange(1, 5))]


@pytest.mark.parametrize("columns", MAIN, ids=",".join)
def test_any_row_is_read_or_refused_in_words(columns: tuple[str, ...]) -> None:
    source = random.Random(",".join(columns))
    for _ in range(NUM_ROWS):
        names = [*columns, *source.sample(COLUMNS, source.randrange(3))]
        row = {name: cell(source) for name in names}
        message = outcome(row, {**row, source.choice(COLUMNS): cell(source)})
        assert len(message) < 2_000
        assert not any(word in message for word in JARGON), message


def outcome(*rows: dict[str, Any]) -> str:
    """Why rows are refused; empty where they aren't."""
    try:
        read(*rows)
    except InvalidDatasetError as error:
        return error.message
    return ""
