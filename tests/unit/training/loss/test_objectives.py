from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from transformers import PreTrainedModel

from sienn_ray.base_model import load_causal_lm
from sienn_ray.datasets.schema import RowKind
from sienn_ray.datasets.tokenization import IGNORE_INDEX
from sienn_ray.training import checkpoint
from sienn_ray.training.adapter.adapters import add_adapter, trainable
from sienn_ray.training.config import LoraSettings, TrainingConfig
from sienn_ray.training.loss.examples import Example
from sienn_ray.training.loss.objectives import CompletionObjective, PairObjective
from sienn_ray.training.loss.packing import TokenRow as PackedRow
from sienn_ray.training.loss.pair_losses import DpoLoss
from sienn_ray.training.loss.reference import Reference
from sienn_ray.training.loss.scoring import Scorer, can_pack, has_plain_head
from sienn_ray.training.methods import Method
from tests.support.architectures import random_model
from tests.support.fakes_training import FakeRows, TokenRow
from tests.unit.training.training import CPU, EOS, Trainee, config_of

BETA = 0.3


def row(prompt: list[int], completion: list[int]) -> TokenRow:
    return [*prompt, *completion], [*[IGNORE_INDEX] * len(prompt), *completion]


def pair(number: int) -> Example:
    """A prompt of its own, and two answers of different lengths that begin alike in every third pair."""
    prompt = [10, 50 + number, 51 + number % 2]
    first = [100] if number % 3 == 0 else []
    chosen = [*first, *range(101 + number, 104 + number + number % 3), EOS]
    rejected = [*first, *range(131 + number, 133 + number + number % 2), EOS]
    return Example((row(prompt, chosen), row(prompt, rejected)))


PAIRS = [pair(number) for number in range(5)]
ROWS = [Example(example.rows[:1]) for example in PAIRS]


def noisy(model: PreTrainedModel, noise: float, *, use_dora: bool, dropout: float = 0.0) -> Any:
    """The model with an adapter that has already learned something, always the same."""
    lora = LoraSettings(r=4, lora_alpha=8, lora_dropout=dropout, use_dora=use_dora)
    adapter: Any = add_adapter(model, TrainingConfig(base_model="m", lora=lora))
    torch.manual_seed(1)
    for name, parameter in adapter.named_parameters():
        if "lora_" in name:
            parameter.data.normal_(std=noise if "lora_B" in name else 0.3)
    return adapter


class Policy:
    """A random Llama with an adapter, objectives over it, and a twin for the direct computation."""

    def __init__(
        self, *, is_packed: bool = True, noise: float = 0.3, use_dora: bool = False, dropout: float = 0.0
    ) -> None:
        model = random_model("llama")
        assert has_plain_head(model)
        assert not is_packed or can_pack(model)
        self.adapter = noisy(model, noise, use_dora=use_dora, dropout=dropout)
        self.twin = noisy(random_model("llama"), noise, use_dora=use_dora)
        scorer = Scorer(model, 0, CPU, is_packed=is_packed, has_plain_head=True)
        self.scorer, self.reference = scorer, Reference(self.adapter)
        self.preference = PairObjective(DpoLoss(BETA), scorer, self.reference)
        self.completion = CompletionObjective(scorer, self.reference)

    def margins(self, pairs: Sequence[Example]) -> torch.Tensor:
        log_ratios = self.preference.scores(self.preference.collate(pairs)).log_ratios
        return log_ratios[:, 0] - log_ratios[:, 1]

    def loss(self, pairs: Sequence[Example]) -> torch.Tensor:
        return self.preference.sums(self.preference.collate(pairs)).loss

    def row_log_prob(self, row: PackedRow) -> torch.Tensor:
        """From whole logits of the row alone, by the twin."""
        input_ids, labels = (torch.tensor(column) for column in row)
        logits = self.twin(input_ids=input_ids[None]).logits[0, :-1]
        wanted = labels[1:] != IGNORE_INDEX
        log_probs = F.log_softmax(logits, dim=-1)[torch.arange(len(logits)), input_ids[1:]]
        return log_probs[wanted].sum()

    def direct_margins(self, pairs: Sequence[Example]) -> torch.Tensor:
        margins = []
        for (chosen, rejected), _ in pairs:
            policy = self.row_log_prob(chosen) - self.row_log_prob(rejected)
            with torch.no_grad(), self.twin.disable_adapter():
                reference = self.row_log_prob(chosen) - self.row_log_prob(rejected)
            margins.append(policy - reference)
        return torch.stack(margins)

    def direct_loss(self, pairs: Sequence[Example]) -> torch.Tensor:
        return torch.log1p(torch.exp(-BETA * self.direct_margins(pairs))).sum()


def gradients(adapter: Any, loss: torch.Tensor) -> list[torch.Tensor]:
    return list(torch.autograd.grad(loss, trainable(adapter)))


@pytest.fixture(params=["packed", "padded", "padded dora"])
def policy(request: pytest.FixtureRequest) -> Policy:
    return Policy(is_packed=request.param == "packed", use_dora="dora" in request.param)


class TestPreferences:
    def test_loss_is_equation_7_of_the_paper(self, policy: Policy) -> None:
        expected = policy.direct_margins(PAIRS)
        assert expected.abs().max() > 0.1  # so that there is something to compare
        torch.testing.assert_close(policy.margins(PAIRS), expected, rtol=1e-3, atol=1e-4)
        loss = policy.loss(PAIRS)
        torch.testing.assert_close(loss, policy.direct_loss(PAIRS), rtol=1e-4, atol=1e-4)
        assert abs(float(loss.detach()) - len(PAIRS) * math.log(2)) > 0.01

    def test_gradients_are_those_of_the_direct_way(self, policy: Policy) -> None:
        found = gradients(policy.adapter, policy.loss(PAIRS))
        expected = gradients(policy.twin, policy.direct_loss(PAIRS))
        assert all(float(gradient.abs().max()) > 0 for gradient in expected)
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4 * float(other.abs().max()))

    def test_it_is_a_sum_over_pairs(self, policy: Policy) -> None:
        whole = policy.loss(PAIRS)
        parts = [policy.loss([example]) for example in PAIRS]
        torch.testing.assert_close(torch.stack(parts).sum(), whole, rtol=1e-4, atol=1e-4)

    def test_swapped_answers_have_the_opposite_margin(self, policy: Policy) -> None:
        swapped = [Example(example.rows[::-1]) for example in PAIRS]
        found = policy.margins(swapped)
        torch.testing.assert_close(found, -policy.margins(PAIRS), rtol=1e-3, atol=1e-4)

    def test_a_new_adapter_prefers_nothing(self) -> None:
        policy = Policy(noise=0.0)
        assert float(policy.loss(PAIRS).detach()) == pytest.approx(len(PAIRS) * math.log(2), rel=1e-5)

    def test_neither_does_the_base_model(self, policy: Policy) -> None:
        with policy.preference.at_start():
            assert float(policy.loss(PAIRS)) == pytest.approx(len(PAIRS) * math.log(2))
        torch.testing.assert_close(policy.loss(PAIRS), policy.direct_loss(PAIRS), rtol=1e-4, atol=1e-4)

    def test_an_error_meanwhile_leaves_the_adapter_on(self, policy: Policy) -> None:
        with pytest.raises(KeyError), policy.preference.at_start():
            raise KeyError
        assert float(policy.margins(PAIRS).detach().abs().max()) > 0.1

    def test_weight_is_the_number_of_pairs(self, policy: Policy) -> None:
        assert [policy.preference.weight(PAIRS[:count]) for count in (0, 1, 5)] == [0, 1, 5]


class TestCompletions:
    def test_loss_is_that_of_every_completion_token(self, policy: Policy) -> None:
        expected = -torch.stack([policy.row_log_prob(row) for (row,), _ in ROWS]).sum()
        loss = policy.completion.sums(policy.completion.collate(ROWS)).loss
        torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-4)

    def test_without_the_adapter_it_is_the_base_model_s(self, policy: Policy) -> None:
        with policy.completion.at_start():
            without = policy.completion.sums(policy.completion.collate(ROWS)).loss
        with policy.twin.disable_adapter():
            expected = -torch.stack([policy.row_log_prob(row) for (row,), _ in ROWS]).sum()
        torch.testing.assert_close(without, expected, rtol=1e-4, atol=1e-4)
        assert abs(float((policy.completion.sums(policy.completion.collate(ROWS)).loss - without).detach())) > 0.01

    def test_weight_is_the_number_of_completion_tokens(self, policy: Policy) -> None:
        assert policy.completion.weight([]) == 0
        assert [policy.completion.weight([example]) for example in ROWS] == [5, 5, 6, 5, 5]
        assert policy.completion.weight(ROWS) == 26
        unpredicted: TokenRow = ([5, 6], [5, IGNORE_INDEX])
        assert policy.completion.weight([Example((unpredicted,))]) == 0


class TestWholeRun:
    def test_it_comes_to_prefer_what_was_chosen(self, tiny_model_folder: Path, tmp_path: Path) -> None:
        rows: list[Any] = [row for example in PAIRS for row in example.rows]
        config = config_of(num_epochs=6, batch_size=2)
        run = Trainee(
            tiny_model_folder,
            tmp_path / "run",
            config,
            rows=FakeRows(rows, rows_per_example=2),
            eval_rows=FakeRows(rows[:4], rows_per_example=2),
            row_kind=RowKind.PREFERENCE,
        )
        result = run.train()
        assert result.facts.method is Method.DPO
        losses = [entry.eval_loss or 0.0 for entry in run.state.history]
        assert losses[0] == pytest.approx(math.log(2), rel=1e-4)
        assert losses[-1] < losses[0] - 0.001

        model = load_causal_lm(tiny_model_folder, CPU)
        adapter = add_adapter(model, config)
        checkpoint.restore(run.last, adapter)
        adapter.eval()
        scorer = Scorer(model, EOS, CPU, is_packed=False, has_plain_head=True)
        objective = PairObjective(DpoLoss(config.dpo_beta), scorer, Reference(adapter))
        log_ratios = objective.scores(objective.collate(PAIRS)).log_ratios.detach()
        assert float((log_ratios[:, 0] - log_ratios[:, 1]).min()) > 0.0
