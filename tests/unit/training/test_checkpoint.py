from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from sienn_ray.base_model import load_causal_lm
from sienn_ray.training import checkpoint, checkpoint_files
from sienn_ray.training.adapter.adapters import add_adapter, make_optimizer
from sienn_ray.training.checkpoint import Weights
from sienn_ray.training.checkpoint_files import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from sienn_ray.training.config import LoraSettings, TrainingConfig
from sienn_ray.training.rewards import Rewards, RewardSums
from sienn_ray.training.run_state import EvalRecord, RunState, read_state
from tests.support.tiny_model import TINY_ID

CPU = torch.device("cpu")
CONFIG = TrainingConfig(base_model=TINY_ID, lora=LoraSettings(r=4, lora_dropout=0.5), learning_rate=1e-3)
INPUTS = torch.tensor([[11, 12, 13, 14, 2]])
STATE = RunState(
    steps_done=2,
    tokens_done=38,
    train_seconds=1.5,
    elapsed_s=2.5,
    epoch_loss_sum=19.25,
    epoch_weight=4,
    epoch_rewards=RewardSums(chosen=0.5, rejected=-0.25, num_chosen=2, num_rejected=2, num_right=1, num_pairs=2),
    num_dropped_rows=1,
    num_long_rows=3,
    num_split_rows=1,
    num_cut_rows=2,
    num_cut_tokens=17,
    num_long_eval_rows=2,
    best_eval_loss=9.75,
    best_step=2,
    best_epoch=1,
    evals_without_gain=3,
    micro_batch_rows=2,
    micro_batch_tokens=512,
    loss_scale=1024.0,
    loss_scale_clean_steps=7,
    is_done=True,
    stop_reason="early_stopping",
    history=[EvalRecord(0, None, 10.5), EvalRecord(1, 9.5, None, 2, Rewards(0.1, 0.2, -0.1, 0.5))],
)


class Run:
    """What a checkpoint is made of."""

    def __init__(self, folder: Path, *, seed: int) -> None:
        torch.manual_seed(seed)
        self.adapter: Any = add_adapter(load_causal_lm(folder, CPU), CONFIG).train()
        self.optimizer = make_optimizer(self.adapter, CONFIG)

    def step(self, number: int) -> None:
        checkpoint.seed_step(CONFIG.seed, number, 0)
        self.adapter(input_ids=INPUTS, labels=INPUTS).loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def save(self, folder: Path, best: Weights | None = None, state: RunState = STATE) -> None:
        folder.mkdir(exist_ok=True)
        checkpoint.save(folder, self.adapter, self.weights(), best, self.optimizer.state_dict(), state)

    def weights(self) -> Weights:
        return checkpoint.adapter_weights(self.adapter)


@pytest.fixture(scope="module")
def run(tiny_model_folder: Path) -> Run:
    """A run that has done one step."""
    run = Run(tiny_model_folder, seed=0)
    run.step(0)
    return run


def same(one: Weights, other: Weights) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


def test_restored_run_goes_on_as_the_saved_one(tiny_model_folder: Path, tmp_path: Path) -> None:
    """With dropout, though random state isn't kept."""
    saved = Run(tiny_model_folder, seed=0)
    for number in (0, 1):
        saved.step(number)
    saved.save(tmp_path)
    for number in (2, 3):
        saved.step(number)

    resumed = Run(tiny_model_folder, seed=1)
    restored = checkpoint.restore(tmp_path, resumed.adapter)
    resumed.optimizer.load_state_dict(restored.optimizer_state)
    for number in (2, 3):
        resumed.step(number)
    torch.testing.assert_close(resumed.weights(), saved.weights(), rtol=0, atol=0)


def test_without_the_optimizer_it_would_be_another(tiny_model_folder: Path, tmp_path: Path) -> None:
    saved = Run(tiny_model_folder, seed=0)
    saved.step(0)
    saved.save(tmp_path)
    saved.step(1)
    resumed = Run(tiny_model_folder, seed=1)
    assert not same(resumed.weights(), load_file(tmp_path / ADAPTER_WEIGHTS))
    checkpoint.restore(tmp_path, resumed.adapter)
    assert same(resumed.weights(), load_file(tmp_path / ADAPTER_WEIGHTS))
    resumed.step(1)
    assert not same(resumed.weights(), saved.weights())


def test_every_field_of_the_state_comes_back(run: Run, tmp_path: Path) -> None:
    run.save(tmp_path)
    assert read_state(tmp_path) == STATE
    assert checkpoint.restore(tmp_path, run.adapter).state == STATE
    new = asdict(RunState())
    assert all(value != new[name] for name, value in asdict(STATE).items())


def test_state_of_a_run_that_has_just_begun_comes_back(run: Run, tmp_path: Path) -> None:
    run.save(tmp_path, state=RunState())
    assert read_state(tmp_path) == RunState()


def test_losses_keep_every_digit(run: Run, tmp_path: Path) -> None:
    state = replace(STATE, epoch_loss_sum=0.1 + 0.2, best_eval_loss=1 / 3)
    run.save(tmp_path, state=state)
    assert read_state(tmp_path) == state


def test_best_adapter_stands_beside_the_last(run: Run, tmp_path: Path) -> None:
    best = {name: value + 1.0 for name, value in run.weights().items()}
    run.save(tmp_path, best)
    restored = checkpoint.restore(tmp_path, run.adapter)
    assert restored.best_weights is not None
    assert same(restored.best_weights, best)
    assert same(run.weights(), load_file(tmp_path / ADAPTER_WEIGHTS))
    assert not same(run.weights(), best)


def test_there_is_none_where_the_last_is_best(run: Run, tmp_path: Path) -> None:
    run.save(tmp_path)
    assert checkpoint.restore(tmp_path, run.adapter).best_weights is None


@pytest.mark.parametrize("has_best", [True, False])
def test_the_best_adapter_is_what_gets_published(run: Run, tmp_path: Path, *, has_best: bool) -> None:
    best = {name: value + 1.0 for name, value in run.weights().items()}
    run.save(tmp_path / "checkpoint", best if has_best else None)
    target = tmp_path / "target"
    target.mkdir()
    checkpoint_files.copy_best_adapter(tmp_path / "checkpoint", target)
    assert {path.name for path in target.iterdir()} == {ADAPTER_WEIGHTS, ADAPTER_CONFIG}
    assert same(load_file(target / ADAPTER_WEIGHTS), best if has_best else run.weights())


def test_base_model_is_no_part_of_it(run: Run, tmp_path: Path) -> None:
    run.save(tmp_path)
    assert (tmp_path / ADAPTER_WEIGHTS).stat().st_size < 1_000_000
    saved = json.loads((tmp_path / ADAPTER_CONFIG).read_text())
    assert saved["base_model_name_or_path"] == TINY_ID


def test_configuration_is_saved_for_use_and_stays_for_training(run: Run, tmp_path: Path) -> None:
    run.save(tmp_path)
    assert json.loads((tmp_path / ADAPTER_CONFIG).read_text())["inference_mode"] is True
    assert run.adapter.peft_config["default"].inference_mode is False


def test_random_numbers_of_a_step_follow_from_seed_step_and_worker() -> None:
    def drawn(seed: int, step: int, rank: int) -> float:
        checkpoint.seed_step(seed, step, rank)
        return float(torch.rand(1, dtype=torch.float64))

    numbers = [drawn(seed, step, rank) for seed in (0, 42, 43) for step in (0, 1, 999) for rank in (0, 1, 63)]
    assert len(set(numbers)) == len(numbers)
    assert drawn(42, 999, 1) == drawn(42, 999, 1)


def test_the_largest_seed_can_be_used() -> None:
    checkpoint.seed_step(2**32 - 1, 10**6, 1_000)
