"""Drawing tokens from logits, many rows at a time, each by its own parameters and its own random number."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from sienn_ray.inference.candidates import BLOCK_TOKENS, Floats, Ids, blocks, take_blocks, top_candidates
from sienn_ray.inference.engine import SamplingParams
from sienn_ray.inference.truncation import UNKNOWN_MASS, Doubles, Kept, Limits, draw, keep

# So many of the likeliest tokens reach a top_p of 0.95 at most steps of most texts. Where they don't, or where a top_k
# is larger, the row is sorted as far as it has to be: right as well, but slower.
NUM_CANDIDATES = 128


def draw_from_all(logits: torch.Tensor, params: Sequence[SamplingParams], uniforms: Doubles) -> list[int]:
    """Draw from the whole vocabulary: a block by the blocks' probabilities, then a token of that block.

    Args:
        logits: (rows, vocab), padded; overwritten.
        params: One a row; their temperatures are used.
        uniforms: (rows,), in [0, 1).
    """
    probabilities = heat(logits, params).softmax(-1)  # (rows, vocab)
    by_block = blocks(probabilities).sum(-1).cpu().numpy().astype(np.float64).cumsum(1)  # (rows, blocks)
    points = uniforms * by_block[:, -1]
    chosen = np.count_nonzero(by_block <= points[:, None], axis=1)[:, None]  # (rows, 1)
    upper = np.take_along_axis(by_block, chosen, 1)[:, 0]
    lower = np.where(chosen[:, 0] > 0, np.take_along_axis(by_block, np.maximum(chosen - 1, 0), 1)[:, 0], 0.0)
    # What is left of the random number once the block is known; below 1, so that no token of probability 0 is hit.
    rest = np.minimum((points - lower) / (upper - lower), 1 - 2.0**-53)
    block = take_blocks(probabilities, torch.from_numpy(chosen).to(logits.device))[:, 0]
    inside = block.cpu().numpy().astype(np.float64).cumsum(1)  # (rows, BLOCK_TOKENS)
    offsets = np.count_nonzero(inside <= (rest * inside[:, -1])[:, None], axis=1)
    ids: list[int] = (chosen[:, 0] * BLOCK_TOKENS + offsets).tolist()
    return ids


def draw_from_likeliest(
    logits: torch.Tensor, params: Sequence[SamplingParams], uniforms: Doubles, *, num_candidates: int = NUM_CANDIDATES
) -> list[int]:
    """Draw from what top-k, top-p and min-p leave.

    Args:
        logits: (rows, vocab), padded; overwritten.
        params: One a row.
        uniforms: (rows,), in [0, 1).
        num_candidates: How many of the likeliest tokens are looked at before a row is sorted.
    """
    scores = heat(logits, params)
    limits = Limits.of(params)
    values, ids = top_candidates(scores, num_candidates)
    total_mass = find_total_mass(scores, limits)
    kept = keep(values, total_mass, limits, is_complete=values.shape[1] == scores.shape[1])
    chosen: list[int] = np.take_along_axis(ids, draw(kept, uniforms)[:, None], 1)[:, 0].tolist()
    for number in np.flatnonzero(~kept.settled).tolist():
        one = slice(number, number + 1)
        row_kept, row_ids = keep_sorted(scores[number], total_mass[one], limits.row(number))
        chosen[number] = int(row_ids[draw(row_kept, uniforms[one])[0]])
    return chosen


def heat(logits: torch.Tensor, params: Sequence[SamplingParams]) -> torch.Tensor:
    """Divide each row's logits by its temperature, in place."""
    temperatures = [row.temperature for row in params]
    if all(temperature == 1 for temperature in temperatures):
        return logits
    return logits.div_(torch.tensor(temperatures, dtype=torch.float32, device=logits.device)[:, None])


def find_total_mass(scores: torch.Tensor, limits: Limits) -> Doubles:
    """(rows,): the sum of exp(score - largest score); UNKNOWN_MASS if no row needs it.

    Softmax reads and writes a row once while it is in the cache, which exp and sum one after the other would not.
    """
    if not ((limits.top_p < 1) & (limits.top_k == 0)).any():
        return np.full(len(scores), UNKNOWN_MASS)
    return 1.0 / scores.softmax(-1).amax(-1).cpu().numpy().astype(np.float64)


def keep_sorted(scores: torch.Tensor, total_mass: Doubles, limits: Limits) -> tuple[Kept, Ids]:
    """Apply the rules to all of a single row that they could keep.

    Args:
        scores: (vocab,), divided by the temperature.
        total_mass: (1,), see `keep`.
        limits: Of that row.

    Returns:
        What is kept, and the ids of its candidates.
    """
    ids = (scores >= _lowest_score(scores, total_mass, limits)).nonzero()[:, 0]
    values, order = scores[ids].sort(descending=True, stable=True)
    row: Floats = values.cpu().numpy()[None]
    return keep(row, total_mass, limits, is_complete=True), ids[order].cpu().numpy()


def _lowest_score(scores: torch.Tensor, total_mass: Doubles, limits: Limits) -> float:
    """A score below which no token of the row is kept."""
    top_k, top_p, min_p = int(limits.top_k[0]), float(limits.top_p[0]), float(limits.min_p[0])
    if top_k:
        return float(scores.topk(min(top_k, len(scores))).values[-1])
    # If each token left out has less than the vocabulary's share of what top-p drops, all of them have less than that.
    # Half of it, and half of min-p's, is on the safe side of rounding.
    mass = (1 - top_p) * float(total_mass[0]) / len(scores) if top_p < 1 else min_p
    return float(scores.max()) + float(np.log(mass / 2))
