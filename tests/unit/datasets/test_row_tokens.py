"""Rows with more than `max_length` tokens under each policy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from sienn_ray.base_model import load_tokenizer
from sienn_ray.datasets.prompt import PromptFormat, PromptKind
from sienn_ray.datasets.row_lengths import LongRows
from sienn_ray.datasets.row_splits import split_text
from sienn_ray.datasets.row_tokens import RowTokenizer, RowTokens
from sienn_ray.datasets.stored_rows import StoredRow
from sienn_ray.datasets.tokenization import IGNORE_INDEX, TokenizedRow, tokenize_row

LONG = "word " * 100
# The last answer is rendered as no earlier one is, so that each is an example of its own.
_LAST_IS_OTHER = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if loop.last and message['role'] == 'assistant' %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    "{{ message['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
POLICIES: tuple[LongRows, ...] = ("cut", "drop", "split", "fail")


@pytest.fixture(scope="module")
def tokenizer(tiny_model_folder: Path) -> Any:
    return load_tokenizer(tiny_model_folder)


def turns(*contents: str, system: str | None = None) -> list[dict[str, Any]]:
    lead = [] if system is None else [{"role": "system", "content": system}]
    roles = ("user", "assistant")
    return lead + [{"role": roles[place % 2], "content": content} for place, content in enumerate(contents)]


def row_of(messages: list[dict[str, Any]] | None = None, text: str | None = None, **more: Any) -> StoredRow:
    return StoredRow(messages, text, **more)


def tokens_of(tokenizer: Any, row: StoredRow, max_length: int, long_rows: LongRows = "split") -> RowTokens:
    prompt_format = PromptFormat.for_text() if row.messages is None else PromptFormat.for_chat(tokenizer)
    return RowTokenizer(tokenizer, prompt_format, max_length, long_rows).tokens(row)


def learned(tokenizer: Any, example: TokenizedRow) -> list[str]:
    """The answers of an example, each with its end."""
    text = tokenizer.decode([label for label in example.labels if label != IGNORE_INDEX])
    return [answer for answer in text.split(tokenizer.eos_token) if answer]


def question_and_answer(count: int) -> list[str]:
    return [word for number in range(count) for word in (f"question {number}", f"answer {number}")]


@pytest.mark.parametrize("long_rows", POLICIES)
def test_a_row_with_room_is_the_same_under_every_policy(tokenizer: Any, long_rows: LongRows) -> None:
    tokens = tokens_of(tokenizer, row_of(turns("q", "a")), 128, long_rows)
    [whole] = tokenize_row(
        tokenizer, PromptFormat.for_chat(tokenizer), messages=turns("q", "a"), text=None, max_length=128
    )
    assert tokens == RowTokens((whole,))
    assert (tokens.kept, tokens.is_long) == ([whole], False)


@pytest.mark.parametrize("long_rows", ["cut", "fail"])
def test_cut_keeps_the_beginning(tokenizer: Any, long_rows: LongRows) -> None:
    tokens = tokens_of(tokenizer, row_of(turns("q", LONG)), 64, long_rows)
    assert [len(example.input_ids) for example in tokens.kept] == [64]
    assert tokens.num_over > 30
    assert (tokens.is_split, tokens.is_left_out) == (False, False)


def test_drop_keeps_nothing(tokenizer: Any) -> None:
    tokens = tokens_of(tokenizer, row_of(turns("q", LONG)), 64, "drop")
    assert (tokens.kept, tokens.is_left_out, tokens.num_over > 30) == ([], True, True)


class TestText:
    @pytest.mark.parametrize("max_length", [32, 33, 50, 100])
    def test_every_token_is_in_one_piece(self, tokenizer: Any, max_length: int) -> None:
        text = "".join(f"item {number}, " for number in range(60))
        (whole,) = tokens_of(tokenizer, row_of(text=text), 10_000).examples
        tokens = tokens_of(tokenizer, row_of(text=text), max_length)
        pieces = tokens.kept
        assert [token for piece in pieces for token in piece.input_ids] == whole.input_ids
        assert all(piece.input_ids == piece.labels for piece in pieces)
        lengths = [len(piece.input_ids) for piece in pieces]
        assert max(lengths) <= max_length
        assert max(lengths) - min(lengths) <= 1
        assert len(pieces) == -(-len(whole.input_ids) // max_length)
        assert (tokens.num_over, tokens.is_split, tokens.is_long) == (0, True, True)

    def test_only_the_last_piece_ends(self, tokenizer: Any) -> None:
        pieces = tokens_of(tokenizer, row_of(text=LONG), 40).kept
        ends = [piece.input_ids.count(tokenizer.eos_token_id) for piece in pieces]
        assert ends == [*[0] * (len(pieces) - 1), 1]

    def test_every_piece_begins_as_a_prompt_does(self, tokenizer: Any) -> None:
        from tokenizers.processors import TemplateProcessing
        from transformers import PreTrainedTokenizerFast

        bos = tokenizer.eos_token
        backend = type(tokenizer.backend_tokenizer).from_str(tokenizer.backend_tokenizer.to_str())
        backend.post_processor = TemplateProcessing(single=f"{bos} $A", special_tokens=[(bos, tokenizer.eos_token_id)])
        framing = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=tokenizer.eos_token, bos_token=bos)
        text_format = PromptFormat.for_text()
        whole = RowTokenizer(framing, text_format, 10_000).tokens(row_of(text=LONG)).examples[0]
        pieces = split_text(framing, whole, text_format.kind, 40)
        assert all(piece.input_ids[0] == tokenizer.eos_token_id for piece in pieces)
        assert max(len(piece.input_ids) for piece in pieces) <= 40
        assert [token for piece in pieces for token in piece.input_ids[1:]] == whole.input_ids[1:]


class TestConversations:
    def test_every_answer_is_learned_once_behind_the_system_message(self, tokenizer: Any) -> None:
        messages = turns(*question_and_answer(20), system="be kind")
        tokens = tokens_of(tokenizer, row_of(messages), 128)
        assert len(tokens.kept) > 2
        answers = [answer for example in tokens.kept for answer in learned(tokenizer, example)]
        assert answers == [f"answer {number}" for number in range(20)]
        for example in tokens.kept:
            text = tokenizer.decode(example.input_ids)
            assert text.count("be kind") == 1
            assert text.index("be kind") < text.index("question")
            assert len(example.input_ids) <= 128
        assert (tokens.num_over, tokens.is_split) == (0, True)

    def test_a_piece_is_what_its_turns_are_alone(self, tokenizer: Any) -> None:
        messages = turns(*question_and_answer(12), system="be kind")
        pieces = tokens_of(tokenizer, row_of(messages), 128).kept
        count = len(learned(tokenizer, pieces[0]))
        alone = tokens_of(tokenizer, row_of(messages[: 1 + 2 * count]), 10_000).kept
        assert pieces[0] == alone[0]

    def test_a_piece_has_as_many_turns_as_fit(self, tokenizer: Any) -> None:
        messages = turns(*question_and_answer(12))
        pieces = tokens_of(tokenizer, row_of(messages), 128).kept
        count = len(learned(tokenizer, pieces[0]))
        one_more = tokens_of(tokenizer, row_of(messages[: 2 * count + 2]), 10_000).kept
        assert len(one_more[0].input_ids) > 128

    def test_a_turn_that_is_too_long_by_itself_is_cut_and_counted(self, tokenizer: Any) -> None:
        tokens = tokens_of(tokenizer, row_of(turns("a", "b", "c", LONG, "d", "e")), 64)
        assert len(tokens.kept) == 3
        assert [len(example.input_ids) for example in tokens.kept][1] == 64
        assert (learned(tokenizer, tokens.kept[0]), learned(tokenizer, tokens.kept[2])) == (["b"], ["e"])
        assert tokens.num_over == tokens.examples[1].num_cut > 30
        assert tokens.is_split

    def test_a_system_message_is_left_out_where_a_turn_has_no_room_behind_it(self, tokenizer: Any) -> None:
        messages = turns("a", "b", "word " * 40, "c", system="careful " * 60)
        first, second = tokens_of(tokenizer, row_of(messages), 100).kept
        assert "careful" in tokenizer.decode(first.input_ids)
        assert "careful" not in tokenizer.decode(second.input_ids)
        assert learned(tokenizer, second) == ["c"]

    def test_one_exchange_is_cut(self, tokenizer: Any) -> None:
        row = row_of(turns("a", LONG))
        assert tokens_of(tokenizer, row, 64) == tokens_of(tokenizer, row, 64, "cut")

    def test_one_exchange_with_several_examples_is_cut(self, tokenizer: Any) -> None:
        prompt_format = PromptFormat(PromptKind.CHAT, _LAST_IS_OTHER)
        messages = [*turns("a", "b"), {"role": "system", "content": "c"}, {"role": "assistant", "content": LONG}]
        split, cut = (
            RowTokenizer(tokenizer, prompt_format, 64, policy).tokens(row_of(messages)) for policy in ("split", "cut")
        )
        assert len(cut.kept) == 2
        assert split == cut

    def test_a_prompt_that_fills_a_piece_is_left_out_alone(self, tokenizer: Any) -> None:
        tokens = tokens_of(tokenizer, row_of(turns("a", "b", LONG, "c")), 64)
        assert [learned(tokenizer, example) for example in tokens.kept] == [["b"]]
        assert (tokens.is_split, tokens.is_left_out, tokens.num_over > 30) == (False, False, True)

    def test_turns_stay_with_the_question_that_they_answer(self, tokenizer: Any) -> None:
        """An assistant that speaks twice, as around a tool call, isn't parted."""
        once = [*turns("q", "a"), {"role": "assistant", "content": "b"}]
        tokens = tokens_of(tokenizer, row_of([*once, *once, *once, *once]), 72)
        assert len(tokens.kept) > 1
        for example in tokens.kept:
            assert tokenizer.decode(example.input_ids).count("assistant\na") == len(learned(tokenizer, example)) / 2

    def test_each_answer_may_be_an_example_of_its_own(self, tokenizer: Any) -> None:
        prompt_format = PromptFormat(PromptFormat.for_chat(tokenizer).kind, _LAST_IS_OTHER)
        messages = turns(*question_and_answer(10))
        tokens = RowTokenizer(tokenizer, prompt_format, 80, "split").tokens(row_of(messages))
        assert all(len(example.input_ids) <= 80 for example in tokens.kept)
        assert len(tokens.kept) == 10
        assert tokens.num_over == 0


@pytest.mark.parametrize(("long_rows", "num_kept"), [("cut", 2), ("drop", 0)])
def test_a_pair_has_both_sides_or_none(tokenizer: Any, long_rows: LongRows, num_kept: int) -> None:
    row = row_of(turns("q", LONG), rejected={"role": "assistant", "content": "no"})
    tokens = tokens_of(tokenizer, row, 64, long_rows)
    assert (len(tokens.examples), len(tokens.kept), tokens.num_over > 30) == (2, num_kept, True)


def test_splitting_takes_time_by_the_length(tokenizer: Any) -> None:
    """No more than some renderings for each exchange, however many there are."""
    from sienn_ray.datasets.row_splits import split_conversation

    calls: list[int] = []

    def tokenize(messages: Sequence[Any]) -> list[TokenizedRow]:
        calls.append(len(messages))
        num_tokens = 10 * len(messages)
        return [TokenizedRow([1] * min(num_tokens, 100), [1] * min(num_tokens, 100), max(num_tokens - 100, 0))]

    pieces = split_conversation(turns(*question_and_answer(400)), tokenize)
    assert pieces is not None
    assert len(pieces) == 80
    assert sum(calls) < 30 * 800
