"""What transformers' own logits processors make of one row."""

from __future__ import annotations

import torch
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from sienn_ray.inference.engine import SamplingParams


def reference_scores(
    logits: torch.Tensor, params: SamplingParams, prompt_token_ids: list[int], generated: list[int]
) -> torch.Tensor:
    """(vocab,) in, (vocab,) out: penalized, divided by the temperature, -inf where a token can't be drawn.

    Presence and frequency penalties, which transformers doesn't have, are written as OpenAI's documentation has them.
    """
    scores = logits.clone()[None]
    ids = torch.tensor([prompt_token_ids + generated], dtype=torch.long)
    if params.repetition_penalty != 1:
        scores = RepetitionPenaltyLogitsProcessor(params.repetition_penalty)(ids, scores)
    for token_id in set(generated):
        count = generated.count(token_id)
        scores[0, token_id] -= count * params.frequency_penalty + params.presence_penalty
    warpers = LogitsProcessorList()
    if params.temperature != 1:
        warpers.append(TemperatureLogitsWarper(params.temperature))
    if params.top_k:
        warpers.append(TopKLogitsWarper(params.top_k))
    if params.top_p < 1:
        warpers.append(TopPLogitsWarper(params.top_p))
    if params.min_p:
        warpers.append(MinPLogitsWarper(params.min_p))
    return warpers(ids, scores)[0] if params.do_sample else scores[0]


def reference_token(scores: torch.Tensor, params: SamplingParams, uniform: float) -> int:
    """The token that the inverse cumulative distribution has at `uniform`.

    Tokens are in the order of their probability where unlikely ones are left out, and in that of the vocabulary where
    none are.
    """
    if not params.do_sample:
        return int(scores.argmax())
    is_truncated = params.top_k > 0 or params.top_p < 1 or params.min_p > 0
    order = scores.sort(descending=True, stable=True).indices if is_truncated else torch.arange(len(scores))
    cumulative = scores.double().softmax(-1)[order].cumsum(-1)
    return int(order[int((cumulative <= uniform * cumulative[-1]).sum())])
