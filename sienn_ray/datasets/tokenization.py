"""Tokenization of rendered rows to `input_ids` and `labels`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sienn_ray.datasets.literal_text import parts
from sienn_ray.datasets.prompt import PromptFormat, PromptKind, Segment

# PyTorch's cross_entropy skips targets of this value by default.
IGNORE_INDEX = -100


@dataclass(frozen=True)
class TokenizedRow:
    """One row; `labels[i]` is `input_ids[i]` where that token has to be produced, else `IGNORE_INDEX`."""

    input_ids: list[int]
    labels: list[int]
    # Tokens that were cut off at the end.
    num_cut: int = 0
    # The text that the tokens are of, for whoever shows it; what was cut off is still there.
    segments: Sequence[Segment] = field(default=(), compare=False, repr=False)
    # Of a text that was split: which of its tokens these are, behind those that the tokenizer puts in front.
    stretch: tuple[int, int] | None = field(default=None, compare=False)

    @property
    def num_completion_tokens(self) -> int:
        """Tokens that the loss counts; the first token of a row is never predicted."""
        return sum(label != IGNORE_INDEX for label in self.labels[1:])

    @property
    def has_answer(self) -> bool:
        """Return whether anything is left to learn; a prompt may fill the whole row."""
        return any(label != IGNORE_INDEX for label in self.labels[1:])


@dataclass(frozen=True)
class TokenizedPair:
    """Two answers to one prompt; both rows begin with its very tokens, and only the answers have labels."""

    chosen: TokenizedRow
    rejected: TokenizedRow


def encode(tokenizer: Any, text: str, *, is_start: bool, kind: PromptKind) -> list[int]:
    """Token ids of a piece of text.

    A chat template writes its special tokens out; plain text begins with what the tokenizer puts first (a BOS, if any).

    Args:
        tokenizer: The base model's.
        text: The piece, as `literal_text` marks it.
        is_start: Whether a row begins with it.
        kind: Conversation or plain text.
    """
    ids: list[int] = []
    for _, part_ids in encode_parts(tokenizer, text, is_start=is_start, kind=kind):
        ids += part_ids
    return ids


def encode_parts(tokenizer: Any, text: str, *, is_start: bool, kind: PromptKind) -> list[tuple[str, list[int]]]:
    """Parts of a piece of text that are encoded by themselves, each with its token ids; arguments are `encode`'s."""
    first, *others = parts(text)
    ids = _framed(tokenizer, first) if is_start and kind is PromptKind.TEXT else _ids(tokenizer, first)
    return [(first, ids), *((part, _ids(tokenizer, part)) for part in others)]


def _ids(tokenizer: Any, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def _framed(tokenizer: Any, text: str) -> list[int]:
    ids = _ids(tokenizer, text)
    framed: list[int] = tokenizer(text, add_special_tokens=True)["input_ids"]
    # An EOS that the tokenizer puts behind the text is left out: the text goes on, or has its own.
    starts = (start for start in range(len(framed)) if framed[start : start + len(ids)] == ids)
    return framed[: next(starts, 0) + len(ids)]


def tokenize_row(
    tokenizer: Any,
    prompt_format: PromptFormat,
    *,
    messages: Sequence[Mapping[str, Any]] | None,
    text: str | None,
    max_length: int,
    tools: Sequence[Mapping[str, Any]] | None = None,
) -> list[TokenizedRow]:
    """Tokenize a canonical row to its examples (see `PromptFormat.examples`), and cut them to `max_length` tokens.

    Labels are masked by position. Masking by token id would also mask the end of turn wherever the pad token is the EOS
    token, and the model would never learn to stop.
    """
    if messages is not None:
        examples = prompt_format.examples(tokenizer, messages, tools=tools)
    else:
        examples = [prompt_format.text_segments(tokenizer, text or "")]
    return [_join(tokenizer, segments, prompt_format.kind, max_length) for segments in examples]


def tokenize_pair(
    tokenizer: Any,
    prompt_format: PromptFormat,
    *,
    messages: Sequence[Mapping[str, Any]],
    rejected: Mapping[str, Any],
    max_length: int,
    tools: Sequence[Mapping[str, Any]] | None = None,
) -> TokenizedPair:
    """Tokenize a preference row and cut both of its sides to `max_length` tokens.

    Answers of earlier turns have no labels here: they are the same on either side, so there is nothing to prefer.

    Args:
        tokenizer: The base model's.
        prompt_format: How messages become text.
        messages: A conversation that ends with the chosen answer.
        rejected: The other answer to the same messages, a message of the assistant.
        max_length: Tokens of each side.
        tools: Tools that the model may call.

    Raises:
        InvalidDatasetError: The chat template can't render it.
    """
    chosen_row, rejected_row = (
        _join(tokenizer, segments, prompt_format.kind, max_length)
        for segments in pair_segments(tokenizer, prompt_format, messages, rejected, tools=tools)
    )
    return TokenizedPair(chosen_row, rejected_row)


def tokenize_answer(
    tokenizer: Any,
    prompt_format: PromptFormat,
    *,
    messages: Sequence[Mapping[str, Any]],
    max_length: int,
    tools: Sequence[Mapping[str, Any]] | None = None,
) -> TokenizedRow:
    """Tokenize a conversation whose last answer is labelled; those before it have no labels, as in a pair.

    Raises:
        InvalidDatasetError: The chat template can't render it.
    """
    segments = prompt_format.answer_segments(tokenizer, messages, tools=tools)
    return _join(tokenizer, segments, prompt_format.kind, max_length)


def pair_segments(
    tokenizer: Any,
    prompt_format: PromptFormat,
    messages: Sequence[Mapping[str, Any]],
    rejected: Mapping[str, Any],
    *,
    tools: Sequence[Mapping[str, Any]] | None = None,
) -> tuple[list[Segment], list[Segment]]:
    """Both sides of a preference row in pieces: with the chosen answer, and with the rejected one."""
    return (
        prompt_format.answer_segments(tokenizer, messages, tools=tools),
        prompt_format.answer_segments(tokenizer, [*messages[:-1], rejected], tools=tools),
    )


def _join(tokenizer: Any, segments: Sequence[Segment], kind: PromptKind, max_length: int) -> TokenizedRow:
    input_ids: list[int] = []
    labels: list[int] = []
    for segment in segments:
        # Each piece by itself, so that a prompt has the very tokens it has when the model is asked.
        ids = encode(tokenizer, segment.text, is_start=not input_ids, kind=kind)
        input_ids += ids
        labels += ids if segment.is_completion else [IGNORE_INDEX] * len(ids)
    num_cut = max(len(input_ids) - max_length, 0)
    return TokenizedRow(input_ids[:max_length], labels[:max_length], num_cut, segments)
