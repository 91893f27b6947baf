from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from sienn_ray.base_model import load_causal_lm
from sienn_ray.datasets.tokenization import IGNORE_INDEX
from sienn_ray.errors import FailureReason, TrainingError
from sienn_ray.settings import Settings
from sienn_ray.training import checkpoint
from sienn_ray.training.batches import Batch, collate
from sienn_ray.training.checkpoint import EpochRecord, RunState
from sienn_ray.training.config import LoraSettings, TrainingConfig
from sienn_ray.training.loop import (
    LoopSpec,
    WarmupCosine,
    _check_finite,
    add_adapter,
    completion_loss_sum,
    count_targets,
    evaluate,
)
from tests.tiny_model import TINY_ID

CPU = torch.device("cpu")
CONFIG = TrainingConfig(base_model=TINY_ID, lora=LoraSettings(lora_dropout=0.0))
EOS = 2
PROMPT = [IGNORE_INDEX] * 3
ROWS = [
    ([11, 12, 13, 14, 15, EOS], [*PROMPT, 14, 15, EOS]),
    ([21, 22, 23, EOS], [*PROMPT, EOS]),
    ([31, 32, 33, 34, EOS, 36, 37, 38, EOS], [*PROMPT, 34, EOS, IGNORE_INDEX, IGNORE_INDEX, 38, EOS]),
]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """A model this small is slower with more."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def model(tiny_model_folder: Path) -> Any:
    return load_causal_lm(tiny_model_folder, CPU).eval()


def batch_of(rows: list[tuple[list[int], list[int]]]) -> Batch:
    return collate(rows, pad_token_id=EOS, device=CPU)


@torch.no_grad()
def loss_of(model: Any, *rows: tuple[list[int], list[int]]) -> float:
    return float(completion_loss_sum(model, batch_of(list(rows))))


class TestLoss:
    def test_it_is_the_mean_of_transformers_times_the_targets(self, model: Any) -> None:
        batch = batch_of(ROWS)
        expected = model(**batch._asdict()).loss * count_targets(batch)
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
        assert count_targets(batch_of(ROWS)) == 8
        without_eos = [(ids, [IGNORE_INDEX if label == EOS else label for label in labels]) for ids, labels in ROWS]
        assert count_targets(batch_of(without_eos)) == 4
        assert loss_of(model, *ROWS) > loss_of(model, *without_eos) + 1

    def test_batch_without_targets_has_a_loss_of_zero(self, model: Any) -> None:
        row = ([1, 2, 3], PROMPT)
        assert (count_targets(batch_of([row])), loss_of(model, row)) == (0, 0.0)

    def test_only_the_adapter_gets_gradients(self, model: Any) -> None:
        adapter = add_adapter(model, CONFIG)
        completion_loss_sum(adapter, batch_of(ROWS)).backward()
        with_gradient = {name for name, parameter in adapter.named_parameters() if parameter.grad is not None}
        assert with_gradient
        assert all("lora_" in name for name in with_gradient)

    def test_evaluation_is_the_mean_over_all_tokens_of_all_batches(self, model: Any) -> None:
        class Shard:
            def iter_batches(self, **_: Any) -> Iterator[Any]:
                import pyarrow as pa

                for row in ROWS:
                    yield pa.table({"input_ids": [row[0]], "labels": [row[1]]})

        expected = loss_of(model, *ROWS) / count_targets(batch_of(ROWS))
        batching = {"batch_size": 1, "pad_token_id": EOS, "device": CPU}
        told: list[int] = []
        loss = evaluate(model, Shard(), batching, lambda *, batch: told.append(batch))
        assert loss == pytest.approx(expected, rel=1e-5)
        assert told == list(range(1, len(ROWS) + 1))

    @pytest.mark.parametrize("loss", [float("nan"), float("inf")])
    def test_loss_that_is_no_number_ends_the_run(self, loss: float) -> None:
        with pytest.raises(TrainingError, match=r"at step 7; lower learning_rate \(now 0.0002\)") as error:
            _check_finite(loss, 7, CONFIG)
        assert error.value.reason is FailureReason.DIVERGED


class TestSchedule:
    @pytest.mark.parametrize(
        ("warmup_ratio", "num_steps"), [(0.0, 1), (0.5, 1), (0.06, 2), (0.06, 100), (0.5, 7), (0.0, 40), (0.03, 5_000)]
    )
    def test_shape(self, warmup_ratio: float, num_steps: int) -> None:
        factors = [WarmupCosine(warmup_ratio, num_steps)(step) for step in range(num_steps)]
        peak = factors.index(max(factors))
        assert max(factors) == 1.0
        assert factors[0] > 0.0
        assert all(earlier < later for earlier, later in pairwise(factors[: peak + 1]))
        assert all(earlier > later for earlier, later in pairwise(factors[peak:]))
        assert factors[-1] > 0.0

    def test_numbers(self) -> None:
        schedule = WarmupCosine(0.3, 10)
        rising = [schedule(step) for step in range(4)]
        assert rising == [0.25, 0.5, 0.75, 1.0]
        assert schedule(3 + 3) == pytest.approx(0.5 * (1 + 0.22252093395631445))
        assert schedule(10) == pytest.approx(0.0)

    def test_it_ends_near_zero_and_stays_there(self) -> None:
        schedule = WarmupCosine(0.06, 1_000)
        assert schedule(999) < 1e-5
        assert schedule(5_000) == pytest.approx(0.0)

    @pytest.mark.parametrize("num_steps", [0, 1])
    def test_run_of_hardly_any_steps(self, num_steps: int) -> None:
        assert 0.0 < WarmupCosine(0.5, num_steps)(0) <= 1.0


class TestSteps:
    @pytest.mark.parametrize(
        ("num_rows", "batch_size", "world_size", "micro_batch_size", "steps"),
        [
            (10, 4, 1, 4, 3),
            (8, 4, 1, 4, 2),
            (8, 4, 2, 2, 2),
            (9, 4, 2, 2, 2),
            (3, 32, 1, 32, 1),
            (8, 1, 4, 1, 2),
            (8, 6, 4, 1, 2),
        ],
    )
    def test_steps_of_an_epoch(
        self, num_rows: int, batch_size: int, world_size: int, micro_batch_size: int, steps: int
    ) -> None:
        config = TrainingConfig(base_model=TINY_ID, batch_size=batch_size)
        spec = LoopSpec(config, Settings(), _Silent(), EOS, num_train_rows=num_rows, num_eval_rows=0)
        assert spec.micro_batch_size(world_size) == micro_batch_size
        assert spec.num_batches(num_rows, world_size) == steps


class _Silent:
    def report(self, progress: Any) -> None:
        """Tell nobody."""


class TestAdapter:
    def test_it_names_its_base_model_by_id(self, model: Any, tmp_path: Path) -> None:
        adapter = add_adapter(model, CONFIG)
        adapter.save_pretrained(tmp_path, save_embedding_layers=False)
        saved = json.loads((tmp_path / "adapter_config.json").read_text())
        assert saved["base_model_name_or_path"] == TINY_ID
        assert (saved["r"], saved["lora_alpha"], saved["task_type"]) == (16, 32, "CAUSAL_LM")

    def test_it_sits_on_all_seven_projections_of_every_layer(self, model: Any) -> None:
        adapter = add_adapter(model, CONFIG)
        places = {
            (name.split(".layers.")[1].split(".")[0], name.split(".lora_")[0].rsplit(".", 1)[-1])
            for name, parameter in adapter.named_parameters()
            if parameter.requires_grad
        }
        projections = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
        assert places == {(layer, projection) for layer in "01" for projection in projections}

    def test_new_adapter_changes_nothing(self, tiny_model_folder: Path, model: Any) -> None:
        before = load_causal_lm(tiny_model_folder, CPU).eval()
        input_ids = torch.tensor([ROWS[0][0]])
        with torch.no_grad():
            expected, actual = before(input_ids).logits, add_adapter(model, CONFIG).eval()(input_ids).logits
        torch.testing.assert_close(actual, expected)


@dataclass
class Run:
    """What a checkpoint is made of."""

    adapter: Any
    optimizer: torch.optim.Optimizer
    scheduler: Any

    def step(self) -> None:
        completion_loss_sum(self.adapter, batch_of(ROWS)).backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.scheduler.step()

    def weights(self) -> dict[str, torch.Tensor]:
        return {name: value.clone() for name, value in self.adapter.state_dict().items() if "lora_" in name}


def new_run(folder: Path, *, seed: int) -> Run:
    torch.manual_seed(seed)
    config = TrainingConfig(base_model=TINY_ID, lora=LoraSettings(lora_dropout=0.5))
    adapter = add_adapter(load_causal_lm(folder, CPU), config).train()
    trainable = [parameter for parameter in adapter.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=1e-2)
    return Run(adapter, optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, WarmupCosine(0.3, 10)))


STATE = RunState(
    epochs_done=1,
    steps_done=2,
    tokens_done=38,
    train_seconds=1.5,
    history=[EpochRecord(0, None, 10.5), EpochRecord(1, 9.5, None)],
)


class TestCheckpoint:
    def test_restored_run_goes_on_as_the_saved_one(self, tiny_model_folder: Path, tmp_path: Path) -> None:
        saved = new_run(tiny_model_folder, seed=0)
        for _ in range(2):
            saved.step()
        checkpoint.save(tmp_path, saved.adapter, saved.optimizer, saved.scheduler, STATE)
        for _ in range(2):
            saved.step()

        restored = new_run(tiny_model_folder, seed=1)
        state = checkpoint.restore(tmp_path, restored.adapter, restored.optimizer, restored.scheduler)
        assert state == STATE
        assert restored.scheduler.get_last_lr() == [pytest.approx(0.75e-2)]
        for _ in range(2):
            restored.step()  # with dropout, so that random state counts too
        assert restored.weights().keys() == saved.weights().keys()
        torch.testing.assert_close(restored.weights(), saved.weights(), rtol=0, atol=0)

    def test_without_it_the_run_would_be_another(self, tiny_model_folder: Path) -> None:
        one, other = (new_run(tiny_model_folder, seed=seed) for seed in (0, 1))
        assert any(not torch.equal(one.weights()[name], value) for name, value in other.weights().items())

    def test_state_can_be_read_alone(self, tiny_model_folder: Path, tmp_path: Path) -> None:
        run = new_run(tiny_model_folder, seed=0)
        checkpoint.save(tmp_path, run.adapter, run.optimizer, run.scheduler, STATE)
        assert checkpoint.read_state(tmp_path) == STATE

    def test_base_model_is_not_part_of_it(self, tiny_model_folder: Path, tmp_path: Path) -> None:
        run = new_run(tiny_model_folder, seed=0)
        checkpoint.save(tmp_path, run.adapter, run.optimizer, run.scheduler, STATE)
        assert (tmp_path / checkpoint.ADAPTER_WEIGHTS).stat().st_size < 1_000_000
        assert json.loads((tmp_path / checkpoint.ADAPTER_CONFIG).read_text())["base_model_name_or_path"] == TINY_ID
