"""The marks of a chat template that end an answer, beside the end of sequence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sienn_ray.datasets.chat_turns import turns_of
from sienn_ray.datasets.prompt import PromptFormat
from sienn_ray.errors import ExportError


@dataclass(frozen=True)
class TurnEnds:
    """The marks that end an answer: a model that writes one has begun another turn.

    Args:
        token_ids: Special tokens.
        strings: Marks that are text to the tokenizer.
    """

    token_ids: frozenset[int] = frozenset()
    strings: tuple[str, ...] = ()

    @classmethod
    def of(cls, prompt_format: PromptFormat, tokenizer: Any) -> TurnEnds:
        """Find the marks around the turns of a chat template.

        Plain text has none. Nor are there any of a template that does more than putting strings around messages: what
        stands around its turns may well stand within an answer.
        """
        try:
            turns = turns_of(prompt_format, tokenizer)
        except ExportError:
            return cls()
        if turns is None:
            return cls()
        special = {token.content: id_ for id_, token in tokenizer.added_tokens_decoder.items() if token.special}
        starts = (turns.system_start, turns.assistant.before, turns.generation)
        first = [_leading(mark.strip(), special) for mark in (*turns.ends, *starts)]
        strings = (_text(mark, special) for mark in turns.ends)
        return cls(
            frozenset(special[token] for token in first if token is not None),
            tuple(text for text in dict.fromkeys(strings) if text),
        )


def _leading(mark: str, special: dict[str, int]) -> str | None:
    """The special token that a mark begins with; the longest, should one begin another."""
    return max((token for token in special if token and mark.startswith(token)), key=len, default=None)


def _text(mark: str, special: dict[str, int]) -> str:
    """The part of a mark in front of its first special token, which an answer's text doesn't have."""
    ends = [place for token in special if token and (place := mark.find(token)) >= 0]
    return mark[: min(ends, default=len(mark))].strip()
