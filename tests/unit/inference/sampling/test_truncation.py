from __future__ import annotations

import random
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from sienn_ray.inference.engine import SamplingParams
from sienn_ray.inference.sampling.candidates import BLOCK_TOKENS, padded, top_candidates
from sienn_ray.inference.sampling.drawing import find_total_mass, heat, keep_sorted
from sienn_ray.inference.sampling.truncation import Kept, Limits, draw, keep
from tests.unit.inference.logits_reference import reference_scores

ALL = SamplingParams(temperature=1.0, top_p=1.0, repetition_penalty=1.0)


class Found(NamedTuple):
    """What is left of one row, each (vocab,)."""

    is_kept: torch.Tensor
    probabilities: torch.Tensor


def both_ways(logits: torch.Tensor, params: SamplingParams) -> tuple[Found, Found | None]:
    """By the sort of the row, and by the likeliest tokens alone where those are enough."""
    scores = heat(padded(logits.clone()[None]), [params])
    limits = Limits.of([params])
    mass = find_total_mass(scores, limits)
    values, ids = top_candidates(scores, 64)
    quick = keep(values, mass, limits, is_complete=values.shape[1] == scores.shape[1])
    by_sort = found(*keep_sorted(scores, mass, limits), len(logits))
    return by_sort, found(quick, ids[0], len(logits)) if quick.settled[0] else None


def found(kept: Kept, ids: np.ndarray, vocab_size: int) -> Found:
    num = int(kept.num[0])
    weights = np.diff(kept.cumulative[0, :num], prepend=0.0)
    kept_ids = torch.from_numpy(ids[:num])
    # Candidates of a short row end with what it was padded with, at no probability.
    is_kept = torch.zeros(vocab_size + BLOCK_TOKENS, dtype=torch.bool)
    is_kept[kept_ids] = True
    probabilities = torch.zeros(vocab_size + BLOCK_TOKENS, dtype=torch.float64)
    probabilities[kept_ids] = torch.from_numpy(weights / weights.sum())
    return Found(is_kept[:vocab_size], probabilities[:vocab_size])


def assert_like_transformers(logits: torch.Tensor, params: SamplingParams) -> bool:
    expected = reference_scores(logits, params, [], [])
    by_sort, by_likeliest = both_ways(logits, params)
    for way in (by_sort, by_likeliest):
        if way is not None:
            assert torch.equal(way.is_kept, expected > -torch.inf), params
            torch.testing.assert_close(way.probabilities, expected.double().softmax(-1), rtol=1e-4, atol=1e-7)
    return by_likeliest is not None


@pytest.mark.parametrize(
    "fields",
    [
        *({"top_k": top_k} for top_k in (1, 2, 40, 63, 64, 200, 5000)),
        *({"top_p": top_p} for top_p in (0.0, 0.1, 0.5, 0.9, 0.95, 0.999)),
        *({"min_p": min_p} for min_p in (0.001, 0.1, 0.5, 1.0)),
        *({"top_p": 0.9, "temperature": temperature} for temperature in (0.1, 0.7, 5.0)),
    ],
)
def test_each_rule_alone_keeps_what_transformers_keeps(fields: dict[str, Any]) -> None:
    params = replace(ALL, **fields)
    for seed in range(12):
        spread = (0.5, 2.0, 6.0)[seed % 3]
        vocab_size = (40, 1000, 3001)[seed % 4 % 3]
        assert_like_transformers(
            torch.randn(vocab_size, generator=torch.Generator().manual_seed(seed)) * spread, params
        )


def test_all_rules_together_keep_what_transformers_keeps() -> None:
    rng, num_settled = random.Random(0), 0
    for seed in range(250):
        params = replace(
            ALL,
            temperature=rng.uniform(0.2, 2),
            top_p=rng.choice([1.0, rng.uniform(0.05, 0.999)]),
            top_k=rng.choice([0, rng.randrange(1, 300)]),
            min_p=rng.choice([0.001, rng.uniform(0.001, 0.9)]),
        )
        logits = torch.randn(3000, generator=torch.Generator().manual_seed(seed)) * rng.uniform(0.5, 6)
        num_settled += assert_like_transformers(logits, params)
    # Both ways are taken.
    assert 50 < num_settled < 250


def test_top_k_keeps_ties_with_its_last_token() -> None:
    logits = torch.full((3000,), -5.0)
    logits[[10, 2000, 2999]] = 1.0
    logits[7] = 3.0
    params = replace(ALL, top_k=2)
    assert assert_like_transformers(logits, params)
    assert both_ways(logits, params)[0].is_kept.nonzero()[:, 0].tolist() == [7, 10, 2000, 2999]


def test_a_cut_among_equals_at_the_last_candidate_is_not_settled() -> None:
    logits = torch.zeros(3000)
    logits[100] = 1.0
    for params in (replace(ALL, top_k=5), replace(ALL, top_p=0.01), replace(ALL, min_p=0.1)):
        quick = both_ways(logits, params)[1]
        assert quick is None


@pytest.mark.parametrize("vocab_size", [3, 32, 1000, 4096, 9999])
@pytest.mark.parametrize("num", [1, 20, 128])
def test_top_candidates_are_those_of_a_sort(vocab_size: int, num: int) -> None:
    generator = torch.Generator().manual_seed(vocab_size)
    logits = torch.randn(4, vocab_size, generator=generator)
    values, ids = top_candidates(padded(logits), num)
    expected = logits.sort(descending=True)
    num = min(num, vocab_size)
    assert ids[:, :num].tolist() == expected.indices[:, :num].tolist()
    assert values[:, :num].tolist() == expected.values[:, :num].tolist()


def test_draw_walks_down_from_the_likeliest() -> None:
    kept = keep(
        np.log(np.array([[0.5, 0.3, 0.15, 0.05]], np.float32)),
        np.array([2.0]),
        Limits.of([replace(ALL, top_p=0.9)]),
        is_complete=True,
    )
    assert kept.num.tolist() == [3]
    drawn = [int(draw(kept, np.array([uniform]))[0]) for uniform in (0.0, 0.52, 0.53, 0.84, 0.85, 1 - 2.0**-53)]
    assert drawn == [0, 0, 1, 1, 2, 2]
