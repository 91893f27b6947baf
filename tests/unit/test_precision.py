from __future__ import annotations

import pytest
import torch

from sienn_ray.precision import half_type, serving_type
from sienn_ray.training.hardware import choose_dtype

GPU = torch.device("cuda", 0)


@pytest.mark.parametrize(
    ("capability", "dtype"),
    [
        ((7, 0), torch.float16),  # Volta
        ((7, 5), torch.float16),  # Turing
        ((8, 0), torch.bfloat16),
        ((8, 9), torch.bfloat16),
        ((12, 0), torch.bfloat16),
    ],
)
def test_a_gpu_trains_and_serves_in_the_type_that_it_multiplies_fast(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], dtype: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert half_type(GPU) is serving_type(GPU) is choose_dtype("auto", GPU) is dtype
    assert choose_dtype("float32", GPU) is torch.float32


def test_amd_gpus_have_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "hip", "7.0")
    assert half_type(GPU) is torch.bfloat16


def test_other_devices_serve_in_float32() -> None:
    assert serving_type(torch.device("cpu")) is torch.float32
