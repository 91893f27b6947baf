"""Measures of a single row: its characters, its tokens, and a hash to know it again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sienn_ray.datasets.prompt import PromptFormat, Segment
from sienn_ray.datasets.stored_rows import StoredRow
from sienn_ray.datasets.tokenization import encode, pair_segments

HASH_BYTES = 16


@dataclass(frozen=True, slots=True)
class RowMeasure:
    """Numbers of one row as training sees it, before it is cut.

    Tokens of a preference row are those of its longer side, which tells what `max_length` it needs. So it is where each
    answer of a conversation is an example of its own, but for the tokens to produce, which are those of all examples.

    Args:
        num_chars: Characters of the row itself, both answers included, without what the chat template adds.
        num_prompt_tokens: Tokens that the model reads.
        num_completion_tokens: Tokens that it has to produce.
        is_dropped: Whether nothing is left to produce once the row is cut to the maximum length.
        hash: Of the content, `HASH_BYTES` long; equal rows have equal hashes.
    """

    num_chars: int
    num_prompt_tokens: int
    num_completion_tokens: int
    is_dropped: bool
    hash: bytes


def measure_row(
    tokenizer: Any,
    prompt_format: PromptFormat,
    row: StoredRow,
    *,
    max_length: int,
) -> RowMeasure:
    """Measure a row.

    Raises:
        InvalidDatasetError: The chat template can't render it.
    """
    sides = [
        _num_tokens(tokenizer, prompt_format, segments, max_length)
        for segments in sides_of(tokenizer, prompt_format, row)
    ]
    # A conversation of weights 0 has no examples.
    num_prompt, num_completion, _ = max(sides, key=lambda side: side[0] + side[1], default=(0, 0, True))
    is_pair = row.rejected is not None
    if not is_pair:
        # What an example has to produce is read by those behind it.
        num_tokens, num_completion = num_prompt + num_completion, sum(side[1] for side in sides)
        num_prompt = max(num_tokens - num_completion, 0)
    strings = _strings(row)
    return RowMeasure(
        num_chars=sum(len(string) for _, string in strings),
        num_prompt_tokens=num_prompt,
        num_completion_tokens=num_completion,
        is_dropped=(any if is_pair else all)(is_dropped for _, _, is_dropped in sides),
        hash=_hash(strings),
    )


def sides_of(tokenizer: Any, prompt_format: PromptFormat, row: StoredRow) -> Sequence[Sequence[Segment]]:
    """Return what the model reads of a row, in pieces: one sequence or several, or two that are compared.

    Raises:
        InvalidDatasetError: The chat template can't render it.
    """
    if row.messages is None:
        return [prompt_format.text_segments(tokenizer, row.text or "")]
    prompt_format = prompt_format.for_row(row.chat_template_kwargs)
    if row.rejected is None:
        return prompt_format.examples(tokenizer, row.messages, tools=row.tools)
    return pair_segments(tokenizer, prompt_format, row.messages, row.rejected, tools=row.tools)


def _strings(row: StoredRow) -> list[tuple[str, str]]:
    """All that a row says, each with who says it."""
    if row.messages is None:
        return [("", row.text or "")]
    said = [each for message in row.messages for each in _message_strings(message["role"], message)]
    if row.rejected is not None:
        said += _message_strings("rejected", row.rejected)
    others = {"tools": row.tools, "chat_template_kwargs": row.chat_template_kwargs, "label": row.label}
    return said + [(name, json.dumps(value, ensure_ascii=False)) for name, value in others.items() if value is not None]


def _message_strings(speaker: str, message: Mapping[str, Any]) -> list[tuple[str, str]]:
    fields = {key: value for key, value in message.items() if key not in {"role", "content"}}
    others = [
        (f"{speaker}/{key}", value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
        for key, value in fields.items()
    ]
    return [(speaker, message["content"]), *others]


def _num_tokens(
    tokenizer: Any, prompt_format: PromptFormat, segments: Sequence[Segment], max_length: int
) -> tuple[int, int, bool]:
    """Prompt tokens, completion tokens, and whether no completion token is among the first `max_length`.

    Pieces are encoded as `tokenization.tokenize_row` and `tokenize_pair` do it.
    """
    num_tokens, num_completion, first_completion = 0, 0, None
    for segment in segments:
        length = len(encode(tokenizer, segment.text, is_start=num_tokens == 0, kind=prompt_format.kind))
        if segment.is_completion:
            # The first token of a row is never predicted.
            start = max(num_tokens, 1)
            if first_completion is None and start < num_tokens + length:
                first_completion = start
            num_completion += length
        num_tokens += length
    is_dropped = first_completion is None or first_completion >= max_length
    return num_tokens - num_completion, num_completion, is_dropped


def _hash(strings: Sequence[tuple[str, str]]) -> bytes:
    digest = hashlib.blake2b(digest_size=HASH_BYTES)
    for role, string in strings:
        content = string.encode()
        # With its length, so that no two rows run together into the same bytes.
        digest.update(f"{role}:{len(content)}:".encode() + content)
    return digest.digest()
