from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from sienn_ray.inference.engine import SamplingParams
from sienn_ray.inference.sampling.sampler import RowSampler, eos_token_ids, sample
from tests.unit.inference.logits_reference import reference_scores, reference_token

PLAIN = SamplingParams(temperature=1.0, top_p=1.0, repetition_penalty=1.0, seed=0)
VOCAB_SIZES = (7, 64, 500, 4096 + 5, 8192)


def random_params(rng: random.Random) -> SamplingParams:
    return SamplingParams(
        temperature=rng.choice([1.0, 0.7, rng.uniform(0.1, 3)]),
        top_p=rng.choice([1.0, 0.95, rng.uniform(0.01, 1)]),
        top_k=rng.choice([0, 0, 1, 5, 50, 300, 100_000]),
        min_p=rng.choice([0.0, 0.0, 0.05, rng.uniform(0, 1)]),
        repetition_penalty=rng.choice([1.0, 1.2, rng.uniform(0.5, 2)]),
        presence_penalty=rng.choice([0.0, rng.uniform(-2, 2)]),
        frequency_penalty=rng.choice([0.0, rng.uniform(-2, 2)]),
        do_sample=rng.random() < 0.8,
        seed=rng.randrange(2**63),
    )


def random_logits(vocab_size: int, seed: int, spread: float = 3.0) -> torch.Tensor:
    return torch.randn(vocab_size, generator=torch.Generator().manual_seed(seed)) * spread


def sample_one(logits: torch.Tensor, row: RowSampler, **options: Any) -> int:
    return sample(logits.clone()[None], [row], **options)[0].token_id


@pytest.mark.parametrize("vocab_size", VOCAB_SIZES)
def test_every_step_takes_the_token_that_transformers_distribution_has_at_the_random_number(vocab_size: int) -> None:
    rng = random.Random(vocab_size)
    num_rows, num_steps = 24, 4
    prompts = [[rng.randrange(vocab_size) for _ in range(rng.randrange(40))] for _ in range(num_rows)]
    rows = [RowSampler(prompt, random_params(rng), vocab_size) for prompt in prompts]
    generated: list[list[int]] = [[] for _ in rows]
    for step in range(num_steps):
        logits = torch.stack([random_logits(vocab_size, 1000 * step + number) for number in range(num_rows)])
        expected = [
            reference_token(
                reference_scores(logits[number], row.params, prompts[number], generated[number]),
                row.params,
                row.uniform(),
            )
            for number, row in enumerate(rows)
        ]
        chosen = [sampled.token_id for sampled in sample(logits.clone(), rows)]
        assert chosen == expected
        for tokens, token_id in zip(generated, chosen, strict=True):
            tokens.append(token_id)


@pytest.mark.parametrize("spread", [0.01, 1.0, 3.0, 10.0])
@pytest.mark.parametrize("is_coarse", [False, True])
def test_number_of_candidates_changes_no_token(spread: float, is_coarse: bool) -> None:
    rng = random.Random(3)
    for seed in range(60):
        params = replace(random_params(rng), do_sample=True)
        logits = random_logits(8192, seed, spread)
        if is_coarse:
            # What a model in bfloat16 gives: many tokens share a logit, also around the last candidate.
            logits = logits.bfloat16().float()
        chosen = {
            sample_one(logits, RowSampler([1, 2, 3], params, 8192), num_candidates=num) for num in (1, 16, 128, 100_000)
        }
        assert len(chosen) == 1, params


def test_a_seed_gives_the_same_tokens_alone_and_beside_others() -> None:
    rng = random.Random(5)
    vocab_size, num_steps = 1000, 6
    steps = [random_logits(vocab_size, seed) for seed in range(num_steps)]
    for _ in range(20):
        params = replace(random_params(rng), do_sample=True)
        alone = RowSampler([1, 2], params, vocab_size)
        expected = [sample_one(logits, alone) for logits in steps]
        beside = RowSampler([1, 2], params, vocab_size)
        others = [RowSampler([3], replace(random_params(rng), seed=None), vocab_size) for _ in range(5)]
        got = []
        for logits in steps:
            batch = torch.stack(
                [*(torch.randn(vocab_size) for _ in others[:2]), logits, *(torch.randn(vocab_size) for _ in others[2:])]
            )
            got.append(sample(batch, [*others[:2], beside, *others[2:]])[2].token_id)
        assert got == expected


def test_sampling_leaves_the_global_random_numbers_alone() -> None:
    before = torch.get_rng_state()
    sample_one(random_logits(100, 0), RowSampler([], PLAIN, 100))
    assert torch.equal(before, torch.get_rng_state())


def test_no_seed_draws_anew() -> None:
    params = replace(PLAIN, seed=None)
    assert len({RowSampler([], params, 10).uniform() for _ in range(10)}) == 10


def test_random_numbers_are_uniform_over_seeds_and_over_tokens() -> None:
    row = RowSampler([], PLAIN, 10)
    along = []
    for _ in range(4000):
        along.append(row.uniform())
        row.accept(0)
    across = [RowSampler([], replace(PLAIN, seed=seed), 10).uniform() for seed in range(4000)]
    for numbers in (along, across):
        assert min(numbers) >= 0
        assert max(numbers) < 1
        counts, _ = np.histogram(numbers, bins=20, range=(0, 1))
        # Chi-square with 19 degrees of freedom is above 43.8 once in a thousand times.
        assert ((counts - 200) ** 2 / 200).sum() < 43.8


@pytest.mark.parametrize(
    "params",
    [
        PLAIN,
        replace(PLAIN, temperature=0.7, top_p=0.95),
        replace(PLAIN, top_k=8, temperature=1.5),
        replace(PLAIN, min_p=0.05),
    ],
)
def test_tokens_come_as_often_as_their_probability_says(params: SamplingParams) -> None:
    vocab_size, num_draws, batch = 50, 8000, 500
    logits = random_logits(vocab_size, 1, 1.5)
    expected = reference_scores(logits, params, [], []).softmax(-1).double().numpy() * num_draws
    counts = np.zeros(vocab_size)
    for start in range(0, num_draws, batch):
        rows = [RowSampler([], replace(params, seed=start + number), vocab_size) for number in range(batch)]
        for sampled in sample(logits.repeat(batch, 1), rows):
            counts[sampled.token_id] += 1
    assert counts[expected == 0].sum() == 0
    is_usual = expected >= 5
    chi_square = ((counts - expected)[is_usual] ** 2 / expected[is_usual]).sum()
    # The mean and five standard deviations of chi-square.
    degrees = is_usual.sum() - 1
    assert chi_square < degrees + 5 * np.sqrt(2 * degrees)


@pytest.mark.parametrize("params", [replace(PLAIN, do_sample=False), replace(PLAIN, temperature=0.0)])
def test_the_likeliest_token_is_the_first_of_equals(params: SamplingParams) -> None:
    logits = torch.zeros(500)
    logits[[77, 300, 30]] = 2.0
    assert sample_one(logits, RowSampler([], params, 500)) == 30


def test_whole_vocabulary_never_gives_an_impossible_token() -> None:
    logits = torch.full((333,), -torch.inf)
    logits[[5, 332]] = 0.0
    rows = [RowSampler([], replace(PLAIN, seed=seed), 333) for seed in range(200)]
    assert {sampled.token_id for sampled in sample(logits.repeat(200, 1), rows)} == {5, 332}


def test_logprobs_are_of_the_unchanged_logits_and_only_for_those_who_ask() -> None:
    vocab_size = 4101
    base = SamplingParams(seed=3, presence_penalty=1.0)
    params = [base, replace(base, num_logprobs=3), replace(base, num_logprobs=0, do_sample=False)]
    logits = torch.stack([random_logits(vocab_size, seed) for seed in range(3)])
    expected = logits.log_softmax(-1)
    silent, asking, own_only = sample(logits.clone(), [RowSampler([0, 1, 2], each, vocab_size) for each in params])
    assert (silent.logprob, silent.top) == (None, ())
    assert asking.logprob == pytest.approx(float(expected[1, asking.token_id]))
    top = expected[1].topk(3)
    assert [token_id for token_id, _ in asking.top] == top.indices.tolist()
    assert [logprob for _, logprob in asking.top] == pytest.approx(top.values.tolist())
    assert own_only.logprob == pytest.approx(float(expected[2, own_only.token_id]))
    assert own_only.top == ()


def test_asking_for_logprobs_changes_no_token() -> None:
    logits = random_logits(1000, 0)
    tokens = [
        sample_one(logits, RowSampler([4], replace(PLAIN, num_logprobs=num, repetition_penalty=1.3), 1000))
        for num in (None, 0, 5)
    ]
    assert len(set(tokens)) == 1


@pytest.mark.parametrize(
    "params",
    [
        replace(PLAIN, do_sample=False),
        PLAIN,
        *(replace(PLAIN, **fields) for fields in ({"top_p": 0.9}, {"top_k": 3}, {"min_p": 0.1}, {"num_logprobs": 2})),
    ],
)
def test_a_row_without_numbers_leaves_the_others_alone(params: SamplingParams) -> None:
    whole = random_logits(9000, 0)
    rows = [RowSampler([], params, 9000) for _ in range(2)]
    broken, other = sample(torch.stack([torch.full_like(whole, torch.nan), whole]), rows)
    assert 0 <= broken.token_id < 9000
    assert other.token_id == sample_one(whole, RowSampler([], params, 9000))


def test_logprobs_of_a_small_vocabulary_name_its_tokens_only() -> None:
    row = RowSampler([], replace(PLAIN, num_logprobs=20), 3)
    (sampled,) = sample(torch.tensor([[1.0, 3.0, 2.0]]), [row])
    assert [token_id for token_id, _ in sampled.top] == [1, 2, 0]


@pytest.mark.parametrize(
    ("logits", "message"),
    [
        (torch.zeros(2, 10), r"\(2, 10\) of torch.float32 for 1 rows"),
        (torch.zeros(10), r"give \(rows, vocab\)"),
        (torch.zeros(1, 10, dtype=torch.bfloat16), "float32"),
        (torch.zeros(1, 11), "made for 10 tokens, its logits have 11"),
    ],
)
def test_logits_that_do_not_fit_are_refused(logits: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sample(logits, [RowSampler([], PLAIN, 10)])


def test_no_rows_give_no_tokens() -> None:
    assert sample(torch.zeros(0, 10), []) == []


@pytest.mark.parametrize(
    ("model_config_value", "tokenizer_value", "expected"),
    [
        (None, None, []),
        (2, None, [2]),
        (None, 2, [2]),
        (2, 2, [2]),
        (0, 5, [0, 5]),
        ([151645, 151643], 151645, [151643, 151645]),
        ([], 7, [7]),
    ],
)
def test_every_end_token_counts_once(
    model_config_value: int | list[int] | None, tokenizer_value: int | None, expected: list[int]
) -> None:
    assert eos_token_ids(model_config_value, tokenizer_value) == expected
