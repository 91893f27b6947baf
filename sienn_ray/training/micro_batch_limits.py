"""Limits of a micro batch, without what brings torch along."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class MicroBatchLimits:
    """Most that a micro batch may hold; one example may always be alone in one, however many tokens it has.

    Args:
        max_examples: Examples; None is any number.
        max_tokens: Tokens that the base model computes: padding counts, and what rows share counts once. None is any
            number.
    """

    max_examples: int | None = None
    max_tokens: int | None = None

    def __str__(self) -> str:
        """Say the limits in words.

        Example:
            >>> str(MicroBatchLimits(max_examples=4, max_tokens=512))
            'at most 4 row(s) and 512 tokens'
        """
        named = ((self.max_examples, "row(s)"), (self.max_tokens, "tokens"))
        words = [f"{limit} {name}" for limit, name in named if limit is not None]
        return f"at most {' and '.join(words)}" if words else "any number of tokens"

    def tightened(self, other: MicroBatchLimits) -> MicroBatchLimits:
        """Return the limits that keep within these and others.

        Example:
            >>> MicroBatchLimits(max_examples=4, max_tokens=512).tightened(MicroBatchLimits(max_tokens=100))
            MicroBatchLimits(max_examples=4, max_tokens=100)
        """
        return MicroBatchLimits(
            _lower(self.max_examples, other.max_examples), _lower(self.max_tokens, other.max_tokens)
        )


NO_LIMITS = MicroBatchLimits()


def _lower(first: int | None, second: int | None) -> int | None:
    return min((limit for limit in (first, second) if limit is not None), default=None)
