"""The text of an answer, piece by piece from its tokens."""

from __future__ import annotations

from collections.abc import Sequence

from sienn_ray.inference.text.detokenizer import detokenizer
from sienn_ray.inference.text.stop_strings import StopStrings
from sienn_ray.inference.text.vocabulary import Vocabulary


class TextStream:
    """Turns one request's tokens into pieces of text: whole characters, nothing that may have to be taken back.

    Stop strings are looked for in the text as the model writes it, white space included.

    Args:
        vocabulary: Of the base model's tokenizer.
        stop: Strings that end the answer and are no part of it.
        strip: Drop white space at the answer's start and end; within it, white space waits for what follows.
        behind: Last tokens of a text that this one goes on with, so that white space at its start parts the two.
    """

    def __init__(
        self, vocabulary: Vocabulary, stop: Sequence[str] = (), *, strip: bool = True, behind: Sequence[int] = ()
    ) -> None:
        self._detokenizer = detokenizer(vocabulary, behind)
        self._stop_strings = StopStrings(stop)
        self._strip = strip
        self._goes_on = bool(behind)
        self._space = ""
        self._pieces: list[str] = []

    @property
    def matched_stop(self) -> str | None:
        """The stop string that ended the text; no token adds to it any more."""
        return self._stop_strings.matched

    @property
    def text(self) -> str:
        """The whole text so far."""
        return "".join(self._pieces)

    def push(self, token_id: int) -> str:
        """Add a token; special ones add no text.

        Returns:
            The text that no later token can change, often "".
        """
        return self._give(self._stop_strings.push(self._detokenizer.push(token_id)))

    def flush(self) -> str:
        """End the text; tokens must not follow.

        Returns:
            The text that was held back. Bytes that are no whole character become U+FFFD, as in the tokenizer's
            `decode`.
        """
        rest = self._stop_strings.push(self._detokenizer.flush())
        return self._give(rest + self._stop_strings.flush())

    def _give(self, text: str) -> str:
        if self._strip and text:
            text = self._without_outer_space(text)
        if text:
            self._pieces.append(text)
        return text

    def _without_outer_space(self, text: str) -> str:
        body = text.rstrip()
        if not body:
            self._space += text
            return ""
        given = self._space + body if self._pieces or self._goes_on else body.lstrip()
        self._space = text[len(body) :]
        return given
