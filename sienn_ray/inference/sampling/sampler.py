"""Sampling of the next tokens of many requests at once, each by its own parameters."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from typing import Literal, assert_never

import numpy as np
import numpy.typing as npt
import torch

from sienn_ray.inference.engine import SamplingParams
from sienn_ray.inference.sampling.candidates import largest, padded, rows_of
from sienn_ray.inference.sampling.drawing import NUM_CANDIDATES, draw_from_all, draw_from_likeliest
from sienn_ray.inference.sampling.logprobs import Logprobs, Sampled
from sienn_ray.inference.sampling.penalties import SeenTokens, penalize
from sienn_ray.inference.sampling.rounds import Reading, run_together

Kind = Literal["greedy", "all", "likeliest"]


class RowSampler:
    """Sampling state of one request.

    Random numbers are keyed by the seed and the token's number alone, so a request with a seed draws the same ones
    whatever runs beside it.

    Args:
        prompt_token_ids: The prompt, for the repetition penalty.
        params: The parameters; a temperature of 0 takes the likeliest token, as in OpenAI's API.
        vocab_size: Width of the logits.
    """

    def __init__(self, prompt_token_ids: Sequence[int], params: SamplingParams, vocab_size: int) -> None:
        self.params = params
        self.vocab_size = vocab_size
        self.seed = secrets.randbits(64) if params.seed is None else params.seed
        self.num_tokens = 0
        self.seen = SeenTokens(prompt_token_ids, params, vocab_size) if SeenTokens.is_needed(params) else None

    @property
    def is_greedy(self) -> bool:
        """True where the likeliest token is always taken."""
        return not self.params.do_sample or self.params.temperature == 0

    def uniform(self) -> float:
        """Return the random number of the current token, in [0, 1), a multiple of 2**-53."""
        key = f"{self.seed}:{self.num_tokens}".encode()
        return (int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "little") >> 11) * 2.0**-53

    def accept(self, token_id: int) -> None:
        """Count a token; `sample` calls this."""
        self.num_tokens += 1
        if self.seen is not None:
            self.seen.add(token_id)


@torch.inference_mode()
def sample(logits: torch.Tensor, rows: Sequence[RowSampler], *, num_candidates: int = NUM_CANDIDATES) -> list[Sampled]:
    """Choose the next token of every row, and count it in the row.

    The order is that of transformers' `GenerationMixin._get_logits_processor`: penalties, then for rows that sample
    temperature, top-k, top-p and min-p.

    Args:
        logits: (rows, vocab), float32, on any device; overwritten. A row of NaN gets an arbitrary token.
        rows: Sampling state, one a row of logits.
        num_candidates: Likeliest tokens that are tried before a row is sorted; changes the speed only.

    Raises:
        ValueError: Rows and logits don't fit together.
    """
    _check(logits, rows)
    if not rows:
        return []
    broken = _flags(logits.sum(dim=1).isnan())  # sampling overwrites them
    logits = padded(logits)
    num_top = {number: row.params.num_logprobs for number, row in enumerate(rows)}
    logprobs = Logprobs.of(logits, num_top)
    penalize(logits, [row.seen for row in rows])
    token_ids, are_broken = _choose(logits, rows, num_candidates, broken)
    for row, token_id in zip(rows, token_ids, strict=True):
        row.accept(token_id)
    sampled = logprobs.read(token_ids) if logprobs else [Sampled(token_id) for token_id in token_ids]
    return [each._replace(is_broken=True) if broken else each for each, broken in zip(sampled, are_broken, strict=True)]


def _flags(tensor: torch.Tensor) -> Reading[list[int]]:
    (found,) = yield [tensor]
    flags: list[int] = found.tolist()
    return flags


def _choose(
    logits: torch.Tensor, rows: Sequence[RowSampler], num_candidates: int, broken: Reading[list[int]]
) -> tuple[list[int], list[int]]:
    """Choose one token id a row, and read which rows are broken; rows of one kind are computed together."""
    numbers_of: dict[Kind, list[int]] = {}
    for number, row in enumerate(rows):
        numbers_of.setdefault(_kind(row), []).append(number)
    readings = [_choice(kind, logits, rows, numbers, num_candidates) for kind, numbers in numbers_of.items()]
    are_broken, *chosen = run_together([broken, *readings])
    token_ids = [0] * len(rows)
    for numbers, ids in zip(numbers_of.values(), chosen, strict=True):
        for number, token_id in zip(numbers, ids, strict=True):
            token_ids[number] = token_id
    return token_ids, are_broken


def _choice(
    kind: Kind, logits: torch.Tensor, rows: Sequence[RowSampler], numbers: Sequence[int], num_candidates: int
) -> Reading[list[int]]:
    some = logits if len(numbers) == len(rows) else rows_of(logits, numbers)
    params = [rows[number].params for number in numbers]
    match kind:
        case "greedy":
            return largest(some)
        case "all":
            return draw_from_all(some, params, _uniforms(rows, numbers))
        case "likeliest":
            return draw_from_likeliest(some, params, _uniforms(rows, numbers), num_candidates=num_candidates)
        case _:
            assert_never(kind)


def _uniforms(rows: Sequence[RowSampler], numbers: Sequence[int]) -> npt.NDArray[np.float64]:
    return np.array([rows[number].uniform() for number in numbers], np.float64)


def _kind(row: RowSampler) -> Kind:
    if row.is_greedy:
        return "greedy"
    params = row.params
    return "likeliest" if params.top_k > 0 or params.top_p < 1 or params.min_p > 0 else "all"


def _check(logits: torch.Tensor, rows: Sequence[RowSampler]) -> None:
    if logits.dim() != 2 or logits.dtype != torch.float32 or len(logits) != len(rows):
        raise ValueError(
            f"logits are {tuple(logits.shape)} of {logits.dtype} for {len(rows)} rows; give (rows, vocab) of float32"
        )
    for row in rows:
        if row.vocab_size != logits.shape[1]:
            raise ValueError(f"a row was made for {row.vocab_size} tokens, its logits have {logits.shape[1]}")


def eos_token_ids(model_config_value: int | list[int] | None, tokenizer_value: int | None) -> list[int]:
    """Return every token that ends an answer: those of the base model's generation settings, and the tokenizer's.

    Example:
        >>> eos_token_ids([151645, 151643], 151645)
        [151643, 151645]
    """
    listed = model_config_value if isinstance(model_config_value, list) else [model_config_value]
    return sorted({token for token in [*listed, tokenizer_value] if token is not None})
