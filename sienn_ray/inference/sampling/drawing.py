"""Draws of tokens from logits, many rows at a time, each by its own parameters and its own random number."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from sienn_ray.inference.engine import SamplingParams
from sienn_ray.inference.sampling.candidates import (
    BLOCK_TOKENS,
    Floats,
    Ids,
    blocks,
    take_blocks,
    ties_by_id,
    top_candidates,
    unread_candidates,
)
from sienn_ray.inference.sampling.rounds import Reading
from sienn_ray.inference.sampling.truncation import UNKNOWN_MASS, Doubles, Kept, Limits, draw, keep
from sienn_ray.inference.transfers import fetch, to_device

# So many of the likeliest tokens reach a top_p of 0.95 at a temperature of 0.7 at 19 of 20 steps of SmolLM2-135M. Where
# they don't, the row is sorted as far as it has to be: right as well, but slower.
NUM_CANDIDATES = 64
# Up to that a top_k is met by more candidates; beyond, by the sort.
_MAX_CANDIDATES = 256


def draw_from_all(logits: torch.Tensor, params: Sequence[SamplingParams], uniforms: Doubles) -> Reading[list[int]]:
    """Draw from the whole vocabulary: a block by the blocks' probabilities, then a token of that block.

    Args:
        logits: (rows, vocab), padded; overwritten.
        params: One a row; their temperatures are used.
        uniforms: (rows,), in [0, 1).
    """
    probabilities = heat(logits, params).softmax(-1)  # (rows, vocab)
    (sums,) = yield [blocks(probabilities).sum(-1)]
    by_block = sums.astype(np.float64).cumsum(1)  # (rows, blocks)
    points = uniforms * by_block[:, -1]
    chosen = np.count_nonzero(by_block <= points[:, None], axis=1)[:, None]  # (rows, 1)
    upper = np.take_along_axis(by_block, chosen, 1)[:, 0]
    lower = np.where(chosen[:, 0] > 0, np.take_along_axis(by_block, np.maximum(chosen - 1, 0), 1)[:, 0], 0.0)
    # What is left of the random number once the block is known; below 1, so that no token of probability 0 is hit.
    rest = np.minimum((points - lower) / (upper - lower), 1 - 2.0**-53)
    (block,) = yield [take_blocks(probabilities, to_device(torch.from_numpy(chosen), logits.device))[:, 0]]
    inside = block.astype(np.float64).cumsum(1)  # (rows, BLOCK_TOKENS)
    offsets = np.count_nonzero(inside <= (rest * inside[:, -1])[:, None], axis=1)
    ids: list[int] = (chosen[:, 0] * BLOCK_TOKENS + offsets).tolist()
    return ids


def draw_from_likeliest(
    logits: torch.Tensor, params: Sequence[SamplingParams], uniforms: Doubles, *, num_candidates: int = NUM_CANDIDATES
) -> Reading[list[int]]:
    """Draw from the tokens that top-k, top-p and min-p leave.

    Args:
        logits: (rows, vocab), padded; overwritten.
        params: One a row.
        uniforms: (rows,), in [0, 1).
        num_candidates: Likeliest tokens that are tried before a row is sorted.
    """
    scores = heat(logits, params)
    limits = Limits.of(params)
    # One more than the largest top_k, to tell whether others tie with its last.
    widest = min(max(row.top_k for row in params) + 1, _MAX_CANDIDATES)
    unread = [*unread_candidates(scores, max(num_candidates, widest)), *_likeliest_shares(scores, limits)]
    values, ids, *shares = yield unread
    values, ids = ties_by_id(values, ids)
    total_mass = _total_mass(shares, len(scores))
    kept = keep(values, total_mass, limits, is_complete=values.shape[1] == scores.shape[1])
    chosen: list[int] = np.take_along_axis(ids, draw(kept, uniforms)[:, None], 1)[:, 0].tolist()
    # A row without numbers, as of a broken adapter, gets some token: it must not end the step for the others.
    for number in np.flatnonzero(~kept.settled & np.isfinite(values[:, 0])).tolist():
        one = slice(number, number + 1)
        reach = float(values[number, 0] - values[number, -1])
        row_kept, row_ids = keep_sorted(scores[one], total_mass[one], limits.row(number), reach=reach)
        chosen[number] = int(row_ids[draw(row_kept, uniforms[one])[0]])
    return chosen


def heat(logits: torch.Tensor, params: Sequence[SamplingParams]) -> torch.Tensor:
    """Divide each row's logits by its temperature, in place."""
    temperatures = [row.temperature for row in params]
    if all(temperature == 1 for temperature in temperatures):
        return logits
    divisors = to_device(torch.tensor(temperatures, dtype=torch.float32), logits.device)
    return logits.div_(divisors[:, None])


def find_total_mass(scores: torch.Tensor, limits: Limits) -> Doubles:
    """Return the sum of exp(score - largest score) of each row, (rows,); UNKNOWN_MASS if no row needs it."""
    return _total_mass(fetch(_likeliest_shares(scores, limits)), len(scores))


def _likeliest_shares(scores: torch.Tensor, limits: Limits) -> list[torch.Tensor]:
    """Compute the likeliest tokens' probabilities, (rows,), on the device; none if no row needs its mass.

    Softmax reads and writes a row once while it is in the cache, which exp and sum one after the other would not.
    """
    is_needed = ((limits.top_p < 1) & (limits.top_k == 0)).any()
    return [scores.softmax(-1).amax(-1)] if is_needed else []


def _total_mass(shares: Sequence[Floats], num_rows: int) -> Doubles:
    return 1.0 / shares[0].astype(np.float64) if shares else np.full(num_rows, UNKNOWN_MASS)


def keep_sorted(scores: torch.Tensor, total_mass: Doubles, limits: Limits, *, reach: float = 0.0) -> tuple[Kept, Ids]:
    """Apply the rules to a single row, sorted as far as they could keep tokens.

    Args:
        scores: (1, vocab), divided by the temperature.
        total_mass: (1,), see `keep`.
        limits: Of that row.
        reach: Distance below the largest score that is known to be too short; changes the speed only.

    Returns:
        What is kept, and the ids of its candidates.
    """
    # On the host, where picking some hundred of many numbers is quicker than by torch, and a row is quickly moved.
    row: Floats = scores[0].cpu().numpy()  # (vocab,)
    top_k, top_p, min_p = int(limits.top_k[0]), float(limits.top_p[0]), float(limits.min_p[0])
    if top_k:
        lowest = float(top_candidates(scores, top_k)[0][0, -1])
    elif top_p < 1:
        lowest = _lowest_of_nucleus(row, top_p, float(total_mass[0]), reach)
    else:
        # Half, to be on the safe side of rounding.
        lowest = float(row.max()) + math.log(min_p / 2)
    ids = np.flatnonzero(row >= lowest)
    ids = ids[np.argsort(-row[ids], kind="stable")]
    return keep(row[None, ids], total_mass, limits, is_complete=True), ids


def _lowest_of_nucleus(row: Floats, top_p: float, total_mass: float, reach: float) -> float:
    """Return a score below which top-p keeps no token, close enough to leave little to sort."""
    largest = float(row.max())
    # If each token left out has less than half of the vocabulary's share of what top-p drops, all of them have less.
    lowest = largest + math.log((1 - top_p) * total_mass / len(row) / 2)
    gap = reach + 1.0
    while largest - gap > lowest:
        mass = np.exp(row[row >= largest - gap].astype(np.float64) - largest).sum()
        # A little more than needed, since rounding differs with the order of a sum.
        if mass > top_p * total_mass * (1 + 1e-9):
            return largest - gap
        gap += 1.0
    return lowest
