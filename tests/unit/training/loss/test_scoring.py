"""Packed rows against the same rows by themselves, over architectures."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from transformers import PreTrainedModel

from sienn_ray.datasets.tokenization import IGNORE_INDEX
from sienn_ray.training.loss.packed_attention import NAME
from sienn_ray.training.loss.packing import TokenRow, pack
from sienn_ray.training.loss.scoring import Scorer, body, can_pack, has_plain_head
from tests.support.architectures import ARCHITECTURES, PACKED, random_model

CPU = torch.device("cpu")


def rows() -> list[TokenRow]:
    """Rows that make a tree, longer than the sliding windows of the test models."""
    generator = torch.Generator().manual_seed(3)

    def some(length: int) -> list[int]:
        ids: list[int] = torch.randint(10, 300, (length,), generator=generator).tolist()
        return ids

    begin, goes_on = some(18), some(20)
    whole = [
        [*begin, *some(17)], [*begin, *some(9)], [*begin, *goes_on, *some(5)], [*begin, *goes_on, *some(6)], some(7),
    ]  # fmt: skip
    return [(ids, [IGNORE_INDEX] * 4 + ids[4:]) for ids in whole]


def logits_alone(model: PreTrainedModel, row: TokenRow) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = model(input_ids=torch.tensor([row[0]]), use_cache=False).logits[0]
        return logits


def log_probs_alone(model: PreTrainedModel, row: TokenRow) -> torch.Tensor:
    logits, labels = logits_alone(model, row)[:-1], torch.tensor(row[1][1:])
    return -F.cross_entropy(logits, labels, reduction="none")[labels != IGNORE_INDEX]


@pytest.mark.parametrize("name", PACKED)
def test_a_packed_row_has_the_logits_that_it_has_alone(name: str) -> None:
    """Within 1e-4 of the largest; so it doesn't see its neighbours, and begins at position 0."""
    model = random_model(name)
    expected = [logits_alone(model, row) for row in rows()]
    assert can_pack(model)
    assert model.config._attn_implementation == NAME
    labelled = [(ids, list(ids)) for ids, _ in rows()]  # every token but the first of a row is a target
    batch = pack(labelled)
    assert len(batch.inputs["pieces"].sizes) == 7
    with torch.no_grad():
        states = body(model)(**batch.inputs, use_cache=False).last_hidden_state[0][batch.source_positions]
        full = model(**batch.inputs, use_cache=False).logits[0][batch.source_positions]
    assert states.shape[0] == full.shape[0]
    for found, alone in zip(torch.split(full, list(batch.targets_per_row)), expected, strict=True):
        torch.testing.assert_close(found, alone[:-1], rtol=0, atol=1e-4 * float(alone.abs().max()))


@pytest.mark.parametrize("name", PACKED)
def test_changing_one_row_changes_no_other(name: str) -> None:
    model = random_model(name)
    assert can_pack(model)
    scorer = Scorer(model, 0, CPU, is_packed=True, has_plain_head=True)
    first, *others = rows()
    changed = ([*first[0][:6], *(reversed(first[0][6:]))], first[1])
    with torch.no_grad():
        before = scorer.log_probs(scorer.batch([first, *others]))
        after = scorer.log_probs(scorer.batch([changed, *others]))
    own = len([label for label in first[1] if label != IGNORE_INDEX])
    assert not torch.allclose(before[:own], after[:own])
    torch.testing.assert_close(before[own:], after[own:], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_log_probs_are_those_of_rows_alone(name: str) -> None:
    """Packed or padded, with whatever the architecture does to its logits."""
    model = random_model(name)
    expected = torch.cat([log_probs_alone(model, row) for row in rows()])
    plain_head, is_packed = has_plain_head(model), can_pack(model)
    assert (plain_head, is_packed) == (True, name in PACKED)
    scorer = Scorer(model, 0, CPU, is_packed=is_packed, has_plain_head=plain_head)
    with torch.no_grad():
        torch.testing.assert_close(scorer.log_probs(scorer.batch(rows())), expected, rtol=1e-3, atol=2e-3)
    whole = Scorer(model, 0, CPU, is_packed=is_packed, has_plain_head=False)
    with torch.no_grad():
        torch.testing.assert_close(whole.log_probs(whole.batch(rows())), expected, rtol=1e-3, atol=2e-3)


def test_attention_that_cannot_be_exchanged_stays_as_it_is() -> None:
    model = random_model("bloom")
    before = model.config._attn_implementation
    assert not can_pack(model)
    assert model.config._attn_implementation == before


def test_an_attention_that_looks_at_neighbours_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The check can fail: with plain causal attention over all rows, packing is refused."""
    from transformers import AttentionInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    model = random_model("llama")

    def leaky(module: torch.nn.Module, *tensors: torch.Tensor, pieces: object = None, **options: object) -> object:
        return sdpa_attention_forward(module, *tensors, **options)

    monkeypatch.setattr(
        "sienn_ray.training.loss.packed_attention.register", lambda: AttentionInterface.register(NAME, leaky)
    )
    assert not can_pack(model)
    assert model.config._attn_implementation == "sdpa"
