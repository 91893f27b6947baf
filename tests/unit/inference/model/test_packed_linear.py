from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from transformers.pytorch_utils import Conv1D

from sienn_ray.inference.model.linear_choice import MEASURED_ROWS, Choice, LinearChoices
from sienn_ray.inference.model.linear_layouts import available_layouts
from sienn_ray.inference.model.packed_linear import PackedLinear, packed

NEEDS_MKL = pytest.mark.skipif(not torch._C.has_mkl, reason="this build of PyTorch comes without MKL")
NUM_THREADS = 2


def conv(in_features: int, out_features: int) -> Conv1D:
    """GPT-2's linear layer, which keeps its weight as (in, out)."""
    layer = Conv1D(out_features, in_features)
    layer.bias.data.normal_()
    return layer


def every_choice() -> list[Choice]:
    """Each layout with each of its products."""
    weight = torch.zeros(2, 2)
    return [
        Choice(name, (product,) * len(MEASURED_ROWS))
        for name, layout in available_layouts().items()
        for product in layout(weight, NUM_THREADS).products
    ]


@pytest.fixture
def threads() -> Iterator[None]:
    """Products that are cut are there with several threads only."""
    before = torch.get_num_threads()
    torch.set_num_threads(NUM_THREADS)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("num_rows", [1, 7, 16, 40, 256, 600])
@pytest.mark.parametrize("choice", every_choice(), ids=str)
@pytest.mark.parametrize(
    "layer",
    [torch.nn.Linear(96, 40, bias=False), torch.nn.Linear(33, 18), conv(24, 50)],
    ids=["without bias", "odd sizes", "Conv1D"],
)
def test_products_are_those_of_the_layer(layer: torch.nn.Linear | Conv1D, choice: Choice, num_rows: int) -> None:
    weight = layer.weight.t() if isinstance(layer, Conv1D) else layer.weight
    with torch.inference_mode():
        ours = PackedLinear(weight, layer.bias, choice)
        x = torch.randn(1, num_rows, ours.in_features)
        torch.testing.assert_close(ours(x), layer(x), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(ours(x[0]), layer(x[0]), rtol=1e-5, atol=1e-5)
        # Also of rows that don't lie side by side.
        apart = x.expand(2, -1, -1)
        torch.testing.assert_close(ours(apart), layer(apart.contiguous()), rtol=1e-5, atol=1e-5)
        # What comes out may be added to: it is nobody else's.
        assert ours(x[0]).is_contiguous()


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("choice", every_choice(), ids=str)
def test_weight_can_be_had_back_exactly(choice: Choice) -> None:
    layer, other = torch.nn.Linear(33, 18), conv(24, 50)
    with torch.inference_mode():
        ours = PackedLinear(layer.weight, layer.bias, choice)
        of_other = PackedLinear(other.weight.t(), other.bias, choice)
        assert torch.equal(ours.matrix(), layer.weight)
        assert torch.equal(of_other.matrix(), other.weight.t())
    assert ours.weight.shape == layer.weight.shape


@NEEDS_MKL
@pytest.mark.parametrize("layer", [torch.nn.Linear(33, 17), conv(24, 50)], ids=["Linear", "Conv1D"])
def test_layers_of_float32_are_packed(layer: torch.nn.Module) -> None:
    ours = packed(layer, LinearChoices())
    assert isinstance(ours, PackedLinear)
    x = torch.randn(3, ours.in_features)
    torch.testing.assert_close(ours(x), layer(x), rtol=1e-5, atol=1e-5)


class Scaled(torch.nn.Linear):
    """Does more than its name says, as some architectures' routers do."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2.0 * super().forward(x)


@pytest.mark.parametrize("layer", [torch.nn.Linear(8, 8, dtype=torch.bfloat16), Scaled(8, 8)])
def test_others_stay_as_they_are(layer: torch.nn.Module) -> None:
    assert packed(layer, LinearChoices()) is None
