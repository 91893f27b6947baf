"""Penalties on tokens that occur in a request's text already."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from sienn_ray.inference.engine import SamplingParams
from sienn_ray.inference.transfers import to_device

_FIRST_CAPACITY = 256


class SeenTokens:
    """The distinct tokens of one request, with their numbers of occurrences in the answer.

    Grows by a token a step, so that a step touches the tokens of a text and never the whole vocabulary.

    Args:
        prompt_token_ids: The prompt, which counts for the repetition penalty only.
        params: The three penalties.
        vocab_size: Width of the logits; tokens above it have none, so they can't be penalized.
    """

    def __init__(self, prompt_token_ids: Sequence[int], params: SamplingParams, vocab_size: int) -> None:
        self.repetition_penalty = params.repetition_penalty
        self.presence_penalty = params.presence_penalty
        self.frequency_penalty = params.frequency_penalty
        self._vocab_size = vocab_size
        prompt = np.unique(np.asarray(prompt_token_ids, np.int64)) if params.repetition_penalty != 1 else np.empty(0)
        prompt = prompt[prompt < vocab_size]
        self._num = len(prompt)
        self._ids = np.zeros(max(_FIRST_CAPACITY, 2 * self._num), np.int64)
        self._ids[: self._num] = prompt
        self._counts = np.zeros(len(self._ids), np.float32)
        self._position = {token_id: position for position, token_id in enumerate(self._ids[: self._num].tolist())}

    @staticmethod
    def is_needed(params: SamplingParams) -> bool:
        """Return whether any penalty is on."""
        return params.repetition_penalty != 1 or params.presence_penalty != 0 or params.frequency_penalty != 0

    @property
    def ids(self) -> npt.NDArray[np.int64]:
        """Distinct token ids, (num,)."""
        return self._ids[: self._num]

    @property
    def counts(self) -> npt.NDArray[np.float32]:
        """Occurrences of each of `ids` in the answer, (num,); the prompt counts nothing."""
        return self._counts[: self._num]

    def add(self, token_id: int) -> None:
        """Count a generated token."""
        if token_id >= self._vocab_size:
            return
        position = self._position.get(token_id)
        if position is None:
            position = self._append(token_id)
        self._counts[position] += 1

    def _append(self, token_id: int) -> int:
        if self._num == len(self._ids):
            self._ids = np.concatenate([self._ids, np.zeros_like(self._ids)])
            self._counts = np.concatenate([self._counts, np.zeros_like(self._counts)])
        position = self._position[token_id] = self._num
        self._ids[position] = token_id
        self._num += 1
        return position


def penalize(logits: torch.Tensor, seen: Sequence[SeenTokens | None]) -> None:
    """Lower the logits of seen tokens in place.

    First the repetition penalty (Keskar et al. 2019, as in transformers' `RepetitionPenaltyLogitsProcessor`: positive
    logits are divided by it, negative ones multiplied), then OpenAI's: `logit -= count * frequency_penalty +
    (count > 0) * presence_penalty`.

    Args:
        logits: (rows, vocab), float32, contiguous; changed.
        seen: One a row; None has no penalties.
    """
    rows = [(number, tokens) for number, tokens in enumerate(seen) if tokens is not None and len(tokens.ids)]
    if not rows:
        return
    lengths = [len(tokens.ids) for _, tokens in rows]

    def spread(values: list[float]) -> torch.Tensor:
        return to_device(torch.from_numpy(np.repeat(np.array(values, np.float32), lengths)), logits.device)

    starts = np.repeat(np.array([number * logits.shape[1] for number, _ in rows], np.int64), lengths)
    index = to_device(torch.from_numpy(np.concatenate([tokens.ids for _, tokens in rows]) + starts), logits.device)
    flat = logits.view(-1)
    values = flat.index_select(0, index)  # (seen tokens of all rows,)
    repetition = spread([tokens.repetition_penalty for _, tokens in rows])
    values = torch.where(values < 0, values * repetition, values / repetition)
    if any(tokens.presence_penalty or tokens.frequency_penalty for _, tokens in rows):
        counts = to_device(torch.from_numpy(np.concatenate([tokens.counts for _, tokens in rows])), logits.device)
        values -= counts * spread([tokens.frequency_penalty for _, tokens in rows])
        values -= (counts > 0) * spread([tokens.presence_penalty for _, tokens in rows])
    flat.index_copy_(0, index, values)
