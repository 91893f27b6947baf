"""Log-probabilities of tokens as the model gave them, before penalties and temperature."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

from sienn_ray.inference.sampling.candidates import rows_of, ties_by_id, unread_candidates
from sienn_ray.inference.transfers import fetch, to_device


class Sampled(NamedTuple):
    """A row's next token.

    `logprob` is the natural logarithm of its probability in the unchanged logits, `top` has (token id, logprob) of the
    likeliest, from the first down; both only for rows whose requests want them. `is_broken` tells of logits that aren't
    numbers, whose token is arbitrary.
    """

    token_id: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()
    is_broken: bool = False


class Logprobs:
    """Log-probabilities for the rows whose requests want them.

    Args:
        logits: (rows, vocab), padded; they may change afterwards.
        num_top: Number of likeliest tokens by the number of the row, for rows that want any.
    """

    def __init__(self, logits: torch.Tensor, num_top: dict[int, int]) -> None:
        self._num_top = num_top
        self._logprobs = rows_of(logits, list(num_top)).log_softmax(-1)  # (asking rows, vocab), a copy

    @classmethod
    def of(cls, logits: torch.Tensor, num_top: dict[int, int | None]) -> Logprobs | None:
        """Compute them, or return None where no row wants any."""
        asked = {number: num for number, num in num_top.items() if num is not None}
        return cls(logits, asked) if asked else None

    def read(self, token_ids: list[int]) -> list[Sampled]:
        """Return the chosen tokens, one a row, with their log-probabilities."""
        chosen = torch.tensor([token_ids[number] for number in self._num_top])
        own_ids = to_device(chosen, self._logprobs.device)
        unread = unread_candidates(self._logprobs, max([1, *self._num_top.values()]))
        own, top_values, top_ids = fetch([self._logprobs.gather(1, own_ids[:, None])[:, 0], *unread])
        top_values, top_ids = ties_by_id(top_values, top_ids)
        own_values, values, ids = own.tolist(), top_values.tolist(), top_ids.tolist()
        sampled = [Sampled(token_id) for token_id in token_ids]
        for place, (number, num) in enumerate(self._num_top.items()):
            pairs = zip(ids[place][:num], values[place][:num], strict=True)
            # What a short row was padded with is no token.
            top = tuple(pair for pair in pairs if pair[1] > -math.inf)
            sampled[number] = Sampled(token_ids[number], own_values[place], top)
        return sampled
