from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from sienn_ray.base_model import load_causal_lm
from sienn_ray.datasets.tokenization import IGNORE_INDEX
from sienn_ray.training.batches import Batch, Collator
from sienn_ray.training.config import LoraSettings, TrainingConfig
from sienn_ray.training.loop import add_adapter
from sienn_ray.training.loss import accumulate_gradients, completion_loss_sum, evaluate
from tests.fakes_training import FakeWorker, TokenRow
from tests.tiny_model import TINY_ID

CPU = torch.device("cpu")
CONFIG = TrainingConfig(base_model=TINY_ID, lora=LoraSettings(lora_dropout=0.0))
EOS = 2
PROMPT = [IGNORE_INDEX] * 3
# Of 3, 1, 3 and 6 completion tokens, so that means of means differ from the mean.
ROWS: list[TokenRow] = [
    ([11, 12, 13, 14, 15, EOS], [*PROMPT, 14, 15, EOS]),
    ([21, 22, 23, EOS], [*PROMPT, EOS]),
    ([31, 32, 33, 34, EOS, 36, 37, 38, EOS], [*PROMPT, 34, EOS, IGNORE_INDEX, IGNORE_INDEX, IGNORE_INDEX, EOS]),
    ([41, 42, 43, 44, 45, 46, 47, 48, EOS], [*PROMPT, 44, 45, 46, 47, 48, EOS]),
]


def batch_of(rows: list[TokenRow]) -> Batch:
    return Collator(EOS, CPU)(rows)


@torch.no_grad()
def loss_of(model: Any, *rows: TokenRow) -> float:
    return float(completion_loss_sum(model, batch_of(list(rows))))


@pytest.fixture
def worker(tmp_path: Path) -> FakeWorker:
    return FakeWorker({}, tmp_path)


class TestBatch:
    def test_it_is_the_mean_of_transformers_times_the_targets(self, model: Any) -> None:
        batch = batch_of(ROWS)
        expected = model(**batch._asdict()).loss * batch.num_targets
        torch.testing.assert_close(completion_loss_sum(model, batch), expected)

    @torch.no_grad()
    def test_it_is_the_sum_of_log_probabilities(self, model: Any) -> None:
        expected = 0.0
        for input_ids, labels in ROWS:
            log_probabilities = model(torch.tensor([input_ids])).logits[0].log_softmax(-1)  # (tokens, vocabulary)
            for position, label in enumerate(labels):
                if label != IGNORE_INDEX:
                    expected -= float(log_probabilities[position - 1, label])
        assert loss_of(model, *ROWS) == pytest.approx(expected, rel=1e-5)

    def test_padding_adds_nothing(self, model: Any) -> None:
        one_by_one = sum(loss_of(model, row) for row in ROWS)
        assert loss_of(model, *ROWS) == pytest.approx(one_by_one, rel=1e-5)

    def test_end_of_turn_counts_though_it_is_the_pad_token(self, model: Any) -> None:
        without_eos = [(ids, [IGNORE_INDEX if label == EOS else label for label in labels]) for ids, labels in ROWS]
        assert batch_of(ROWS).num_targets == batch_of(without_eos).num_targets + 5
        assert loss_of(model, *ROWS) > loss_of(model, *without_eos) + 1

    def test_batch_without_targets_has_a_loss_of_zero(self, model: Any) -> None:
        assert loss_of(model, ([1, 2, 3], PROMPT)) == 0.0

    def test_only_the_adapter_gets_gradients(self, model: Any) -> None:
        adapter = add_adapter(model, CONFIG)
        completion_loss_sum(adapter, batch_of(ROWS)).backward()
        with_gradient = {name for name, parameter in adapter.named_parameters() if parameter.grad is not None}
        assert with_gradient
        assert all("lora_" in name for name in with_gradient)


class TestStep:
    def gradients(self, folder: Path, worker: FakeWorker, *micro_batches: list[TokenRow]) -> tuple[Any, Any]:
        torch.manual_seed(0)
        adapter = add_adapter(load_causal_lm(folder, CPU), CONFIG)
        step_loss = accumulate_gradients(adapter, [batch_of(rows) for rows in micro_batches], worker)
        return step_loss, {name: value.grad for name, value in adapter.named_parameters() if value.grad is not None}

    def test_micro_batches_add_up_to_one_big_batch(self, tiny_model_folder: Path, worker: FakeWorker) -> None:
        whole_loss, whole = self.gradients(tiny_model_folder, worker, ROWS)
        for parts in ([ROWS[:2], ROWS[2:]], [ROWS[:1], ROWS[1:]], [[row] for row in ROWS]):
            loss, gradients = self.gradients(tiny_model_folder, worker, *parts)
            assert loss.mean == pytest.approx(whole_loss.mean, rel=1e-5)
            assert loss[1:] == whole_loss[1:] == (13, 28)
            assert gradients.keys() == whole.keys()
            torch.testing.assert_close(gradients, whole, rtol=1e-4, atol=1e-7)

    def test_it_is_the_mean_over_the_tokens_of_the_step(
        self, tiny_model_folder: Path, worker: FakeWorker, model: Any
    ) -> None:
        loss, _ = self.gradients(tiny_model_folder, worker, ROWS[:2], ROWS[2:])
        assert loss.mean == pytest.approx(loss_of(model, *ROWS) / 13, rel=1e-5)


class TestEvaluation:
    def test_it_is_the_mean_over_all_tokens_of_all_batches(self, model: Any, worker: FakeWorker) -> None:
        told: list[int] = []
        batches = [batch_of([row]) for row in ROWS]
        loss = evaluate(model.train(), batches, worker, lambda *, batch: told.append(batch))
        assert loss == pytest.approx(loss_of(model.eval(), *ROWS) / 13, rel=1e-5)
        assert told == [1, 2, 3, 4]

    def test_dropout_is_off(self, model: Any, worker: FakeWorker) -> None:
        adapter = add_adapter(model, TrainingConfig(base_model=TINY_ID, lora=LoraSettings(lora_dropout=0.9)))
        adapter.train()
        evaluate(adapter, [batch_of(ROWS)], worker, lambda *, batch: None)
        assert not any(module.training for module in adapter.modules())

    def test_without_batches_it_is_zero(self, model: Any, worker: FakeWorker) -> None:
        assert evaluate(model, [], worker, lambda *, batch: None) == 0.0
