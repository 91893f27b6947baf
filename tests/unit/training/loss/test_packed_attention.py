from __future__ import annotations

from typing import Any

import pytest
import torch

from sienn_ray.training.loss import packed_attention


def attended(work: Any, tensors: list[torch.Tensor], **options: Any) -> list[torch.Tensor]:
    """Output and gradients."""
    leaves = [tensor.clone().requires_grad_() for tensor in tensors]
    output = work(*leaves, **options)
    weights = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view_as(output)
    return [output, *torch.autograd.grad((output * weights).sum(), leaves)]


def test_keys_of_groups_may_be_left_as_they_are() -> None:
    """As GPUs take them; on a CPU they are repeated."""
    query, key, value = (torch.randn(1, heads, 5, 8) for heads in (4, 2, 2))
    options: dict[str, Any] = {"dropout": 0.0, "scaling": 0.3, "window": None, "softcap": None}
    repeated = (tensor.repeat_interleave(2, dim=1) for tensor in (key, value))
    expected = packed_attention._causal(query, *repeated, **options)
    torch.testing.assert_close(packed_attention._causal(query, key, value, **options), expected)


@pytest.mark.parametrize("block", [1, 3, 4, 13, 50])
@pytest.mark.parametrize("window", [None, 1, 5, 40])
def test_bounded_scores_a_block_at_a_time_are_those_at_once(window: int | None, block: int) -> None:
    tensors = [torch.randn(1, 2, 13, 4, dtype=torch.float64) for _ in range(3)]
    options: dict[str, Any] = {"dropout": 0.0, "scaling": 0.7, "window": window, "softcap": 2.0}
    expected = attended(packed_attention._softcapped, tensors, **options)
    found = attended(packed_attention._softcapped, tensors, **options, block=block)
    torch.testing.assert_close(found, expected)


def test_of_a_block_only_what_goes_in_is_kept() -> None:
    kept: list[int] = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor.numel())
        return tensor

    tensors = [torch.randn(1, 2, 64, 4).requires_grad_() for _ in range(3)]
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        packed_attention._softcapped(*tensors, dropout=0.0, scaling=None, window=None, softcap=2.0, block=8).sum()
    assert max(kept, default=0) <= 2 * 64 * 4
