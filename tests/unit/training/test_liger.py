"""Which kernels are taken, by stand-ins for Liger's: those are a GPU's."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.models.llama import modeling_llama

from sienn_ray.training import liger, recomputation
from tests.support.architectures import random_model
from tests.unit.training.test_recomputation import InPlaceRotation

IDS = torch.arange(4, 20)[None]


class OwnNorm(nn.Module):
    """What Liger puts in the place of a class."""


class _Doubled(torch.autograd.Function):
    """Right going forward, wrong going back."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        return 2 * gradients[0]


def right(norm: Any, x: torch.Tensor) -> torch.Tensor:
    rms = x.float().pow(2).mean(-1, keepdim=True).add(norm.variance_epsilon).rsqrt()
    scaled: torch.Tensor = norm.weight * (x.float() * rms).to(x.dtype)
    return scaled


def applying(forward: Callable[[nn.Module, torch.Tensor], torch.Tensor]) -> Callable[..., None]:
    """As Liger does it: classes of the module, a function of it, and methods of the model's parts."""

    def apply(model: PreTrainedModel, **_: bool) -> None:
        rotate = modeling_llama.apply_rotary_pos_emb
        setattr(modeling_llama, "LlamaRMSNorm", OwnNorm)  # noqa: B010
        setattr(modeling_llama, "apply_rotary_pos_emb", lambda *given, **options: rotate(*given, **options))  # noqa: B010
        for module in model.modules():
            if type(module).__name__ == "LlamaRMSNorm":
                module.offset = 0.0
                module.__dict__["forward"] = forward.__get__(module)

    return apply


@pytest.fixture(autouse=True)
def _as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LlamaRMSNorm", "apply_rotary_pos_emb"):
        monkeypatch.setattr(modeling_llama, name, getattr(modeling_llama, name))


def test_kernels_that_give_the_same_are_used() -> None:
    model = random_model("llama")
    rotation, norm = modeling_llama.apply_rotary_pos_emb, modeling_llama.LlamaRMSNorm
    expected = model(input_ids=IDS).logits
    assert liger.use_kernels(model, applying(right))
    assert "forward" in vars(model.get_decoder().norm)
    torch.testing.assert_close(model(input_ids=IDS).logits, expected)
    assert modeling_llama.LlamaRMSNorm is norm  # of models to come
    assert modeling_llama.apply_rotary_pos_emb is not rotation
    assert all(parameter.grad is None for parameter in model.parameters())


def wrong(norm: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return right(norm, x) * 1.5


def wrong_going_back(norm: nn.Module, x: torch.Tensor) -> torch.Tensor:
    doubled: torch.Tensor = _Doubled.apply(right(norm, x))  # type: ignore[no-untyped-call]
    return doubled


def failing(norm: nn.Module, x: torch.Tensor) -> torch.Tensor:
    raise RuntimeError("PTX was compiled for another device")


@pytest.mark.parametrize("forward", [wrong, wrong_going_back, failing])
def test_others_are_taken_out_again(forward: Callable[[nn.Module, torch.Tensor], torch.Tensor]) -> None:
    model = random_model("llama")
    rotation, norm = modeling_llama.apply_rotary_pos_emb, modeling_llama.LlamaRMSNorm
    expected = model(input_ids=IDS).logits
    assert not liger.use_kernels(model, applying(forward))
    assert torch.equal(model(input_ids=IDS).logits, expected)
    assert (modeling_llama.apply_rotary_pos_emb, modeling_llama.LlamaRMSNorm) == (rotation, norm)
    assert not any({"forward", "offset"} & vars(module).keys() for module in model.modules())


@pytest.mark.parametrize("has_copies", [True, False])
def test_kernels_that_write_into_kept_products_are_taken_out_again(
    has_copies: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rotations get copies; others that do it would be right only where nothing is computed again."""
    in_place: Any = InPlaceRotation

    def apply(model: PreTrainedModel) -> None:
        setattr(modeling_llama, "apply_rotary_pos_emb", lambda *given, **_: in_place.apply(*given[:4]))  # noqa: B010

    if not has_copies:
        monkeypatch.setattr(recomputation, "_rotate_copies", lambda _: None)
    model = random_model("llama")
    expected = model(input_ids=IDS).logits
    assert liger.use_kernels(model, apply) is has_copies
    assert not model.is_gradient_checkpointing
    assert not model.get_input_embeddings()._forward_hooks
    assert not any(module.training for module in model.modules())
    torch.testing.assert_close(model(input_ids=IDS).logits, expected)


def test_without_kernels_nothing_happens() -> None:
    assert not liger.use_kernels(random_model("llama"), None)


def test_a_cpu_takes_none() -> None:
    assert liger.apply_for(random_model("llama")) is None


def give_liger(monkeypatch: pytest.MonkeyPatch, functions: dict[str, Any]) -> None:
    for name in ("liger_kernel", "liger_kernel.transformers", "liger_kernel.transformers.monkey_patch"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    patches = sys.modules["liger_kernel.transformers.monkey_patch"]
    patches.MODEL_TYPE_TO_APPLY_LIGER_FN = functions  # type: ignore[attr-defined]


def test_its_losses_are_left_out_of_what_is_applied(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []

    def with_losses(
        rope: bool = True, cross_entropy: bool = True, fused_linear_cross_entropy: bool = True, model: Any = None
    ) -> None:
        asked.append({"rope": rope, "losses": cross_entropy or fused_linear_cross_entropy, "model": model})

    def without(rms_norm: bool = True, model: Any = None) -> None:
        asked.append({"rms_norm": rms_norm, "model": model})

    give_liger(monkeypatch, {"llama": with_losses, "new": without})
    for model_type in ("llama", "new"):
        apply = liger.installed_for(model_type)
        assert apply is not None
        apply(model="m")
    assert asked == [{"rope": True, "losses": False, "model": "m"}, {"rms_norm": True, "model": "m"}]
    assert liger.installed_for("bloom") is None


def test_a_version_that_refuses_these_transformers_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "liger_kernel", None)
    assert liger.installed_for("llama") is None
