"""Sampling on a GPU: the host waits once a step, twice for log-probabilities or draws from the whole vocabulary."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from sienn_ray.inference.engine import SamplingParams
from sienn_ray.inference.sampling.sampler import RowSampler, sample
from tests.support.fake_cuda import CUDA, fake_cuda

DEFAULT = SamplingParams()
GREEDY = replace(DEFAULT, do_sample=False)
ALL = replace(DEFAULT, temperature=1.0, top_p=1.0, top_k=0)
PENALIZED = replace(DEFAULT, presence_penalty=0.5, frequency_penalty=0.5)
WITH_LOGPROBS = replace(DEFAULT, num_logprobs=5)


@pytest.mark.parametrize(
    ("params", "most_waits"),
    [
        ([DEFAULT] * 32, 1),
        ([DEFAULT, GREEDY] * 16, 1),
        ([PENALIZED] * 32, 1),
        ([DEFAULT, GREEDY, ALL, PENALIZED], 2),
        ([WITH_LOGPROBS] * 4, 2),
    ],
)
def test_the_host_waits_once_or_twice(params: list[SamplingParams], most_waits: int) -> None:
    vocab_size = 64  # all tokens are candidates, so what is read, which is all alike, sends nobody back to the device
    with fake_cuda(number=1.0) as counts:
        logits = torch.empty((len(params), vocab_size), device=CUDA)
        samplers = [RowSampler([1, 2, 3], each, vocab_size) for each in params]
        assert len(sample(logits, samplers)) == len(params)
    assert counts.num_waits <= most_waits
    assert set(counts.uploads) <= {"pinned"}


def test_a_row_without_numbers_is_told() -> None:
    logits = torch.randn((3, 500), generator=torch.Generator().manual_seed(0))
    logits[1, 7] = torch.nan
    samplers = [RowSampler([1], params, 500) for params in (DEFAULT, GREEDY, WITH_LOGPROBS)]
    assert [each.is_broken for each in sample(logits, samplers)] == [False, True, False]
