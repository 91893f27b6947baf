from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from sienn_ray.training.loss import token_log_probs as module
from sienn_ray.training.loss.token_log_probs import OutputHead, token_log_probs

TOKENS, HIDDEN, VOCABULARY = 37, 8, 50


def head_of(**options: Any) -> OutputHead:
    torch.manual_seed(0)
    linear = torch.nn.Linear(HIDDEN, VOCABULARY)
    linear.requires_grad_(False)
    return OutputHead(linear, **options)


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CHUNK_ELEMENTS", 16 * VOCABULARY)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("options", [{}, {"scale": 0.25}, {"softcap": 3.0}])
@pytest.mark.parametrize("is_trainable", [False, True])
def test_values_and_gradients_are_those_of_all_logits_at_once(options: dict[str, float], is_trainable: bool) -> None:
    head = head_of(**options)
    head.module.requires_grad_(is_trainable)
    hidden = torch.randn(TOKENS, HIDDEN, requires_grad=True)
    targets = torch.randint(0, VOCABULARY, (TOKENS,))
    weights = torch.rand(TOKENS)  # each token's log-probability may count differently
    found = token_log_probs(head, hidden, targets)
    (found * weights).sum().backward()  # type: ignore[no-untyped-call]
    gradient, hidden.grad = hidden.grad, None
    head_gradient = head.module.weight.grad if is_trainable else None
    head.module.zero_grad()
    expected = -F.cross_entropy(head.logits(hidden), targets, reduction="none")
    (expected * weights).sum().backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(gradient, hidden.grad)
    if is_trainable:
        torch.testing.assert_close(head_gradient, head.module.weight.grad)


@pytest.mark.usefixtures("small_chunks")
def test_no_tensor_is_larger_than_a_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    logits = OutputHead.logits

    def watched(self: OutputHead, hidden: torch.Tensor) -> torch.Tensor:
        sizes.append(len(hidden))
        return logits(self, hidden)

    monkeypatch.setattr(OutputHead, "logits", watched)
    token_log_probs(head_of(), torch.randn(TOKENS, HIDDEN, requires_grad=True), torch.zeros(TOKENS, dtype=torch.long))
    assert sizes == [16, 16, 5]


def test_no_tokens() -> None:
    none = torch.zeros(0, dtype=torch.long)
    found = token_log_probs(head_of(), torch.zeros(0, HIDDEN, requires_grad=True), none)
    found.sum().backward()  # type: ignore[no-untyped-call]
    assert found.shape == (0,)
