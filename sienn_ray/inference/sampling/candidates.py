"""The largest entries of long rows, without a sort of the whole row.

A row is cut into blocks of equal length. An entry among the n largest is in one of the n blocks with the largest
maxima, since every other block's maximum is below n entries at least. So one pass for the blocks' maxima is all that
touches the whole row; what remains is a selection among few.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from sienn_ray.inference.sampling.rounds import Reading
from sienn_ray.inference.transfers import fetch, to_device

BLOCK_TOKENS = 64

Floats = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]


def padded(logits: torch.Tensor) -> torch.Tensor:
    """Pad rows to whole blocks with entries that are never chosen; rows of whole blocks stay as they are.

    Args:
        logits: (rows, vocab).

    Returns:
        (rows, vocab rounded up to BLOCK_TOKENS), contiguous.
    """
    missing = -logits.shape[1] % BLOCK_TOKENS
    return torch.nn.functional.pad(logits, (0, missing), value=-torch.inf) if missing else logits.contiguous()


def rows_of(logits: torch.Tensor, numbers: Sequence[int]) -> torch.Tensor:
    """Return a copy of some rows."""
    return logits.index_select(0, to_device(torch.tensor(numbers), logits.device))


def blocks(rows: torch.Tensor) -> torch.Tensor:
    """View (rows, vocab) as (rows, blocks, BLOCK_TOKENS)."""
    return rows.view(rows.shape[0], -1, BLOCK_TOKENS)


def take_blocks(rows: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """Gather of each row the blocks in the same row of `chosen`, (rows, n), to (rows, n, BLOCK_TOKENS)."""
    num_rows, vocab = rows.shape
    num_blocks = vocab // BLOCK_TOKENS
    starts = torch.arange(0, num_rows * num_blocks, num_blocks, device=rows.device)
    flat = (chosen + starts[:, None]).flatten()
    return rows.view(-1, BLOCK_TOKENS).index_select(0, flat).view(num_rows, -1, BLOCK_TOKENS)


def largest(scores: torch.Tensor) -> Reading[list[int]]:
    """Return the likeliest token of each row, the first one among equals, as `argmax` does.

    Args:
        scores: (rows, vocab), padded.
    """
    chosen = blocks(scores).amax(-1).argmax(-1, keepdim=True)  # (rows, 1)
    inside = take_blocks(scores, chosen)[:, 0].argmax(-1)
    (found,) = yield [chosen[:, 0] * BLOCK_TOKENS + inside]
    ids: list[int] = found.tolist()
    return ids


def top_candidates(scores: torch.Tensor, num: int) -> tuple[Floats, Ids]:
    """Return the `num` largest entries of each row.

    Args:
        scores: (rows, vocab), padded.
        num: Upper limit; a shorter row gives all its entries.

    Returns:
        Values and token ids, both (rows, num), from the largest down, equal values by id. If more
        entries equal the last value than fit, any of them are here.
    """
    values, ids = fetch(unread_candidates(scores, num))
    return ties_by_id(values, ids)


def unread_candidates(scores: torch.Tensor, num: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute `top_candidates`, which reads them, on the device; equal values are in any order."""
    num = min(num, scores.shape[1])
    if num * BLOCK_TOKENS >= scores.shape[1]:
        values, ids = scores.topk(num)
    else:
        chosen = blocks(scores).amax(-1).topk(num, sorted=False).indices  # (rows, num)
        values, inside = take_blocks(scores, chosen).flatten(1).topk(num)
        ids = chosen.gather(1, inside // BLOCK_TOKENS) * BLOCK_TOKENS + inside % BLOCK_TOKENS
    return values, ids


def ties_by_id(values: Floats, ids: Ids) -> tuple[Floats, Ids]:
    """Order entries of equal values by id; (rows, num) each, from the largest down."""
    if not (values[:, 1:] == values[:, :-1]).any():
        return values, ids
    order = np.lexsort((ids, -values))
    return np.take_along_axis(values, order, 1), np.take_along_axis(ids, order, 1)
