"""The whole loop without Ray: alone, and as two processes that exchange gradients."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from safetensors.torch import load_file

from sienn_ray.base_model import load_causal_lm
from sienn_ray.datasets.tokenization import IGNORE_INDEX
from sienn_ray.errors import FailureReason, TrainingError
from sienn_ray.settings import Settings
from sienn_ray.training import checkpoint
from sienn_ray.training.config import LoraSettings, TrainingConfig
from sienn_ray.training.loop import LoopSpec, _check_finite, fine_tune
from sienn_ray.training.reporting import Phase, Progress
from tests.fakes_training import FakeWorker, RecordingReporter, TokenRow
from tests.tiny_model import TINY_ID

CPU = torch.device("cpu")
EOS = 2


def row(number: int) -> TokenRow:
    """A prompt of three tokens and a completion whose length differs from row to row."""
    completion = [*range(100 + number, 103 + number + 3 * (number % 3)), EOS]
    prompt = [10 + number, 50, 51]
    return [*prompt, *completion], [*[IGNORE_INDEX] * len(prompt), *completion]


TRAIN_ROWS = [row(number) for number in range(12)]
EVAL_ROWS = [row(number) for number in range(20, 23)]
SETTINGS = Settings(report_interval_s=1e-9)


def config_of(**options: Any) -> TrainingConfig:
    lora = LoraSettings(r=4, lora_alpha=8, lora_dropout=0.0)
    return TrainingConfig(**{"base_model": TINY_ID, "learning_rate": 1e-3, "num_epochs": 2, "lora": lora, **options})


def train(
    folder: Path,
    checkpoints: Path,
    config: TrainingConfig,
    *,
    rows: list[TokenRow] = TRAIN_ROWS,
    eval_rows: list[TokenRow] = EVAL_ROWS,
) -> list[Progress]:
    """Run the loop in this process; its reports."""
    checkpoints.mkdir(exist_ok=True)
    reporter = RecordingReporter()
    spec = LoopSpec(config, SETTINGS, reporter, EOS, len(rows), len(eval_rows))
    fine_tune(spec, FakeWorker({"train": rows, "evaluation": eval_rows}, checkpoints), load_causal_lm(folder, CPU))
    return reporter.reports


def last(checkpoints: Path) -> Path:
    return max(checkpoints.glob("*"), key=lambda folder: int(folder.name))


def weights(checkpoints: Path) -> dict[str, torch.Tensor]:
    return load_file(last(checkpoints) / checkpoint.ADAPTER_WEIGHTS)


def losses(checkpoints: Path) -> list[float]:
    history = checkpoint.read_state(last(checkpoints)).history
    return [loss for record in history for loss in (record.train_loss, record.eval_loss) if loss is not None]


class TestOneRun:
    def test_it_learns_and_says_so(self, tiny_model_folder: Path, tmp_path: Path) -> None:
        reports = train(tiny_model_folder, tmp_path / "run", config_of(num_epochs=3), eval_rows=TRAIN_ROWS[:5])
        state = checkpoint.read_state(last(tmp_path / "run"))
        assert [record.epoch for record in state.history] == [0, 1, 2, 3]
        eval_losses = [record.eval_loss for record in state.history]
        assert all(later < earlier for earlier, later in itertools.pairwise(eval_losses))  # type: ignore[operator]
        assert (state.steps_done, state.epochs_done) == (9, 3)
        assert state.tokens_done == 3 * sum(len(input_ids) for input_ids, _ in TRAIN_ROWS)
        percents = [report.percent for report in reports]
        assert percents == sorted(percents)

    def test_reports_carry_a_loss_curve(self, tiny_model_folder: Path, tmp_path: Path) -> None:
        reports = train(tiny_model_folder, tmp_path / "run", config_of())
        training = [report for report in reports if report.phase is Phase.TRAINING]
        assert [report.current_step for report in training] == [1, 2, 3, 4, 5, 6]
        assert [report.current_epoch for report in training] == [1, 1, 1, 2, 2, 2]
        needed = ("current_loss", "learning_rate", "tokens_per_s", "num_tokens", "train_seconds")
        assert all(report.facts()[name] > 0 for report in training for name in needed)
        evaluated = [report for report in reports if report.eval_loss is not None]
        assert [(report.current_epoch, report.current_step) for report in evaluated] == [(0, 0), (1, 3), (2, 6)]

    def test_one_step_takes_the_rows_of_all_micro_batches(self, tiny_model_folder: Path, tmp_path: Path) -> None:
        config = config_of(batch_size=2, gradient_accumulation_steps=3)
        reports = train(tiny_model_folder, tmp_path / "run", config)
        assert (reports[-1].current_step, reports[-1].total_steps) == (4, 4)

    @pytest.mark.parametrize("kind", ["cosine", "linear", "constant"])
    def test_learning_rate_follows_the_schedule(self, tiny_model_folder: Path, tmp_path: Path, kind: Any) -> None:
        config = config_of(lr_scheduler=kind, warmup_ratio=0.25, batch_size=3, num_epochs=1)
        reports = train(tiny_model_folder, tmp_path / "run", config)
        rates = [report.learning_rate for report in reports if report.phase is Phase.TRAINING]
        after = {"cosine": [1, 0.75, 0.25], "linear": [1, 2 / 3, 1 / 3], "constant": [1, 1, 1]}[kind]
        assert rates == pytest.approx([0.5e-3, *(1e-3 * factor for factor in after)])

    def test_without_evaluation_rows_nothing_is_evaluated(self, tiny_model_folder: Path, tmp_path: Path) -> None:
        reports = train(tiny_model_folder, tmp_path / "run", config_of(validation_split=0.0), eval_rows=[])
        assert {report.phase for report in reports} == {Phase.TRAINING}
        history = checkpoint.read_state(last(tmp_path / "run")).history
        assert [(record.epoch, record.eval_loss) for record in history] == [(1, None), (2, None)]

    def test_weight_decay_and_seed_change_the_adapter(self, tiny_model_folder: Path, tmp_path: Path) -> None:
        runs = {"plain": {}, "again": {}, "decay": {"weight_decay": 1.0}, "seed": {"seed": 7}}
        found = {}
        for name, options in runs.items():
            train(tiny_model_folder, tmp_path / name, config_of(num_epochs=1, **options))
            found[name] = weights(tmp_path / name)
        torch.testing.assert_close(found["again"], found["plain"], rtol=0, atol=0)
        for name in ("decay", "seed"):
            assert any(not torch.allclose(value, found["plain"][key]) for key, value in found[name].items())


def test_accumulating_two_batches_of_two_is_one_batch_of_four(tiny_model_folder: Path, tmp_path: Path) -> None:
    """With the same adapter, the same losses and the same number of steps."""
    big, small = tmp_path / "big", tmp_path / "small"
    big_reports = train(tiny_model_folder, big, config_of(batch_size=4))
    small_reports = train(tiny_model_folder, small, config_of(batch_size=2, gradient_accumulation_steps=2))
    torch.testing.assert_close(weights(small), weights(big), rtol=1e-3, atol=1e-6)
    assert losses(small) == pytest.approx(losses(big), rel=1e-5)
    assert [report.current_step for report in small_reports if report.phase is Phase.TRAINING] == [
        report.current_step for report in big_reports if report.phase is Phase.TRAINING
    ]


class TestResume:
    def test_it_goes_on_as_if_nothing_had_happened(self, tiny_model_folder: Path, tmp_path: Path) -> None:
        lora = LoraSettings(r=4, lora_dropout=0.3)
        config = config_of(num_epochs=3, batch_size=2, gradient_accumulation_steps=2, lora=lora)
        whole, resumed = tmp_path / "whole", tmp_path / "resumed"
        reports = train(tiny_model_folder, whole, config)
        resumed.mkdir()
        (whole / "1").rename(resumed / "1")
        later_reports = train(tiny_model_folder, resumed, config)
        torch.testing.assert_close(weights(resumed), weights(whole), rtol=0, atol=0)
        assert losses(resumed) == losses(whole)
        steps = [report.current_step for report in later_reports if report.phase is Phase.TRAINING]
        assert steps == [4, 5, 6, 7, 8, 9]
        # What was trained before counts on.
        tokens = [report.num_tokens for report in reports if report.phase is Phase.TRAINING]
        assert [report.num_tokens for report in later_reports if report.phase is Phase.TRAINING] == tokens[3:]
        state = checkpoint.read_state(resumed / "1")
        assert all(report.train_seconds > state.train_seconds for report in later_reports if report.num_tokens)  # type: ignore[operator]

    def test_a_run_that_was_through_trains_nothing(self, tiny_model_folder: Path, tmp_path: Path) -> None:
        train(tiny_model_folder, tmp_path / "run", config_of())
        before = weights(tmp_path / "run")
        assert train(tiny_model_folder, tmp_path / "run", config_of()) == []
        torch.testing.assert_close(weights(tmp_path / "run"), before, rtol=0, atol=0)


class TestFailures:
    @pytest.mark.parametrize("loss", [float("nan"), float("inf")])
    def test_loss_that_is_no_number_ends_the_run(self, loss: float) -> None:
        with pytest.raises(
            TrainingError, match=r"the loss became .* at step 7; lower learning_rate \(now 0.001\)"
        ) as error:
            _check_finite("loss", loss, 7, config_of())
        assert error.value.reason is FailureReason.DIVERGED

    def test_so_does_an_evaluation_that_gives_none(self, tiny_model_folder: Path, tmp_path: Path) -> None:
        base = load_causal_lm(tiny_model_folder, CPU)
        with torch.no_grad():
            base.get_input_embeddings().weight.fill_(math.nan)
        reporter = RecordingReporter()
        spec = LoopSpec(config_of(), SETTINGS, reporter, EOS, len(TRAIN_ROWS), len(EVAL_ROWS))
        with pytest.raises(TrainingError, match="the evaluation loss became nan at step 0") as error:
            fine_tune(spec, FakeWorker({"train": TRAIN_ROWS, "evaluation": EVAL_ROWS}, tmp_path), base)
        assert error.value.reason is FailureReason.DIVERGED
        assert not any(report.eval_loss for report in reporter.reports)

    def test_unknown_target_modules_end_it_before_it_starts(self, tiny_model_folder: Path, tmp_path: Path) -> None:
        config = config_of(lora=LoraSettings(target_modules=("q_proj", "c_attn")))
        with pytest.raises(TrainingError, match="target_modules has c_attn, which") as error:
            train(tiny_model_folder, tmp_path / "run", config)
        assert error.value.reason is FailureReason.INVALID_HYPERPARAMETERS
        assert list((tmp_path / "run").iterdir()) == []


def _one_of_two(rank: int, folder: str, runs: dict[str, TrainingConfig]) -> None:
    """A process that trains on every second row."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{next(iter(runs))}.rendezvous", rank=rank, world_size=2)
    rows = {"train": TRAIN_ROWS[rank::2], "evaluation": EVAL_ROWS}
    for checkpoints, config in runs.items():
        spec = LoopSpec(config, SETTINGS, RecordingReporter(), EOS, len(TRAIN_ROWS), len(EVAL_ROWS))
        worker = FakeWorker(rows, Path(checkpoints), rank=rank, world_size=2)
        fine_tune(spec, worker, load_causal_lm(Path(folder), CPU))
    dist.destroy_process_group()


def test_two_workers_train_the_adapter_that_one_does(tiny_model_folder: Path, tmp_path: Path) -> None:
    """A step takes all rows, so that their order doesn't matter; three evaluation rows don't divide by two."""
    configs = (config_of(batch_size=12), config_of(batch_size=4, gradient_accumulation_steps=3))
    runs = {str(tmp_path / f"two-{number}"): config for number, config in enumerate(configs)}
    train(tiny_model_folder, tmp_path / "alone", configs[0])
    for checkpoints in runs:
        Path(checkpoints).mkdir()
    mp.spawn(_one_of_two, (str(tiny_model_folder), runs), nprocs=2)  # type: ignore[no-untyped-call]
    for checkpoints in runs:
        torch.testing.assert_close(weights(Path(checkpoints)), weights(tmp_path / "alone"), rtol=1e-3, atol=1e-6)
        assert losses(Path(checkpoints)) == pytest.approx(losses(tmp_path / "alone"), rel=1e-5)
