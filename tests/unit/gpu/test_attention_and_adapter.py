"""Kernels that attention over packed rows and an adapter's layer launch."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch

from sienn_ray.training.adapter.half_lora import AdapterCopies, half_lora_product
from sienn_ray.training.loss import varlen_attention
from sienn_ray.training.loss.packing import Pieces
from tests.support.fake_cuda import CUDA, fake_cuda

BF16 = torch.bfloat16


def attention_launches(pieces: Pieces) -> tuple[Counter[str], Counter[str]]:
    """Of a layer of Llama 3 8B, forward and backward."""
    kernel = varlen_attention.installed_kernel()
    assert kernel is not None
    with fake_cuda() as counts:
        tensors: list[Any] = [
            torch.empty(1, heads, sum(pieces.sizes), 128, device=CUDA, dtype=BF16, requires_grad=True)
            for heads in (32, 8, 8)
        ]
        inputs = varlen_attention.inputs_of(pieces, CUDA)
        counts.clear()
        attend = varlen_attention.attention_with(kernel)
        attended, _ = attend(torch.nn.Identity(), *tensors, None, **inputs, sliding_window=64)
        forward = counts.launches.copy()
        counts.clear()
        torch.autograd.backward(attended, torch.empty_like(attended))
        return forward, counts.launches


def test_attention_is_one_kernel_for_any_number_of_rows() -> None:
    def apart(num_rows: int) -> Pieces:
        return Pieces((100,) * num_rows, tuple((number,) for number in range(num_rows)))

    forward, backward = attention_launches(apart(1))
    assert forward.keys() == {"torch_attn._varlen_attn"}
    assert backward.keys() == {"aten.zeros", "torch_attn._varlen_attn_backward"}  # of outputs without a gradient
    assert attention_launches(apart(4)) == attention_launches(apart(32)) == (forward, backward)


def test_keys_of_a_shared_beginning_are_gathered_once() -> None:
    def tree(num_rows: int) -> Pieces:
        return Pieces((50, *(100,) * num_rows), tuple((0, number) for number in range(1, num_rows + 1)))

    forward, backward = attention_launches(tree(2))
    assert forward.keys() == {"aten.index_select", "torch_attn._varlen_attn"}
    assert forward["aten.index_select"] == 2
    assert attention_launches(tree(32)) == (forward, backward)


@pytest.mark.parametrize("has_bias", [True, False])
def test_an_adapters_layer_launches_its_products_only(has_bias: bool) -> None:
    with fake_cuda() as counts:
        x, weight, bias = (torch.empty(shape, device=CUDA, dtype=BF16) for shape in ((2, 64, 32), (48, 32), (48,)))
        x.requires_grad_()
        factors = tuple(torch.empty(shape, device=CUDA, requires_grad=True) for shape in ((8, 32), (48, 8)))
        kept = AdapterCopies(factors, BF16)
        counts.clear()
        a, b = factors
        y = half_lora_product(x, weight, bias if has_bias else None, (a, b), (kept.copies[0], kept.copies[1]), 2.0)
        assert counts.num_launches == 3
        counts.clear()
        torch.autograd.backward(y, torch.empty_like(y))
        assert counts.num_launches == 5
        counts.clear()
        kept.refresh()
        assert counts.num_launches == 1
