"""Rows with more than `max_length` tokens, split into several examples that have no more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

from sienn_ray.datasets.prompt import PromptKind
from sienn_ray.datasets.tokenization import TokenizedRow, encode

_Message = dict[str, Any]
# Tokenizes messages to examples, cut to `max_length`.
_Tokenize = Callable[[Sequence[_Message]], list[TokenizedRow]]
_LEADING_ROLES = frozenset({"system", "developer"})


def split_text(tokenizer: Any, whole: TokenizedRow, kind: PromptKind, max_length: int) -> list[TokenizedRow]:
    """Split plain text into stretches of almost equal lengths; every token of it is in one of them.

    Each begins with what the tokenizer puts in front of a text (a BOS, if any), as a prompt does.

    Args:
        tokenizer: The base model's.
        whole: The row, not cut.
        kind: Of its prompt format.
        max_length: Most tokens of a stretch.
    """
    first = whole.segments[0].text
    num_frame = len(encode(tokenizer, first, is_start=True, kind=kind)) - len(
        encode(tokenizer, first, is_start=False, kind=kind)
    )
    frame = whole.input_ids[:num_frame]
    num_own = len(whole.input_ids) - num_frame
    num_pieces = -(-num_own // (max_length - num_frame))
    bounds = [num_own * place // num_pieces for place in range(num_pieces + 1)]
    own_ids, own_labels = whole.input_ids[num_frame:], whole.labels[num_frame:]
    return [
        replace(
            whole,
            input_ids=[*frame, *own_ids[start:stop]],
            labels=[*whole.labels[:num_frame], *own_labels[start:stop]],
            stretch=(start, stop),
        )
        for start, stop in pairwise(bounds)
    ]


def split_conversation(messages: Sequence[_Message], tokenize: _Tokenize) -> list[list[TokenizedRow]] | None:
    """Split a conversation in front of messages of the user, into as few pieces as there is room for.

    Each piece has the system message in front, unless there only is room for the exchange without it. An exchange that
    is too long by itself is a piece that is cut.

    Args:
        messages: The conversation.
        tokenize: Makes examples of a part of it.

    Returns:
        The examples of each piece; None where the conversation is one exchange.
    """
    lead, exchanges = _exchanges(messages)
    if len(exchanges) < 2:
        return None
    pieces = []
    start = 0
    while start < len(exchanges):
        examples, num_taken = _longest(lead, exchanges[start:], tokenize)
        pieces.append(examples)
        start += num_taken
    return pieces


def _exchanges(messages: Sequence[_Message]) -> tuple[list[_Message], list[list[_Message]]]:
    """System messages at the beginning, and the rest in parts that begin where the user speaks again."""
    num_leading = next(
        (place for place, message in enumerate(messages) if message["role"] not in _LEADING_ROLES), len(messages)
    )
    exchanges: list[list[_Message]] = []
    is_answered = True
    for message in messages[num_leading:]:
        if is_answered and (message["role"] == "user" or not exchanges):
            exchanges.append([])
            is_answered = False
        exchanges[-1].append(message)
        is_answered = is_answered or message["role"] == "assistant"
    return list(messages[:num_leading]), exchanges


def _longest(
    lead: list[_Message], exchanges: Sequence[list[_Message]], tokenize: _Tokenize
) -> tuple[list[TokenizedRow], int]:
    """Examples of as many of the first exchanges as there is room for, and how many those are."""
    found = _fitting(lead, exchanges, 1, tokenize)
    if found is None:
        return _of_one(lead, exchanges[0], tokenize), 1
    # Doubled while it fits, then halved in between: each try takes time by its length.
    fits, too_many = 1, len(exchanges) + 1
    while fits + 1 < too_many:
        tried = min(2 * fits, len(exchanges)) if too_many > len(exchanges) else (fits + too_many) // 2
        more = _fitting(lead, exchanges, tried, tokenize)
        if more is None:
            too_many = tried
        else:
            fits, found = tried, more
    return found, fits


def _fitting(
    lead: list[_Message], exchanges: Sequence[list[_Message]], num_exchanges: int, tokenize: _Tokenize
) -> list[TokenizedRow] | None:
    examples = tokenize([*lead, *(message for exchange in exchanges[:num_exchanges] for message in exchange)])
    return None if any(example.num_cut for example in examples) else examples


def _of_one(lead: list[_Message], exchange: list[_Message], tokenize: _Tokenize) -> list[TokenizedRow]:
    """Examples of an exchange that has no room behind the system message: without it, or cut."""
    behind_lead, alone = tokenize([*lead, *exchange]), tokenize(exchange)
    if not any(example.num_cut for example in alone):
        return alone
    return behind_lead if any(example.has_answer for example in behind_lead) else alone
