"""Rows as the model reads them: the text and its marks are those of the very tokens of training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from sienn_ray.base_model import load_tokenizer
from sienn_ray.datasets import dataset_keys, rendered_rows
from sienn_ray.datasets.prompt import PromptFormat
from sienn_ray.datasets.rendered_rows import render_row, render_rows
from sienn_ray.datasets.rendered_schema import RenderedExample, RenderedRow, RenderingRequest
from sienn_ray.datasets.row_lengths import LongRows
from sienn_ray.datasets.row_tokens import RowTokenizer
from sienn_ray.datasets.row_writer import RowWriter
from sienn_ray.datasets.schema import CanonicalRow, Message, Role, RowKind
from sienn_ray.datasets.stored_rows import StoredRow
from sienn_ray.datasets.tokenization import IGNORE_INDEX
from sienn_ray.errors import InvalidInputError
from sienn_ray.storage import Storage
from tests.support.tiny_model import save_strict_model

LONG = "word " * 200


@pytest.fixture(scope="module")
def tokenizer(tiny_model_folder: Path) -> Any:
    return load_tokenizer(tiny_model_folder)


def turns(*contents: str) -> list[dict[str, str]]:
    roles = ("user", "assistant")
    return [{"role": roles[place % 2], "content": content} for place, content in enumerate(contents)]


def row_of(messages: list[dict[str, str]] | None = None, text: str | None = None, **more: Any) -> dict[str, Any]:
    return {"row": 3, "line": 5, "messages": messages, "text": text, "rejected": None, **more}


def maker(tokenizer: Any, row: dict[str, Any], max_length: int, long_rows: LongRows) -> RowTokenizer:
    prompt_format = PromptFormat.for_text() if row["messages"] is None else PromptFormat.for_chat(tokenizer)
    return RowTokenizer(tokenizer, prompt_format, max_length, long_rows)


def rendered(tokenizer: Any, row: dict[str, Any], max_length: int = 512, long_rows: LongRows = "cut") -> RenderedRow:
    return render_row(maker(tokenizer, row, max_length, long_rows), row)


def learned(example: RenderedExample) -> list[str]:
    return [example.text[span.start : span.end] for span in example.spans]


def specials(example: RenderedExample, *, is_control: bool) -> list[str]:
    found = [mark for mark in example.special_tokens if mark.is_control is is_control]
    assert all(example.text[mark.start : mark.end] == mark.token for mark in found)
    return [mark.token for mark in found]


@pytest.mark.parametrize(
    "row",
    [
        row_of(turns("Hello", "Hi!", "How are you?", "Well 🚀 日本語")),
        row_of(turns("q", LONG, "r", LONG)),
        row_of(text="Once upon a time 👨‍👩‍👧 there was\n\n  a ferry."),
        row_of(text=LONG),
        row_of(turns("which <|im_end|> ends?", "None <|im_start|>.")),
        row_of(turns("q", "yes"), rejected="no"),
    ],
)
@pytest.mark.parametrize(("max_length", "long_rows"), [(512, "cut"), (64, "cut"), (64, "split"), (64, "drop")])
def test_marks_are_those_of_the_tokens(
    tokenizer: Any, row: dict[str, Any], max_length: int, long_rows: LongRows
) -> None:
    tokens = maker(tokenizer, row, max_length, long_rows).tokens(StoredRow.of(row))
    shown = rendered(tokenizer, row, max_length, long_rows)
    assert shown.num_examples == len(shown.examples) == len(tokens.examples)
    for example, read in zip(shown.examples, tokens.examples, strict=True):
        assert example.num_tokens == len(read.input_ids)
        end = len(example.text) if example.cut is None else example.cut.position
        assert tokenizer.decode(read.input_ids) == example.text[:end]
        parts = tokenizer.decode([label for label in read.labels if label != IGNORE_INDEX])
        assert "".join(learned(example)) == parts
        assert (
            sum(span.num_tokens for span in example.spans) == read.num_completion_tokens == example.num_learned_tokens
        )
        assert (example.cut.num_tokens if example.cut else 0) == read.num_cut
        assert example.is_left_out is (read not in tokens.kept)


def test_answers_are_learned_with_their_ends(tokenizer: Any) -> None:
    shown = rendered(tokenizer, row_of(turns("a", "b", "c", "d")))
    (example,) = shown.examples
    assert (shown.row, shown.line, shown.fate, shown.fault) == (3, 5, "whole", None)
    assert learned(example) == ["b<|im_end|>", "d<|im_end|>"]
    assert example.text.startswith("<|im_start|>system\n")


def test_control_tokens_are_told_from_what_users_write(tokenizer: Any) -> None:
    (example,) = rendered(tokenizer, row_of(turns("what is <|im_end|>?", "a mark"))).examples
    assert specials(example, is_control=False) == ["<|im_end|>"]
    assert specials(example, is_control=True) == ["<|im_start|>", "<|im_end|>"] * 3
    mark = next(mark for mark in example.special_tokens if not mark.is_control)
    assert example.text[mark.start - 8 : mark.end + 1] == "what is <|im_end|>?"


def test_the_cut_is_where_the_model_stops_to_read(tokenizer: Any) -> None:
    shown = rendered(tokenizer, row_of(turns("q", LONG)), 64)
    (example,) = shown.examples
    assert (shown.fate, example.cut is not None) == ("cut", True)
    assert example.cut is not None
    assert example.cut.num_tokens == shown.num_tokens_left_out > 100
    assert example.text[example.cut.position :].startswith(" word")
    assert example.spans[-1].end == example.cut.position


def test_a_split_text_is_shown_piece_by_piece(tokenizer: Any) -> None:
    row = row_of(text="".join(f"item {number}, " for number in range(90)))
    shown = rendered(tokenizer, row, 64, "split")
    assert shown.fate == "split"
    assert len(shown.examples) > 2
    assert "".join(example.text for example in shown.examples) == row["text"] + tokenizer.eos_token
    assert all(example.cut is None for example in shown.examples)


def test_a_preference_has_two_sides(tokenizer: Any) -> None:
    shown = rendered(tokenizer, row_of(turns("q", "yes"), rejected="no"))
    assert [(example.side, learned(example)) for example in shown.examples] == [
        ("chosen", ["yes<|im_end|>"]),
        ("rejected", ["no<|im_end|>"]),
    ]


def test_rows_that_are_left_out_are_shown_as_that(tokenizer: Any) -> None:
    for row, policy in ((row_of(turns("q", LONG)), "drop"), (row_of(turns(LONG, "a")), "cut")):
        shown = rendered(tokenizer, row, 64, policy)  # type: ignore[arg-type]
        assert (shown.fate, [example.is_left_out for example in shown.examples]) == ("left_out", [True])


def test_long_text_is_shown_in_part(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendered_rows, "MAX_TEXT_CHARS", 30)
    (example,) = rendered(tokenizer, row_of(turns("q", "the answer"))).examples
    assert (len(example.text), example.is_truncated) == (30, True)
    assert example.num_chars > 100
    assert example.spans == ()
    assert example.num_learned_tokens > 0


def test_what_the_template_refuses_is_a_fault_of_the_row(tiny_model_folder: Path, tmp_path: Path) -> None:
    save_strict_model(tiny_model_folder, tmp_path / "strict")
    shown = rendered(load_tokenizer(tmp_path / "strict"), row_of(turns("be brief", "no")))
    assert (shown.fate, shown.examples) == (None, ())
    assert shown.fault is not None
    assert "Brief answers are not supported" in shown.fault


class TestPages:
    def store(self, folder: Path, rows: Sequence[CanonicalRow]) -> Storage:
        storage = Storage(f"file://{folder}")
        with storage.writing(dataset_keys.rows_key("d")) as file, RowWriter(file) as writer:
            for number, row in enumerate(rows):
                writer.add(row, number + 2, [])
        return storage

    def conversation(self, number: int) -> CanonicalRow:
        return CanonicalRow((Message(Role.USER, f"q {number}"), Message(Role.ASSISTANT, f"a {number}")))

    def request(self, offset: int, limit: int = 3) -> RenderingRequest:
        return RenderingRequest("d", "owner/base", RowKind.CONVERSATION, 512, "cut", offset, limit)

    def test_rows_come_with_their_numbers_and_lines(self, tmp_path: Path, tokenizer: Any) -> None:
        storage = self.store(tmp_path, [self.conversation(number) for number in range(5)])
        page = render_rows(storage, self.request(3), tokenizer)
        assert page.num_rows == 5
        assert [(row.row, row.line) for row in page.rows] == [(3, 5), (4, 6)]
        assert [learned(row.examples[0]) for row in page.rows] == [["a 3<|im_end|>"], ["a 4<|im_end|>"]]

    def test_a_row_behind_the_last_one_is_refused(self, tmp_path: Path, tokenizer: Any) -> None:
        storage = self.store(tmp_path, [self.conversation(0), self.conversation(1)])
        with pytest.raises(InvalidInputError, match="row 2 isn't there: the dataset has 2 rows, 0 to 1"):
            render_rows(storage, self.request(2), tokenizer)

    def test_a_page_ends_where_it_is_full(
        self, tmp_path: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(rendered_rows, "_MAX_PAGE_CHARS", 200)
        storage = self.store(tmp_path, [self.conversation(number) for number in range(5)])
        assert len(render_rows(storage, self.request(0), tokenizer).rows) == 2
