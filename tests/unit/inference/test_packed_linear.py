from __future__ import annotations

import pytest
import torch
from transformers.pytorch_utils import Conv1D

from sienn_ray.inference import packed_linear
from sienn_ray.inference.packed_linear import PackedLinear, packed

NEEDS_MKL = pytest.mark.skipif(not torch._C.has_mkl, reason="this build of PyTorch comes without MKL")


def conv(in_features: int, out_features: int) -> Conv1D:
    """GPT-2's linear layer, which keeps its weight as (in, out)."""
    layer = Conv1D(out_features, in_features)
    layer.bias.data.normal_()
    return layer


@NEEDS_MKL
@pytest.mark.parametrize("num_rows", [1, 7, 16, 40, 256, 600])
@pytest.mark.parametrize(
    "layer",
    [torch.nn.Linear(96, 40, bias=False), torch.nn.Linear(33, 17), conv(24, 50)],
    ids=["without bias", "odd sizes", "Conv1D"],
)
def test_products_are_those_of_the_layer(layer: torch.nn.Module, num_rows: int) -> None:
    ours = packed(layer)
    assert isinstance(ours, PackedLinear)
    x = torch.randn(1, num_rows, ours.in_features)
    with torch.inference_mode():
        torch.testing.assert_close(ours(x), layer(x), rtol=1e-5, atol=1e-5)
        # Also of rows that don't lie side by side.
        apart = x.expand(2, -1, -1)
        torch.testing.assert_close(ours(apart), layer(apart.contiguous()), rtol=1e-5, atol=1e-5)


@NEEDS_MKL
def test_weight_can_be_had_back_exactly() -> None:
    layer, other = torch.nn.Linear(33, 17), conv(24, 50)
    with torch.inference_mode():
        ours, of_other = packed(layer), packed(other)
        assert ours is not None
        assert of_other is not None
        assert torch.equal(ours.matrix(), layer.weight)
        assert torch.equal(of_other.matrix(), other.weight.t())
    assert ours.weight.shape == layer.weight.shape


class Scaled(torch.nn.Linear):
    """Does more than its name says, as some architectures' routers do."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2.0 * super().forward(x)


@pytest.mark.parametrize("layer", [torch.nn.Linear(8, 8, dtype=torch.bfloat16), Scaled(8, 8)])
def test_others_stay_as_they_are(layer: torch.nn.Module) -> None:
    assert packed(layer) is None


def test_weights_that_would_be_wrong_are_not_packed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    forward = PackedLinear.forward

    def wrong_for_five_rows(self: PackedLinear, x: torch.Tensor) -> torch.Tensor:
        return forward(self, x) * (1.001 if len(x) == 5 else 1.0)

    packed_linear._holds_for.cache_clear()
    monkeypatch.setattr(PackedLinear, "forward", wrong_for_five_rows)
    assert packed(torch.nn.Linear(8, 8)) is None
    if torch._C.has_mkl:
        assert "packed weights of 8 x 8 give wrong products here" in caplog.text
    packed_linear._holds_for.cache_clear()
