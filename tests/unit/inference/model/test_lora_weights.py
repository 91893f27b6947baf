"""DoRA's gains: those that are computed by rows are the same, and take little of a GPU's memory."""

from __future__ import annotations

import pytest
import torch

from sienn_ray.inference.model.lora_weights import GAIN_BYTES, _gain, _norms
from tests.support.fake_cuda import CUDA, fake_cuda
from tests.support.largest_tensor import Largest


@pytest.mark.parametrize("num_rows", [1, 3, 8])
def test_norms_by_rows_are_those_of_the_whole(num_rows: int) -> None:
    generator = torch.Generator().manual_seed(0)
    base, a, b = (torch.randn(size, generator=generator) for size in ((8, 6), (2, 6), (8, 2)))
    torch.testing.assert_close(_norms(base, a, b, num_rows), (base + b @ a).norm(dim=1))


def test_gains_of_a_large_layer_take_a_part_of_the_memory_set_aside() -> None:
    with fake_cuda():
        base = torch.empty((1 << 16, 4096), dtype=torch.bfloat16, device=CUDA)
        with Largest() as largest:  # type: ignore[no-untyped-call]
            gain = _gain(torch.ones(1 << 16), base, torch.zeros((16, 4096)), torch.zeros((1 << 16, 16)))
    assert gain.shape == (1 << 16,)
    assert not gain.is_cuda
    assert 0 < largest.num_bytes <= GAIN_BYTES // 3
