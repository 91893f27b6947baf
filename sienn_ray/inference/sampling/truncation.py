"""Top-k, top-p and min-p on sorted candidates, and the draw among the tokens that they leave.

Tokens come sorted from the likeliest down, so each rule keeps a prefix. The rules and their order are those of
transformers' `TopKLogitsWarper`, `TopPLogitsWarper` and `MinPLogitsWarper`: top-k keeps ties with its last token, top-p
counts shares of what top-k has left, and one token stays at the least.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sienn_ray.inference.engine import SamplingParams

Doubles = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]

# Stands for a mass that isn't known: no share of it is ever reached. Infinity times a top_p of 0 were not a number.
UNKNOWN_MASS = np.finfo(np.float64).max


class Limits(NamedTuple):
    """The rules of several rows, each (rows,)."""

    top_k: Counts
    top_p: Doubles
    min_p: Doubles

    @classmethod
    def of(cls, params: Sequence[SamplingParams]) -> Limits:
        """Gather the limits of all rows' parameters."""
        return cls(
            np.array([row.top_k for row in params], np.int64),
            np.array([row.top_p for row in params], np.float64),
            np.array([row.min_p for row in params], np.float64),
        )

    def row(self, number: int) -> Limits:
        """Return the limits of a single row, each (1,)."""
        one = slice(number, number + 1)
        return Limits(self.top_k[one], self.top_p[one], self.min_p[one])


class Kept(NamedTuple):
    """The tokens that the rules leave of each row.

    `num` (rows,) is the length of the prefix, `settled` (rows,) whether tokens that weren't given could change it, and
    `cumulative` (rows, candidates) the summed weights, the likeliest token's being 1.
    """

    num: Counts
    settled: npt.NDArray[np.bool_]
    cumulative: Doubles


def keep(scores: npt.NDArray[np.float32], total_mass: Doubles, limits: Limits, *, is_complete: bool) -> Kept:
    """Apply the rules to the likeliest tokens of each row.

    Args:
        scores: (rows, candidates), logits divided by the temperature, from the largest down.
        total_mass: (rows,), the sum of exp(score - largest score) over the whole vocabulary, or UNKNOWN_MASS; used by
            rows that have a top_p and no top_k.
        limits: The rows' rules.
        is_complete: No token outside of `scores` could be kept.
    """
    num_candidates = scores.shape[1]
    weights = np.exp(scores.astype(np.float64) - scores[:, :1])  # (rows, candidates)
    cumulative = weights.cumsum(1)
    # Of those that equal the last one, others may be missing here, so a cut among them would be chance.
    num_certain = np.full(len(scores), num_candidates) if is_complete else _count(scores > scores[:, -1:])
    num = num_certain.copy()

    has_top_k = limits.top_k > 0
    rank = np.clip(limits.top_k, 1, num_candidates)[:, None] - 1
    num_top_k = _count(scores >= np.take_along_axis(scores, rank, 1))
    num = np.where(has_top_k, np.minimum(num, num_top_k), num)
    is_top_k_here = has_top_k & (is_complete | ((num_top_k <= num_certain) & (limits.top_k <= num_candidates)))
    top_k_mass = np.take_along_axis(cumulative, num_top_k[:, None] - 1, 1)[:, 0]
    total_mass = np.where(has_top_k, np.where(is_top_k_here, top_k_mass, UNKNOWN_MASS), total_mass)

    # A token stays while those before it don't reach the share, which is transformers' sum from the unlikeliest up.
    before = np.zeros_like(cumulative)
    before[:, 1:] = cumulative[:, :-1]
    num_top_p = _count(before < (limits.top_p * total_mass)[:, None])
    num = np.where(limits.top_p < 1, np.minimum(num, num_top_p), num)

    num = np.minimum(num, _count(weights >= limits.min_p[:, None]))
    # A top-p that can't be applied might have kept fewer than the cut of another rule.
    is_applied = (limits.top_p >= 1) | (total_mass < UNKNOWN_MASS)
    settled = is_complete | is_top_k_here | ((num < num_certain) & is_applied)
    return Kept(np.maximum(num, 1), settled, cumulative)


def draw(kept: Kept, uniforms: Doubles) -> Counts:
    """Draw one of each row's kept tokens by the inverse of their cumulative distribution.

    Args:
        kept: The result of `keep`.
        uniforms: (rows,), in [0, 1).

    Returns:
        (rows,), positions among the candidates.
    """
    mass = np.take_along_axis(kept.cumulative, kept.num[:, None] - 1, 1)
    return np.minimum(_count(kept.cumulative <= uniforms[:, None] * mass), kept.num - 1)


def _count(mask: npt.NDArray[np.bool_]) -> Counts:
    counts: Counts = np.count_nonzero(mask, axis=1)
    return counts
