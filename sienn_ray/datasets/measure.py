"""What a single row weighs: its characters, its tokens, and a hash to know it again."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sienn_ray.datasets.prompt import PromptFormat, Segment
from sienn_ray.datasets.tokenization import encode

HASH_BYTES = 16


@dataclass(frozen=True, slots=True)
class RowMeasure:
    """Numbers of one row as training sees it, before it is cut.

    Args:
        num_chars: Characters of the row itself, without what the chat template adds.
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
    *,
    messages: Sequence[Mapping[str, str]] | None,
    text: str | None,
    max_length: int,
) -> RowMeasure:
    """Measure a canonical row.

    Raises:
        InvalidDatasetError: The chat template can't render it.
    """
    strings = [text or ""] if messages is None else [message["content"] for message in messages]
    if messages is None:
        segments = prompt_format.text_segments(tokenizer, text or "")
    else:
        segments = prompt_format.segments(tokenizer, messages)
    num_prompt, num_completion, is_dropped = _num_tokens(tokenizer, prompt_format, segments, max_length)
    roles = [""] if messages is None else [message["role"] for message in messages]
    return RowMeasure(sum(map(len, strings)), num_prompt, num_completion, is_dropped, _hash(roles, strings))


def _num_tokens(
    tokenizer: Any, prompt_format: PromptFormat, segments: Sequence[Segment], max_length: int
) -> tuple[int, int, bool]:
    """Prompt tokens, completion tokens, and whether no completion token is among the first `max_length`.

    Pieces are encoded as `tokenization.tokenize_row` does it.
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


def _hash(roles: Sequence[str], strings: Sequence[str]) -> bytes:
    digest = hashlib.blake2b(digest_size=HASH_BYTES)
    for role, string in zip(roles, strings, strict=True):
        content = string.encode()
        # With its length, so that no two rows run together into the same bytes.
        digest.update(f"{role}:{len(content)}:".encode() + content)
    return digest.digest()
