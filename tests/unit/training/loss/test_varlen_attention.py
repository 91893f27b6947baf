"""One kernel for all rows against rows one after another. The kernel is plain tensors here: PyTorch's is a GPU's."""

from __future__ import annotations

import inspect
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.nn.attention.varlen import varlen_attn
from transformers import PreTrainedModel

from sienn_ray.training.loss import packed_attention, varlen_attention
from sienn_ray.training.loss.packing import Pieces, as_pieces, pack
from sienn_ray.training.loss.scoring import Scorer, body, can_pack
from tests.support.architectures import PACKED, random_model
from tests.support.varlen import plain_varlen
from tests.unit.training.loss.test_scoring import rows

CPU = torch.device("cpu")
# It has a softcap, which FlashAttention in PyTorch hasn't.
WITH_KERNEL = [name for name in PACKED if name != "gemma2"]


def rows_alike(is_shared: bool) -> list[Any]:
    labelled = [(ids, list(ids)) for ids, _ in rows()]
    return (
        labelled
        if is_shared
        else [([number, *ids], [number, *labels]) for number, (ids, labels) in enumerate(labelled)]
    )


def states_and_gradients(model: PreTrainedModel, batch: Any) -> list[torch.Tensor]:
    model.zero_grad()
    states = body(model)(**batch.inputs, use_cache=False).last_hidden_state[0][batch.source_positions]
    weights = torch.linspace(-1, 1, states.numel()).view_as(states)
    (states * weights).sum().backward()
    gradients = [parameter.grad for parameter in body(model).parameters() if parameter.grad is not None]
    return [states.detach(), *gradients]


@pytest.mark.parametrize("is_shared", [True, False])
@pytest.mark.parametrize("name", WITH_KERNEL)
def test_states_and_gradients_are_those_of_rows_one_after_another(name: str, is_shared: bool) -> None:
    """Over groups of heads, windows, scales, biases, and beginnings that rows share."""
    model = random_model(name)
    packed_attention.register()
    model.set_attn_implementation(packed_attention.NAME)
    expected = states_and_gradients(model, pack(rows_alike(is_shared)))
    varlen_attention.register(plain_varlen)
    model.set_attn_implementation(varlen_attention.NAME)
    batch = pack(rows_alike(is_shared), attention_inputs=varlen_attention.inputs_of)
    assert (batch.inputs["key_places"] is not None) is is_shared
    found = states_and_gradients(model, batch)
    assert len(found) == len(expected) > 10
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4 * float(theirs.abs().max()))


def test_a_kernel_that_fits_is_chosen_and_scores_what_rows_have_one_after_another() -> None:
    scores = []
    for kernel in (None, plain_varlen):
        model = random_model("mistral")
        assert can_pack(model, kernel)
        scorer = Scorer(model, 0, CPU, is_packed=True, has_plain_head=True)
        batch = scorer.batch(rows())
        assert ("pieces" in batch.inputs) is (kernel is None)
        with torch.no_grad():
            scores.append(scorer.log_probs(batch))
    assert model.config._attn_implementation == varlen_attention.NAME
    torch.testing.assert_close(scores[1], scores[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("fault", ["softcap", "leak"])
def test_where_the_kernel_does_not_fit_rows_go_one_after_another(fault: str) -> None:
    def leaky(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *_: Any, **options: Any) -> torch.Tensor:
        starts, key_starts = (torch.tensor([0, len(tensor)], dtype=torch.int32) for tensor in (query, key))
        return plain_varlen(query, key, value, starts, key_starts, len(query), len(key), **options)

    model = random_model("gemma2" if fault == "softcap" else "llama")
    assert can_pack(model, leaky if fault == "leak" else plain_varlen)
    assert model.config._attn_implementation == packed_attention.NAME


def test_there_is_no_dropout() -> None:
    attend = varlen_attention.attention_with(plain_varlen)
    tensors = [torch.ones(1, 2, 3, 8)] * 3
    lengths = varlen_attention.inputs_of(Pieces((3,), ((0,),)), CPU)
    with pytest.raises(ValueError, match=r"no dropout \(0\.1\)"):
        attend(torch.nn.Identity(), *tensors, None, **lengths, dropout=0.1)


def test_lengths_are_made_once_and_shared_where_rows_share_nothing() -> None:
    inputs = varlen_attention.inputs_of(Pieces((2, 3), ((0,), (1,))), CPU)
    assert inputs["cu_seq_lens_q"].tolist() == [0, 2, 5]
    assert inputs["cu_seq_lens_q"].dtype is torch.int32
    assert inputs["cu_seq_lens_k"] is inputs["cu_seq_lens_q"]
    assert (inputs["max_length_q"], inputs["max_length_k"], inputs["key_places"]) == (3, 3, None)


@pytest.mark.parametrize(
    ("config", "dtype", "fits"),
    [
        ({}, torch.bfloat16, True),
        ({}, torch.float16, True),
        ({}, torch.float32, False),
        ({"head_dim": 320}, torch.bfloat16, False),
        ({"head_dim": 20}, torch.bfloat16, False),
        ({"head_dim": None}, torch.bfloat16, True),
        ({"attention_dropout": 0.1}, torch.bfloat16, False),
        ({"attn_pdrop": 0.1}, torch.bfloat16, False),
    ],
)
def test_configurations_that_the_kernel_suits(config: dict[str, Any], dtype: torch.dtype, fits: bool) -> None:
    whole = {"num_attention_heads": 4, "hidden_size": 256, "head_dim": 64, "attention_dropout": 0.0, **config}
    assert varlen_attention.suits(SimpleNamespace(**whole), dtype) is fits


def test_a_cpu_has_no_kernel() -> None:
    assert varlen_attention.kernel_for(random_model("llama", torch.bfloat16)) is None


def test_the_installed_kernel_takes_what_it_is_given() -> None:
    """By its signature, since it runs on GPUs only: the arguments are those of this PyTorch."""
    assert varlen_attention.installed_kernel() is not None
    ours = list(inspect.signature(varlen_attention.Kernel.__call__).parameters)[1:]
    theirs = inspect.signature(varlen_attn).parameters
    assert [name for name in ours if name not in theirs] == []
    assert [name for name in theirs if name in ours] == [*ours[:7], "scale", "window_size"]


def test_pieces_are_told_as_they_are_without_the_kernel() -> None:
    pieces = Pieces((1,), ((0,),))
    assert as_pieces(pieces, CPU) == {"pieces": pieces}
