"""What is kept of a forward pass, and that gradients don't depend on it."""

from __future__ import annotations

import copy
import gc
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers.models.llama import modeling_llama

from sienn_ray.training import recomputation
from sienn_ray.training.adapter.adapters import add_adapter, copy_each_step, trainable
from sienn_ray.training.loss import packed_attention
from sienn_ray.training.loss.packing import pack
from sienn_ray.training.loss.scoring import body
from sienn_ray.training.recomputation import Recomputation, activation_bytes, choose_recomputation, recompute
from tests.support.architectures import ARCHITECTURES, random_model
from tests.unit.training.adapter.test_fused_lora import config_of, with_noise

CPU = torch.device("cpu")
BF16 = torch.bfloat16
LLAMA_8B = SimpleNamespace(
    hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32, head_dim=128
)
ROWS = [([number, *range(3, 60)], [number, *range(3, 60)]) for number in range(4)]


class Alive(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Knows the memory that operators have made and that is still held."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._made: dict[int, tuple[Any, int]] = {}

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        return True

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given = {storage._cdata for storage in _storages((args, kwargs))}
        for storage in _storages(result):
            if storage._cdata not in given:
                reference = StorageWeakRef(storage)  # type: ignore[no-untyped-call]
                self._made[storage._cdata] = (reference, int(storage.nbytes()))
        return result

    def num_bytes(self) -> int:
        gc.collect()
        return sum(size for reference, size in self._made.values() if not reference.expired())


def _storages(tree: Any) -> list[Any]:
    return [leaf.untyped_storage() for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


def learner(name: str, dtype: torch.dtype, level: Recomputation) -> Any:
    model = with_noise(add_adapter(random_model(name, dtype), config_of()))
    packed_attention.register()
    base = model.get_base_model()
    base.set_attn_implementation(packed_attention.NAME)
    recompute(base, level)
    if dtype is BF16:
        copy_each_step(model, torch.optim.AdamW(trainable(model)))
    return model.train()


def gradients(model: Any) -> list[torch.Tensor]:
    states = body(model.get_base_model())(**pack(ROWS).inputs, use_cache=False).last_hidden_state
    (states.float() * torch.linspace(-1, 1, states.numel()).view_as(states)).sum().backward()
    return [parameter.grad for parameter in trainable(model) if parameter.grad is not None]


@pytest.mark.parametrize("dtype", [torch.float32, BF16])
@pytest.mark.parametrize("name", ["llama", "mistral", "gemma2", "gpt2"])
@pytest.mark.parametrize("level", [Recomputation.SELECTIVE, Recomputation.FULL])
def test_gradients_are_the_same_to_the_bit(name: str, dtype: torch.dtype, level: Recomputation) -> None:
    expected = gradients(learner(name, dtype, Recomputation.NONE))
    found = gradients(learner(name, dtype, level))
    assert len(found) == len(expected) > 0
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(found, expected, strict=True))


class InPlaceRotation(torch.autograd.Function):
    """Rotates queries and keys as Liger's kernel does: in their own memory, unseen by the dispatcher."""

    @staticmethod
    def forward(ctx: Any, queries: Any, keys: Any, cos: Any, sin: Any) -> tuple[Any, Any]:
        ctx.save_for_backward(cos, sin)
        rotated = [each.transpose(1, 2).contiguous() for each in (queries, keys)]
        angles = (cos.unsqueeze(2).numpy(), sin.unsqueeze(2).numpy())
        for each in rotated:
            values = each.detach().numpy()
            values[:] = values * angles[0] + np.roll(values, values.shape[-1] // 2, -1) * _signs(values) * angles[1]
        return rotated[0].transpose(1, 2), rotated[1].transpose(1, 2)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        cos, sin = (each.unsqueeze(1) for each in ctx.saved_tensors)
        half = cos.shape[-1] // 2
        back = [each * cos - each.roll(half, -1) * torch.from_numpy(_signs(each)) * sin for each in gradients]
        return back[0], back[1], None, None


def _signs(values: Any) -> Any:
    half = values.shape[-1] // 2
    return np.repeat(np.array([-1, 1], np.float32), half)


@pytest.mark.parametrize("level", Recomputation)
def test_a_rotation_in_place_is_done_once(level: Recomputation, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = gradients(learner("llama", torch.float32, Recomputation.NONE))
    in_place: Any = InPlaceRotation
    monkeypatch.setattr(modeling_llama, "apply_rotary_pos_emb", lambda *given, **_: in_place.apply(*given[:4]))
    found = gradients(learner("llama", torch.float32, level))
    torch.testing.assert_close(found, expected)


def held_bytes(dtype: torch.dtype, level: Recomputation) -> int:
    """Bytes that a layer holds between its passes."""

    def of(num_layers: int) -> int:
        model = learner("llama", dtype, level)
        decoder = body(model.get_base_model())
        decoder.layers = torch.nn.ModuleList(copy.deepcopy(decoder.layers[0]) for _ in range(num_layers))
        decoder.config.num_hidden_layers = num_layers
        batch = pack(ROWS)
        with Alive() as alive:
            states = decoder(**batch.inputs, use_cache=False).last_hidden_state
            held = alive.num_bytes()
        assert states.requires_grad
        return int(held // batch.inputs["input_ids"].numel())

    return of(3) - of(2)


@pytest.mark.parametrize("dtype", [torch.float32, BF16])
def test_the_estimate_is_what_a_layer_holds(dtype: torch.dtype) -> None:
    """Within a third: rank 4 of hidden size 32 counts more here than 16 of 4,096, and key heads are half as many."""
    config = random_model("llama", dtype).config
    for level in Recomputation:
        estimated = [activation_bytes(SimpleNamespace(**{**config.to_dict(), "num_hidden_layers": n}), 1, dtype, level)
                     for n in (2, 3)]  # fmt: skip
        assert estimated[1] - estimated[0] == pytest.approx(held_bytes(dtype, level), rel=1 / 3), level


def test_bytes_of_a_token_of_llama_8b() -> None:
    """On fake CUDA tensors, with FlashAttention, a layer holds 184,680 bytes, 102,752, and 8,192."""
    layer = {level: activation_bytes(LLAMA_8B, 1, BF16, level) for level in Recomputation}
    whole = layer[Recomputation.NONE] // 32
    assert whole == 196_608
    assert (layer[Recomputation.SELECTIVE] - whole) // 32 == 114_688
    assert (layer[Recomputation.FULL] - whole) // 32 == 8_192
    assert activation_bytes(LLAMA_8B, 100, BF16) == 100 * 32 * whole


def test_other_names_of_sizes_are_known() -> None:
    assert activation_bytes(ARCHITECTURES["gpt2"](), 1, torch.float32) == 2 * (8 * 32 + 4 * (6 * 32 + 4 * 128))


def test_a_mixture_counts_the_experts_of_a_token() -> None:
    shape = {"hidden_size": 64, "num_hidden_layers": 2, "num_experts_per_tok": 8}
    mixture = SimpleNamespace(**shape, intermediate_size=6000, moe_intermediate_size=96)
    assert activation_bytes(mixture, 1, BF16) == 2 * (8 * 64 + 2 * (6 * 64 + 4 * 8 * 96))
    mixtral = SimpleNamespace(**{**shape, "num_experts_per_tok": 2}, intermediate_size=96)
    assert activation_bytes(mixtral, 1, BF16) == 2 * (8 * 64 + 2 * (6 * 64 + 4 * 2 * 96))


def test_a_configuration_without_sizes_counts_as_nothing() -> None:
    assert [activation_bytes(object(), 100, BF16, level) for level in Recomputation] == [0, 0, 0]


@pytest.mark.parametrize("num_tokens", [1, 10**15])
def test_what_is_asked_for_is_done(num_tokens: int) -> None:
    assert choose_recomputation(True, LLAMA_8B, num_tokens, BF16, CPU) is Recomputation.FULL
    assert choose_recomputation(False, LLAMA_8B, num_tokens, BF16, CPU) is Recomputation.NONE


def test_else_as_little_is_computed_again_as_half_the_memory_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    for level in (Recomputation.NONE, Recomputation.SELECTIVE):
        needed = activation_bytes(LLAMA_8B, 8192, BF16, level)
        monkeypatch.setattr(recomputation, "free_memory_bytes", lambda _, needed=needed: 2 * needed)
        assert choose_recomputation(None, LLAMA_8B, 8192, BF16, CPU) is level
        monkeypatch.setattr(recomputation, "free_memory_bytes", lambda _, needed=needed: 2 * needed - 1024)
        assert choose_recomputation(None, LLAMA_8B, 8192, BF16, CPU) is not level
    monkeypatch.setattr(recomputation, "free_memory_bytes", lambda _: 1)
    assert choose_recomputation(None, LLAMA_8B, 8192, BF16, CPU) is Recomputation.FULL
