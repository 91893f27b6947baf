from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch

from sienn_ray.inference.engine import SamplingParams
from sienn_ray.inference.sampling.penalties import SeenTokens, penalize
from tests.unit.inference.logits_reference import reference_scores

NONE = SamplingParams(repetition_penalty=1.0, do_sample=False)


@pytest.mark.parametrize(
    "params",
    [
        replace(NONE, repetition_penalty=1.2),
        replace(NONE, repetition_penalty=0.7),
        replace(NONE, presence_penalty=0.8),
        replace(NONE, frequency_penalty=-0.4),
        replace(NONE, presence_penalty=-1.0, frequency_penalty=0.3, repetition_penalty=1.5),
    ],
)
def test_penalties_step_by_step_equal_those_from_scratch(params: SamplingParams) -> None:
    rng, vocab_size = random.Random(1), 400
    prompt = [rng.randrange(vocab_size) for _ in range(60)]
    # More different tokens than the first capacity, and many twice.
    generated = [rng.randrange(vocab_size) for _ in range(700)]
    seen = SeenTokens(prompt, params, vocab_size)
    logits = torch.randn(3, vocab_size, generator=torch.Generator().manual_seed(2))
    for number, token_id in enumerate(generated):
        if number % 100 == 0:
            penalized = logits.clone()
            penalize(penalized, [None, seen, None])
            expected = reference_scores(logits[1], params, prompt, generated[:number])
            torch.testing.assert_close(penalized[1], expected)
            assert torch.equal(penalized[[0, 2]], logits[[0, 2]])
        seen.add(token_id)


def test_each_row_has_its_own_penalties() -> None:
    rows = [
        (replace(NONE, repetition_penalty=2.0), [1, 2, 2], [3]),
        (NONE, [1], [1]),
        (replace(NONE, frequency_penalty=1.5), [4], [5, 5, 6]),
        (replace(NONE, presence_penalty=1.5), [4], [5, 5, 6]),
    ]
    logits = torch.randn(len(rows), 10, generator=torch.Generator().manual_seed(0))
    all_seen = []
    for params, prompt, generated in rows:
        seen = SeenTokens(prompt, params, 10) if SeenTokens.is_needed(params) else None
        for token_id in generated:
            if seen:
                seen.add(token_id)
        all_seen.append(seen)
    expected = torch.stack([reference_scores(row, *fields) for row, fields in zip(logits, rows, strict=True)])
    penalize(logits, all_seen)
    torch.testing.assert_close(logits, expected)
    assert all_seen[1] is None


def test_tokens_above_the_logits_width_are_passed_over() -> None:
    seen = SeenTokens([1, 12], replace(NONE, repetition_penalty=2.0), 10)
    seen.add(11)
    assert seen.ids.tolist() == [1]
