from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import pytest

from sienn_ray.inference.engine import SamplingParams
from sienn_ray.inference.requests.prompts import Prompt
from sienn_ray.inference.sampling.logprobs import Sampled
from sienn_ray.inference.text.turn_ends import TurnEnds
from sienn_ray.inference.vllm_engine.sampling import sampled_tokens, sampling_fields

PROMPT = Prompt("Hello", [1, 2], TurnEnds(frozenset({7}), ("<end>",)), max_new_tokens=40)


def test_each_parameter_is_handed_on() -> None:
    params = SamplingParams(
        max_new_tokens=200, temperature=0.5, top_p=0.9, top_k=40, min_p=0.1, repetition_penalty=1.3,
        presence_penalty=0.5, frequency_penalty=-0.5, seed=3, stop=("END",), num_logprobs=2,
    )  # fmt: skip
    assert sampling_fields(params, PROMPT, frozenset({9, 2})) == {
        "max_tokens": 40, "temperature": 0.5, "top_p": 0.9, "top_k": 40, "min_p": 0.1, "repetition_penalty": 1.3,
        "presence_penalty": 0.5, "frequency_penalty": -0.5, "seed": 3, "logprobs": 2, "detokenize": False,
        "ignore_eos": True, "stop_token_ids": [2, 7, 9],
    }  # fmt: skip


def test_greedy_is_temperature_zero() -> None:
    assert sampling_fields(SamplingParams(do_sample=False, temperature=0.7), PROMPT, ())["temperature"] == 0.0


@pytest.mark.parametrize(("seed", "given"), [(None, None), (0, 0), (-1, 2**63 - 1), (2**53, 2**53)])
def test_no_seed_is_taken_for_none(seed: int | None, given: int | None) -> None:
    assert sampling_fields(SamplingParams(seed=seed), PROMPT, ())["seed"] == given


@dataclass
class Score:
    logprob: float
    rank: int | None


def test_tokens_without_scores() -> None:
    assert list(sampled_tokens(SimpleNamespace(token_ids=[4, 5], logprobs=None), None)) == [Sampled(4), Sampled(5)]


def test_the_likeliest_come_in_order_and_the_chosen_one_is_no_more_of_them_than_it_is() -> None:
    output = SimpleNamespace(
        token_ids=[4, 5],
        logprobs=[
            {4: Score(-3.0, 9), 6: Score(-0.1, 1), 5: Score(-0.5, 2)},
            {5: Score(-0.4, 2), 6: Score(-0.2, 1)},
        ],
    )
    assert list(sampled_tokens(output, 2)) == [
        Sampled(4, -3.0, ((6, -0.1), (5, -0.5))),
        Sampled(5, -0.4, ((6, -0.2), (5, -0.4))),
    ]


def test_without_others_the_chosen_one_has_its_own_score() -> None:
    output = SimpleNamespace(token_ids=[4], logprobs=[{4: Score(-3.0, 9)}])
    assert list(sampled_tokens(output, 0)) == [Sampled(4, -3.0)]
