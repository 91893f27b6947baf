"""Texts that can't be seen."""

from __future__ import annotations

import json

import pytest

from sienn_ray.datasets.values import filled, is_visible
from sienn_ray.errors import InvalidDatasetError
from tests.unit.datasets.ingesting import fault, run

UNSEEN = {
    "nothing": "",
    "spaces": " \t\r\n\u00a0\u2003\u3000",
    "zero-width space": "\u200b",
    "zero-width joiners": "\u200c\u200d",
    "word joiner": "\u2060",
    "byte order mark": "\ufeff",
    "soft hyphen": "\u00ad",
    "marks of direction": "\u200e\u202a\u2066",
    "control characters": "\x00\x07\x1b\x7f\x9f",
    "tags": "\U000e0041",
    "Hangul's fillers": "\u3164\uffa0\u115f\u1160",
    "blank of braille": "\u2800",
    "variation selector": "\ufe0f",
    "line separators": "\u2028\u2029\x85",
    "several": " \u200b\ufeff ",
}
SEEN = ["a", ".", "0", "\u200b.", "\u200d\U0001f469", "日", "한", "é", "\u0301", "\ue000", "\u00a9", "€", "\x1b[0m"]


@pytest.mark.parametrize("text", UNSEEN.values(), ids=UNSEEN)
def test_text_that_cannot_be_seen_is_blank(text: str) -> None:
    assert not is_visible(text)
    with pytest.raises(InvalidDatasetError, match=r"^the answer must not be blank.*; fill it in or remove the row$"):
        filled(text, "the answer")


@pytest.mark.parametrize("text", SEEN)
def test_text_with_a_character_that_can_be_seen_is_kept(text: str) -> None:
    assert filled(text, "the answer") == text
    _, rows = run(json.dumps({"text": text}), "d.jsonl")
    assert len(rows) == 1


def test_characters_that_cannot_be_seen_are_named_by_their_code_points() -> None:
    found = fault('instruction,response\na,"\u200b"\nb,\u2060\ufeff\u2060\n', "d.csv").message
    assert "line 2: column 'response' must not be blank, and has only characters that can't be seen (U+200B)" in found
    assert (
        "line 3: column 'response' must not be blank, and has only characters that can't be seen (U+2060, U+FEFF)"
        in found
    )


def test_only_some_of_many_are_named() -> None:
    with pytest.raises(InvalidDatasetError, match=r"\(U\+0000, U\+0001, U\+0002, U\+0003, …\)"):
        filled("".join(map(chr, range(9))), "the answer")
