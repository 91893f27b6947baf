"""The text of an example's tokens: which characters each token is of, and what becomes of them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Any

from sienn_ray.datasets.literal_text import special_strings
from sienn_ray.datasets.prompt import PromptKind
from sienn_ray.datasets.rendered_schema import Cut, LearnedSpan, SpecialToken
from sienn_ray.datasets.tokenization import IGNORE_INDEX, TokenizedRow, encode_parts

# Of each kind, in one example.
_MAX_MARKS = 1_000


@dataclass(frozen=True)
class _Token:
    """A token: its id, its characters, and the number of the segment that they are of."""

    id: int
    start: int
    end: int
    segment: int


@dataclass(frozen=True)
class TokenText:
    """The text of an example.

    Args:
        tokenizer: The base model's.
        text: The characters of all tokens, those that are cut off as well.
        tokens: The tokens, those that are cut off as well.
        example: The example that they are of.
    """

    tokenizer: Any
    text: str
    tokens: Sequence[_Token]
    example: TokenizedRow

    @classmethod
    def of(cls, tokenizer: Any, example: TokenizedRow, kind: PromptKind) -> TokenText:
        """Find the characters of each token, by encoding the example's text once more as training does."""
        text, tokens = "", list[_Token]()
        for number, segment in enumerate(example.segments):
            for part, ids in encode_parts(tokenizer, segment.text, is_start=not tokens, kind=kind):
                num_frame, bounds = _bounds(tokenizer, part, ids)
                for token_id in ids[:num_frame]:
                    string = str(tokenizer.convert_ids_to_tokens(token_id))
                    tokens.append(_Token(token_id, len(text), len(text) + len(string), number))
                    text += string
                tokens += [
                    _Token(token_id, len(text) + start, len(text) + end, number)
                    for token_id, (start, end) in zip(ids[num_frame:], bounds, strict=True)
                ]
                text += part
        whole = cls(tokenizer, text, tokens, example)
        return whole if example.stretch is None else whole._of_stretch(*example.stretch)

    def _of_stretch(self, first: int, stop: int) -> TokenText:
        """The part of a split text that its example has."""
        num_frame = len(self.example.input_ids) - (stop - first)
        first, stop = num_frame + first, num_frame + stop
        frame, own = self.tokens[:num_frame], self.tokens[first:stop]
        frame_end = frame[-1].end if frame else 0
        start, end = self._edge(first), self._edge(stop)
        moved = frame_end - start
        tokens = [*frame, *(_Token(each.id, each.start + moved, each.end + moved, each.segment) for each in own)]
        return TokenText(self.tokenizer, self.text[:frame_end] + self.text[start:end], tokens, self.example)

    def _edge(self, place: int) -> int:
        """The character at which a token begins, with the blanks in front of it that some tokenizers don't count."""
        if place >= len(self.tokens):
            return len(self.text)
        if place == 0:
            return 0
        return min(self.tokens[place - 1].end, self.tokens[place].start)

    @property
    def cut(self) -> Cut | None:
        """The end of what the model reads, if that is before the end of the text."""
        num_kept = len(self.example.input_ids)
        if not self.example.num_cut:
            return None
        return Cut(self._edge(num_kept), self.example.num_cut)

    def learned_spans(self, max_chars: int) -> tuple[LearnedSpan, ...]:
        """Find what the model has to produce, as far as it begins within some characters."""
        found = []
        labels = self.example.labels
        for is_learned, group in groupby(range(len(labels)), key=lambda place: labels[place] != IGNORE_INDEX):
            places = list(group)
            start, end = self._edge(places[0]), self._edge(places[-1] + 1)
            if is_learned and start < max_chars:
                # The first token of a row is never predicted.
                found.append(LearnedSpan(start, end, len(places) - (places[0] == 0)))
        return tuple(found[:_MAX_MARKS])

    def special_tokens(self, max_chars: int) -> tuple[SpecialToken, ...]:
        """Special tokens, and their strings where they are text, as far as they begin within some characters."""
        found = [mark for mark in (*self._controls(), *self._literals()) if mark.start < max_chars]
        return tuple(sorted(found, key=lambda mark: mark.start)[:_MAX_MARKS])

    def _controls(self) -> Iterator[SpecialToken]:
        ids = _special_ids(self.tokenizer)
        for token in self.tokens:
            if token.id in ids:
                yield SpecialToken(token.start, token.end, self.text[token.start : token.end], is_control=True)

    def _literals(self) -> Iterator[SpecialToken]:
        strings = special_strings(self.tokenizer)
        if not strings:
            return
        controls = {mark.start for mark in self._controls()}
        pattern = "|".join(re.escape(each) for each in sorted(strings, key=lambda string: (-len(string), string)))
        for match in re.finditer(pattern, self.text):
            if match.start() not in controls:
                yield SpecialToken(match.start(), match.end(), match[0], is_control=False)


def _special_ids(tokenizer: Any) -> frozenset[int]:
    added = getattr(tokenizer, "added_tokens_decoder", {}).items()
    return frozenset(number for number, token in added if token.special) | frozenset(tokenizer.all_special_ids)


def _bounds(tokenizer: Any, part: str, ids: list[int]) -> tuple[int, list[tuple[int, int]]]:
    """How many tokens the tokenizer puts in front of a text, and the characters of each of the others."""
    if getattr(tokenizer, "is_fast", False):
        own = tokenizer(part, add_special_tokens=False, return_offsets_mapping=True)
        num_frame = len(ids) - len(own["input_ids"])
        if num_frame >= 0 and own["input_ids"] == ids[num_frame:]:
            return num_frame, [(int(start), int(end)) for start, end in own["offset_mapping"]]
    # Some tokenizers don't tell characters: they are shared out evenly then.
    num_own = len(tokenizer(part, add_special_tokens=False)["input_ids"])
    edges = [len(part) * place // max(num_own, 1) for place in range(num_own + 1)]
    return len(ids) - num_own, list(pairwise(edges))
