"""Incremental detokenization: whole characters of tokens that come one by one, at a constant cost for each.

Decoding all tokens at each step would cost the square of their number, and decoding each on its own is wrong: a token
may be a part of a character, and sentencepiece writes a token differently at the start of a text.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from typing import Protocol

from sienn_ray.inference.text.vocabulary import Vocabulary

_REPLACEMENT = "\ufffd"


class Detokenizer(Protocol):
    """Turns tokens into pieces of text, together the text of all tokens decoded at once, special ones skipped."""

    def push(self, token_id: int) -> str:
        """Add a token; return the characters that no later token can change any more."""
        ...

    def flush(self) -> str:
        """End the text; return its remaining characters."""
        ...


def detokenizer(vocabulary: Vocabulary, behind: Sequence[int] = ()) -> Detokenizer:
    """Build the detokenizer of a tokenizer's kind.

    Args:
        vocabulary: The tokenizer's.
        behind: Tokens that the new ones go on from; without any, they stand at the start of a text.
    """
    return ByteLevelDetokenizer(vocabulary) if vocabulary.is_byte_level else WindowDetokenizer(vocabulary, behind)


class ByteLevelDetokenizer:
    """Detokenizer of byte-level BPE: the text is the UTF-8 of all tokens' bytes, U+FFFD for each invalid part."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token_id: int) -> str:
        """See `Detokenizer`."""
        return self._decoder.decode(self._vocabulary.token_bytes(token_id))

    def flush(self) -> str:
        """See `Detokenizer`."""
        return self._decoder.decode(b"", final=True)


class WindowDetokenizer:
    """Detokenizer of every other tokenizer: decodes new tokens behind a few old ones, whose text is cut off again.

    The old tokens keep the new ones from standing at the start of a text. A run of tokens for single bytes waits for
    its end: sentencepiece writes U+FFFD for all of its bytes if a later one makes the run invalid.
    """

    def __init__(self, vocabulary: Vocabulary, behind: Sequence[int] = ()) -> None:
        self._vocabulary = vocabulary
        self._old = [token_id for token_id in behind if vocabulary.is_text(token_id)]
        self._old_text = vocabulary.decode(self._old) if self._old else ""
        self._new: list[int] = []

    def push(self, token_id: int) -> str:
        """See `Detokenizer`."""
        # A token without text would be no start for the window.
        if not self._vocabulary.is_text(token_id):
            return ""
        self._new.append(token_id)
        if self._vocabulary.is_single_byte(token_id):
            return ""
        text = self._vocabulary.decode(self._old + self._new)
        return "" if text.endswith(_REPLACEMENT) else self._advance(text)

    def flush(self) -> str:
        """See `Detokenizer`."""
        return self._advance(self._vocabulary.decode(self._old + self._new)) if self._new else ""

    def _advance(self, text: str) -> str:
        fresh = text[len(self._old_text) :]
        self._old, self._new = self._new, []
        self._old_text = self._vocabulary.decode(self._old)
        return fresh
