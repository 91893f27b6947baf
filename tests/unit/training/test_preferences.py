"""Whole runs over preferences, from the base model and from an adapter."""

from __future__ import annotations

import math
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from sienn_ray.datasets.schema import RowKind
from sienn_ray.errors import TrainingError
from sienn_ray.settings import Settings
from sienn_ray.training.checkpoint_files import START_WEIGHTS
from sienn_ray.training.config import LoraSettings
from tests.support.fakes_training import FakeRows, TokenRow
from tests.unit.training.training import Trainee, config_of, labelled, preferences, row

OFTEN = Settings(report_interval_s=1e-9, checkpoint_interval_s=1e-9)
PAIRED = ("dpo", "ipo", "orpo", "simpo")


@dataclass
class Preferring(Trainee):
    """A run over pairs, or over labelled answers."""

    row_kind: RowKind = RowKind.PREFERENCE

    @classmethod
    def of(cls, folder: Path, checkpoints: Path, method: str, **options: Any) -> Preferring:
        fields = {name: options.pop(name) for name in ("start", "settings") if name in options}
        config = config_of(method=method, **{"batch_size": 3, **options})
        if method == "kto":
            return cls(
                folder,
                checkpoints,
                config,
                rows=FakeRows(labelled(range(6))),
                eval_rows=FakeRows(labelled(range(6))),
                **fields,
            )
        rows = preferences(range(6))  # a random model can only learn by heart
        return cls(folder, checkpoints, config, rows=FakeRows(rows, 2), eval_rows=FakeRows(rows, 2), **fields)


@pytest.fixture(scope="module")
def sft(tiny_model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Trainee:
    run = Trainee(tiny_model_folder, tmp_path_factory.mktemp("sft") / "run", config_of(num_epochs=10))
    run.train()
    return run


@pytest.mark.parametrize("method", [*PAIRED, "kto"])
def test_each_method_learns_and_says_how(tiny_model_folder: Path, tmp_path: Path, method: str) -> None:
    run = Preferring.of(tiny_model_folder, tmp_path / "run", method, num_epochs=4)
    result = run.train()
    assert result.facts.method == method
    first, *_, last = run.state.history
    assert first.eval_rewards is not None
    assert last.train_rewards is not None
    assert last.eval_rewards is not None
    assert last.eval_rewards.margins is not None
    assert last.eval_rewards.margins > (first.eval_rewards.margins or 0.0)
    assert last.eval_loss is not None
    assert last.eval_loss < (first.eval_loss or 0.0)
    reports = [report for report in run.reporter.reports if report.current_loss is not None]
    assert all(report.rewards_margins is not None for report in reports[1:])
    assert all((report.rewards_accuracies is None) is (method == "kto") for report in reports)
    evaluated = [report for report in run.reporter.reports if report.eval_loss is not None]
    assert all(report.eval_rewards_margins is not None for report in evaluated)
    assert f"reward margin {last.eval_rewards.margins:.4f}" in evaluated[-1].message


def test_an_sft_goes_on_where_another_ended(tiny_model_folder: Path, tmp_path: Path, sft: Trainee) -> None:
    run = Trainee(tiny_model_folder, tmp_path / "run", config_of(num_epochs=1), start=sft.last)
    run.train()
    first, last = run.state.history
    assert first.eval_loss == pytest.approx(sft.state.history[-1].eval_loss, rel=1e-5)
    assert first.eval_loss != pytest.approx(sft.state.history[0].eval_loss, rel=1e-3)
    assert last.train_loss is not None
    messages = [report.message for report in run.reporter.reports if report.eval_loss is not None]
    assert messages[0].startswith("Evaluated the adapter that it starts from: ")


@pytest.mark.parametrize("method", ["dpo", "kto"])
def test_preferences_are_relative_to_the_adapter_that_they_start_from(
    tiny_model_folder: Path, tmp_path: Path, sft: Trainee, method: str
) -> None:
    run = Preferring.of(tiny_model_folder, tmp_path / "run", method, num_epochs=1, start=sft.last, warmup_ratio=0.0)
    run.train()
    assert run.state.history[0].eval_loss == pytest.approx(math.log(2) if method == "dpo" else 0.5, rel=1e-5)
    # Nothing has been learned before the first step: policy and reference are the same.
    first = next(report for report in run.reporter.reports if report.current_loss is not None)
    assert first.current_loss == pytest.approx(math.log(2) if method == "dpo" else 0.5, abs=1e-3)
    assert first.rewards_chosen == pytest.approx(0.0, abs=1e-3)
    kept = load_file(run.last / START_WEIGHTS)
    torch.testing.assert_close(kept, sft.weights, rtol=0, atol=0)


@pytest.mark.parametrize("method", ["dpo", "kto", "simpo"])
def test_a_killed_run_goes_on_with_its_reference_though_the_adapter_is_gone(
    tiny_model_folder: Path, tmp_path: Path, sft: Trainee, method: str
) -> None:
    lora = LoraSettings(r=4, lora_alpha=8, lora_dropout=0.3)
    options = {"num_epochs": 2, "settings": OFTEN, "lora": lora}
    whole = Preferring.of(tiny_model_folder, tmp_path / "whole", method, start=sft.last, **options)
    whole.train()
    gone = tmp_path / "gone"
    resumed = Preferring.of(tiny_model_folder, tmp_path / "resumed", method, start=gone, **options)
    shutil.copytree(whole.checkpoints / "2", resumed.checkpoints / "1")
    resumed.train()
    torch.testing.assert_close(resumed.weights, whole.weights, rtol=0, atol=0)
    assert resumed.state.history == whole.state.history


def test_an_adapter_of_another_shape_is_refused(tiny_model_folder: Path, tmp_path: Path, sft: Trainee) -> None:
    config = config_of(lora=LoraSettings(r=8, lora_alpha=8, target_modules=("q_proj",)))
    run = Trainee(tiny_model_folder, tmp_path / "run", config, start=sft.last)
    with pytest.raises(TrainingError, match=r"has other weights than this job's .* leave out lora_r, target_modules"):
        run.train()


def one_answer(number: int) -> list[TokenRow]:
    """A pair whose answers hardly differ."""
    return [row(number), row(number)]


def test_a_run_that_learns_no_preference_says_so(tiny_model_folder: Path, tmp_path: Path) -> None:
    rows = [side for number in range(4) for side in one_answer(number)]
    config = config_of(method="dpo", num_epochs=2)
    run = Preferring(tiny_model_folder, tmp_path / "run", config, rows=FakeRows(rows, 2), eval_rows=None)
    run.train()
    (warning,) = [report.warning for report in run.reporter.reports if report.warning is not None]
    assert warning.startswith("the margin between rewards of chosen and rejected answers was 0.00000 in epoch 2")
    assert "raise learning_rate (now 0.001) or num_epochs (now 2)" in warning


def test_answers_that_are_all_labelled_alike_are_warned_of(tiny_model_folder: Path, tmp_path: Path) -> None:
    rows = [each._replace(is_desirable=True) for each in labelled(range(4))]
    config = config_of(method="kto", num_epochs=1)
    run = Preferring(tiny_model_folder, tmp_path / "run", config, rows=FakeRows(rows), eval_rows=None)
    run.train()
    (warning,) = [report.warning for report in run.reporter.reports if report.warning is not None]
    assert warning == (
        "all 4 answers are labelled desirable, so KTO has nothing to compare them with; "
        "add answers that are undesirable"
    )


def test_kto_is_the_same_in_other_micro_batches(tiny_model_folder: Path, tmp_path: Path) -> None:
    whole = Preferring.of(tiny_model_folder, tmp_path / "whole", "kto", batch_size=6)
    parts = Preferring.of(tiny_model_folder, tmp_path / "parts", "kto", batch_size=2, gradient_accumulation_steps=3)
    whole.train()
    parts.train()
    assert parts.losses == pytest.approx(whole.losses, rel=1e-4)
    torch.testing.assert_close(parts.weights, whole.weights, rtol=1e-3, atol=2e-6)


def test_a_plain_run_keeps_no_start(sft: Trainee) -> None:
    assert not (sft.last / START_WEIGHTS).exists()
    assert all(entry.train_rewards is None for entry in sft.state.history)
