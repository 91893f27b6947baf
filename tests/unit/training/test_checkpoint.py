from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from sienn_ray.base_model import load_causal_lm
from sienn_ray.datasets.tokenization import IGNORE_INDEX
from sienn_ray.training import checkpoint
from sienn_ray.training.batches import Collator
from sienn_ray.training.checkpoint import EpochRecord, RunState
from sienn_ray.training.config import LoraSettings, TrainingConfig
from sienn_ray.training.loop import add_adapter
from sienn_ray.training.loss import completion_loss_sum
from sienn_ray.training.schedules import Schedule
from tests.tiny_model import TINY_ID

CPU = torch.device("cpu")
BATCH = Collator(2, CPU)(
    [([11, 12, 13, 14, 2], [*[IGNORE_INDEX] * 3, 14, 2]), ([21, 22, 23, 2], [*[IGNORE_INDEX] * 3, 2])]
)
STATE = RunState(
    epochs_done=1,
    steps_done=2,
    tokens_done=38,
    train_seconds=1.5,
    history=[EpochRecord(0, None, 10.5), EpochRecord(1, 9.5, None)],
)


@dataclass
class Run:
    """What a checkpoint is made of."""

    adapter: Any
    optimizer: torch.optim.Optimizer
    scheduler: Any

    def step(self) -> None:
        completion_loss_sum(self.adapter, BATCH).backward()
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
    return Run(adapter, optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, Schedule("linear", 0.3, 10)))


def test_restored_run_goes_on_as_the_saved_one(tiny_model_folder: Path, tmp_path: Path) -> None:
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


def test_without_it_the_run_would_be_another(tiny_model_folder: Path) -> None:
    one, other = (new_run(tiny_model_folder, seed=seed) for seed in (0, 1))
    assert any(not torch.equal(one.weights()[name], value) for name, value in other.weights().items())


def test_state_can_be_read_alone(tiny_model_folder: Path, tmp_path: Path) -> None:
    run = new_run(tiny_model_folder, seed=0)
    checkpoint.save(tmp_path, run.adapter, run.optimizer, run.scheduler, STATE)
    assert checkpoint.read_state(tmp_path) == STATE


def test_base_model_is_not_part_of_it(tiny_model_folder: Path, tmp_path: Path) -> None:
    run = new_run(tiny_model_folder, seed=0)
    checkpoint.save(tmp_path, run.adapter, run.optimizer, run.scheduler, STATE)
    assert (tmp_path / checkpoint.ADAPTER_WEIGHTS).stat().st_size < 1_000_000
    assert json.loads((tmp_path / checkpoint.ADAPTER_CONFIG).read_text())["base_model_name_or_path"] == TINY_ID
