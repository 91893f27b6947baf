from __future__ import annotations

import pytest

from sienn_ray.datasets.schema import DatasetFormat, RowKind, check_same_kind, row_kind
from sienn_ray.errors import InvalidDatasetError

CONVERSATIONS = {
    "instruction-response",
    "alpaca",
    "instruction-input-response",
    "prompt-completion",
    "question-answer",
    "chat",
}


def test_every_format_makes_one_kind_of_rows() -> None:
    kinds = {each.value: row_kind(each) for each in DatasetFormat}
    assert {name for name, kind in kinds.items() if kind is RowKind.CONVERSATION} == CONVERSATIONS
    assert (kinds["text"], kinds["preference"]) == (RowKind.TEXT, RowKind.PREFERENCE)
    # As a record has it, which is a string.
    assert {name: row_kind(name) for name in kinds} == kinds


def test_a_format_of_another_version_is_named() -> None:
    with pytest.raises(InvalidDatasetError, match="format is 'parquet', which is none of instruction-response, alpaca"):
        row_kind("parquet")


@pytest.mark.parametrize("kind", RowKind)
def test_every_kind_has_words(kind: RowKind) -> None:
    assert kind.plural
    assert kind.num_sequences >= 1


@pytest.mark.parametrize(
    ("formats", "kind"),
    [
        (("chat", "chat"), RowKind.CONVERSATION),
        (("chat", "alpaca"), RowKind.CONVERSATION),
        (("text", "text"), RowKind.TEXT),
        (("preference", "preference"), RowKind.PREFERENCE),
    ],
)
def test_datasets_of_the_same_kind_go_together(formats: tuple[str, str], kind: RowKind) -> None:
    assert check_same_kind(*formats) is kind


@pytest.mark.parametrize(
    ("formats", "words"),
    [
        (("text", "chat"), "plain text and conversations can't be mixed, choose two datasets of the same kind"),
        (("chat", "text"), "format is 'chat' and the validation dataset's is 'text'; conversations and plain text"),
        (("preference", "alpaca"), "preferences and conversations can't be mixed"),
        (("chat", "preference"), "conversations and preferences can't be mixed"),
        (("preference", "text"), "preferences and plain text can't be mixed"),
    ],
)
def test_datasets_of_different_kinds_do_not(formats: tuple[str, str], words: str) -> None:
    with pytest.raises(InvalidDatasetError, match=words):
        check_same_kind(*formats)
