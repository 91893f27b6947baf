"""Runs that end early and go on: to the bit as if nothing had happened."""

from __future__ import annotations

import dataclasses
import errno
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from sienn_ray.settings import Settings
from sienn_ray.training import checkpoint_files
from sienn_ray.training.config import LoraSettings
from sienn_ray.training.run_state import read_state
from tests.support.fakes_training import FakeRows, FakeWorker, RecordingReporter
from tests.unit.training.training import TRAIN_ROWS, Trainee, config_of

# A checkpoint after every step.
OFTEN = Settings(report_interval_s=1e-9, checkpoint_interval_s=1e-9)
LORA = LoraSettings(r=4, lora_dropout=0.3)
CONFIG = config_of(num_epochs=2, batch_size=2, gradient_accumulation_steps=2, lora=LORA)
NUM_STEPS = 6
# Learns so fast that it soon gets worse at everything else.
STRONG = LoraSettings(r=16, lora_alpha=512, lora_dropout=0.0)


@pytest.fixture(scope="module")
def whole(tiny_model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Trainee:
    run = Trainee(tiny_model_folder, tmp_path_factory.mktemp("whole") / "run", CONFIG, OFTEN)
    run.train()
    assert run.state.steps_done == NUM_STEPS
    return run


def history(run: Trainee) -> list[Any]:
    return run.state.history


@pytest.mark.parametrize("steps_done", range(1, NUM_STEPS))
def test_killed_after_any_step(tiny_model_folder: Path, tmp_path: Path, whole: Trainee, steps_done: int) -> None:
    """With dropout, and in the middle of epochs: adapter, optimizer, losses and counts are the same."""
    resumed = Trainee(tiny_model_folder, tmp_path / "run", CONFIG, OFTEN)
    resumed.checkpoints.mkdir()
    shutil.copytree(whole.checkpoints / str(steps_done), resumed.checkpoints / "1")
    assert read_state(resumed.checkpoints / "1").steps_done == steps_done
    resumed.train()
    torch.testing.assert_close(resumed.weights, whole.weights, rtol=0, atol=0)
    assert history(resumed) == history(whole)
    untimed: dict[str, Any] = {"train_seconds": 0.0, "elapsed_s": 0.0}
    assert dataclasses.replace(resumed.state, **untimed) == dataclasses.replace(whole.state, **untimed)
    steps = [report.current_step for report in resumed.reporter.reports if report.current_loss is not None]
    assert steps == list(range(steps_done + 1, NUM_STEPS + 1))
    optimizers = [torch.load(run.last / "trainer_state.pt", weights_only=True)["state"] for run in (resumed, whole)]
    torch.testing.assert_close(*optimizers, rtol=0, atol=0)


def test_a_run_that_was_through_trains_nothing(tiny_model_folder: Path, tmp_path: Path) -> None:
    run = Trainee(tiny_model_folder, tmp_path / "run")
    run.train()
    before, num_checkpoints = run.weights, len(list(run.checkpoints.iterdir()))
    again = Trainee(tiny_model_folder, tmp_path / "run")
    assert not again.train().is_paused
    assert [report for report in again.reporter.reports if report.current_loss is not None] == []
    torch.testing.assert_close(again.weights, before, rtol=0, atol=0)
    assert len(list(run.checkpoints.iterdir())) == num_checkpoints


def test_a_pause_leaves_a_checkpoint_to_go_on_from(tiny_model_folder: Path, tmp_path: Path, whole: Trainee) -> None:
    paused = Trainee(tiny_model_folder, tmp_path / "run", CONFIG, reporter=RecordingReporter(pause_after=2))
    assert paused.train().is_paused
    assert (paused.state.steps_done, paused.state.is_done) == (2, False)
    resumed = Trainee(tiny_model_folder, tmp_path / "run", CONFIG)
    assert not resumed.train().is_paused
    torch.testing.assert_close(resumed.weights, whole.weights, rtol=0, atol=0)


def test_a_run_that_is_not_awaited_ends_at_the_next_step_and_writes_nothing(
    tiny_model_folder: Path, tmp_path: Path
) -> None:
    fenced = Trainee(tiny_model_folder, tmp_path / "run", CONFIG, reporter=RecordingReporter(stop_after=2))
    assert fenced.train().is_fenced
    assert max(report.current_step or 0 for report in fenced.reporter.reports) == 2
    assert not fenced.checkpoints.exists() or not list(fenced.checkpoints.iterdir())


def test_checkpoints_by_time_and_by_epoch(tiny_model_folder: Path, tmp_path: Path) -> None:
    by_epoch = Trainee(tiny_model_folder, tmp_path / "epoch", CONFIG)
    by_epoch.train()
    assert len(list(by_epoch.checkpoints.iterdir())) == CONFIG.num_epochs
    by_time = Trainee(tiny_model_folder, tmp_path / "time", CONFIG, OFTEN)
    by_time.train()
    assert len(list(by_time.checkpoints.iterdir())) == NUM_STEPS


class _FullWorker(FakeWorker):
    def report(self, metrics: dict[str, Any], checkpoint: Path | None) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_is_no_silent_end(tiny_model_folder: Path, tmp_path: Path) -> None:
    """It is for the driver to say what to do, see `failures.explain`."""
    run = Trainee(tiny_model_folder, tmp_path / "run")
    with pytest.raises(OSError, match="No space left"):
        run.train(worker=_FullWorker(run.checkpoints))


class TestStoppingEarly:
    def test_patience(self, tiny_model_folder: Path, tmp_path: Path) -> None:
        """On rows that contradict the ones it learns from, every evaluation after the first is worse."""
        opposite = FakeRows([([*ids[:3], 900], [-100, -100, -100, 900]) for ids, _ in TRAIN_ROWS])
        config = config_of(num_epochs=10, early_stopping_patience=2, lora=STRONG)
        run = Trainee(tiny_model_folder, tmp_path / "run", config, eval_rows=opposite)
        run.train()
        state = run.state
        assert state.stop_reason == "early_stopping"
        assert state.evals_without_gain == 2
        assert state.best_step is not None
        assert state.steps_done == state.best_step + 2 * 3

    def test_the_best_adapter_is_kept(self, tiny_model_folder: Path, tmp_path: Path) -> None:
        opposite = FakeRows([([*ids[:3], 900], [-100, -100, -100, 900]) for ids, _ in TRAIN_ROWS])
        config = config_of(num_epochs=10, early_stopping_patience=2, lora=STRONG)
        run = Trainee(tiny_model_folder, tmp_path / "run", config, OFTEN, eval_rows=opposite)
        run.train()
        state = run.state
        (tmp_path / "published").mkdir()
        checkpoint_files.copy_best_adapter(run.last, tmp_path / "published")
        published = load_file(tmp_path / "published" / checkpoint_files.ADAPTER_WEIGHTS)
        at_best = next(
            folder for folder in run.checkpoints.iterdir() if read_state(folder).steps_done == state.best_step
        )
        expected = load_file(at_best / checkpoint_files.ADAPTER_WEIGHTS)
        torch.testing.assert_close(published, expected, rtol=0, atol=0)
        assert any(not torch.equal(value, run.weights[name]) for name, value in published.items())
        losses = {entry.step: entry.eval_loss for entry in state.history if entry.step}
        assert state.best_step is not None
        assert losses[state.best_step] == min(loss for loss in losses.values() if loss is not None)

    def test_evaluations_between_epochs(self, tiny_model_folder: Path, tmp_path: Path) -> None:
        run = Trainee(tiny_model_folder, tmp_path / "run", config_of(eval_steps=2))
        run.train()
        assert [entry.step for entry in run.state.history] == [0, 2, 3, 4, 6]

    def test_time(self, tiny_model_folder: Path, tmp_path: Path) -> None:
        run = Trainee(tiny_model_folder, tmp_path / "run", config_of(num_epochs=10, max_train_time_s=1e-6))
        run.train()
        state = run.state
        assert (state.steps_done, state.is_done, state.stop_reason) == (1, True, "max_train_time_s")
        assert state.history[-1].eval_loss is not None
