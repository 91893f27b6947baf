"""What sampling reads together tells of each row; how much a GPU is asked for is in `tests/unit/gpu`."""

from __future__ import annotations

from dataclasses import replace

import torch

from sienn_ray.inference.engine import SamplingParams
from sienn_ray.inference.sampling.sampler import RowSampler, sample

DEFAULT = SamplingParams()
GREEDY = replace(DEFAULT, do_sample=False)
WITH_LOGPROBS = replace(DEFAULT, num_logprobs=5)


def test_a_row_without_numbers_is_told() -> None:
    logits = torch.randn((3, 500), generator=torch.Generator().manual_seed(0))
    logits[1, 7] = torch.nan
    samplers = [RowSampler([1], params, 500) for params in (DEFAULT, GREEDY, WITH_LOGPROBS)]
    assert [each.is_broken for each in sample(logits, samplers)] == [False, True, False]
