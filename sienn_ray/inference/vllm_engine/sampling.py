"""Our sampling parameters as vLLM's, and its outputs as our tokens; nothing here imports vLLM."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any, Protocol

from sienn_ray.inference.engine import SamplingParams
from sienn_ray.inference.requests.prompts import Prompt
from sienn_ray.inference.sampling.logprobs import Sampled

_NUM_SEEDS = 2**63


class ScoredToken(Protocol):
    """`vllm.logprobs.Logprob`: a token's log-probability, and its place among all tokens, from 1 on."""

    @property
    def logprob(self) -> float:
        """Natural logarithm of the probability."""
        ...

    @property
    def rank(self) -> int | None:
        """Place among all tokens."""
        ...


def sampling_fields(params: SamplingParams, prompt: Prompt, eos: Collection[int]) -> dict[str, Any]:
    """Return the fields of `vllm.SamplingParams` for a request.

    Penalties and log-probabilities are defined alike. vLLM applies `min_p` before `top_k` and `top_p`, we after them:
    the same tokens stay unless `min_p` and `top_p` are both set, when `top_p` counts from the probabilities of fewer
    tokens. It raises temperatures between 0 and 0.01 to 0.01. A seed gives another answer than in our engine, and the
    same one again only as far as the batch around it doesn't change the last bits of logits.

    Args:
        params: The request's.
        prompt: What ends its answer, and how long that may be.
        eos: Ids of tokens that end any answer.
    """
    return {
        "max_tokens": prompt.max_new_tokens,
        "temperature": params.temperature if params.do_sample else 0.0,
        "top_p": params.top_p,
        "top_k": params.top_k,
        "min_p": params.min_p,
        "repetition_penalty": params.repetition_penalty,
        "presence_penalty": params.presence_penalty,
        "frequency_penalty": params.frequency_penalty,
        "seed": None if params.seed is None else params.seed % _NUM_SEEDS,  # -1 would be none
        "logprobs": params.num_logprobs,
        # The text is ours: stop strings, whole characters, special tokens.
        "detokenize": False,
        "ignore_eos": True,
        "stop_token_ids": sorted({*eos, *prompt.ends.token_ids}),
    }


def sampled_tokens(output: Any, num_logprobs: int | None) -> Iterator[Sampled]:
    """Give the tokens of `vllm.outputs.CompletionOutput`, one or several.

    Args:
        output: What is new since the last one.
        num_logprobs: The likeliest tokens that the request wants beside each.
    """
    for place, token_id in enumerate(output.token_ids):
        yield Sampled(token_id) if num_logprobs is None else _scored(token_id, output.logprobs[place], num_logprobs)


def _scored(token_id: int, scores: dict[int, ScoredToken], num_logprobs: int) -> Sampled:
    # Beside the likeliest, the chosen one is there, wherever it stands.
    likeliest = sorted((score.rank, id_, score.logprob) for id_, score in scores.items() if score.rank is not None)
    top = tuple((id_, logprob) for rank, id_, logprob in likeliest if rank <= num_logprobs)
    return Sampled(token_id, scores[token_id].logprob, top)
