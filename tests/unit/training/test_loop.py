"""The whole loop without Ray, alone."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from sienn_ray.base_model import load_causal_lm
from sienn_ray.datasets.token_stream import TokenArrays
from sienn_ray.datasets.tokenization import IGNORE_INDEX
from sienn_ray.errors import FailureReason, InvalidDatasetError, TrainingError
from sienn_ray.training.config import LoraSettings
from sienn_ray.training.loop import _check_finite
from sienn_ray.training.reporting import Phase
from tests.support.fakes_training import FakeRows, RecordingReporter
from tests.unit.training.training import CPU, EVAL_ROWS, TRAIN_ROWS, Trainee, config_of


class TestOneRun:
    def test_it_learns_and_says_so(self, tiny_model_folder: Path, tmp_path: Path) -> None:
        run = Trainee(tiny_model_folder, tmp_path / "run", config_of(num_epochs=3), eval_rows=FakeRows(TRAIN_ROWS[:5]))
        result = run.train()
        state = run.state
        assert [entry.epoch for entry in state.history] == [0, 1, 2, 3]
        eval_losses = [entry.eval_loss for entry in state.history]
        assert all(later < earlier for earlier, later in itertools.pairwise(eval_losses))  # type: ignore[operator]
        assert (state.steps_done, state.is_done, state.stop_reason) == (9, True, None)
        assert state.tokens_done == 3 * sum(len(input_ids) for input_ids, _ in TRAIN_ROWS)
        percents = [report.percent for report in run.reporter.reports]
        assert percents == sorted(percents)
        assert not result.is_paused
        assert result.facts.packed is True

    def test_reports_carry_a_loss_curve(self, tiny_model_folder: Path, tmp_path: Path) -> None:
        run = Trainee(tiny_model_folder, tmp_path / "run")
        run.train()
        training = [report for report in run.reporter.reports if report.phase is Phase.TRAINING and report.current_step]
        assert [report.current_step for report in training] == [1, 2, 3, 4, 5, 6]
        assert [report.current_epoch for report in training] == [1, 1, 1, 2, 2, 2]
        needed = ("current_loss", "learning_rate", "tokens_per_s", "num_tokens", "train_seconds")
        assert all(report.known()[name] > 0 for report in training for name in needed)
        evaluated = [report for report in run.reporter.reports if report.eval_loss is not None]
        assert [(report.current_epoch, report.current_step) for report in evaluated] == [(0, 0), (1, 3), (2, 6)]

    def test_the_first_step_comes_with_a_timeline(self, tiny_model_folder: Path, tmp_path: Path) -> None:
        run = Trainee(tiny_model_folder, tmp_path / "run")
        result = run.train()
        (timeline,) = (report.timeline for report in run.reporter.reports if report.timeline)
        assert list(timeline) == ["prepare_adapter", "first_step", "total"]
        assert timeline["total"] == pytest.approx(sum(timeline.values()) - timeline["total"], abs=0.05)
        assert result.timeline == timeline

    def test_one_step_takes_the_rows_of_all_micro_batches(self, tiny_model_folder: Path, tmp_path: Path) -> None:
        run = Trainee(tiny_model_folder, tmp_path / "run", config_of(batch_size=2, gradient_accumulation_steps=3))
        run.train()
        assert (run.reporter.reports[-1].current_step, run.reporter.reports[-1].total_steps) == (4, 4)

    @pytest.mark.parametrize("kind", ["cosine", "linear", "constant"])
    def test_learning_rate_follows_the_schedule(self, tiny_model_folder: Path, tmp_path: Path, kind: Any) -> None:
        config = config_of(lr_scheduler=kind, warmup_ratio=0.25, batch_size=3, num_epochs=1)
        run = Trainee(tiny_model_folder, tmp_path / "run", config)
        run.train()
        rates = [report.learning_rate for report in run.reporter.reports if report.learning_rate]
        factors: dict[str, list[float]] = {
            "cosine": [1, 0.75, 0.25],
            "linear": [1, 2 / 3, 1 / 3],
            "constant": [1, 1, 1],
        }
        assert rates == pytest.approx([0.5e-3, *(1e-3 * factor for factor in factors[kind])])

    def test_without_evaluation_rows_nothing_is_evaluated(self, tiny_model_folder: Path, tmp_path: Path) -> None:
        run = Trainee(tiny_model_folder, tmp_path / "run", eval_rows=None)
        run.train()
        assert {report.phase for report in run.reporter.reports} == {Phase.TRAINING}
        assert [(entry.epoch, entry.eval_loss) for entry in run.state.history] == [(1, None), (2, None)]

    def test_weight_decay_and_seed_change_the_adapter(self, tiny_model_folder: Path, tmp_path: Path) -> None:
        """And the same run gives the same adapter, to the bit."""
        options: dict[str, dict[str, Any]] = {
            "plain": {}, "again": {}, "decay": {"weight_decay": 1.0}, "seed": {"seed": 7},
        }  # fmt: skip
        found = {}
        for name, changed in options.items():
            run = Trainee(tiny_model_folder, tmp_path / name, config_of(num_epochs=1, **changed))
            run.train()
            found[name] = run.weights
        torch.testing.assert_close(found["again"], found["plain"], rtol=0, atol=0)
        for name in ("decay", "seed"):
            assert any(not torch.allclose(value, found["plain"][key]) for key, value in found[name].items())

    def test_one_row_is_enough(self, tiny_model_folder: Path, tmp_path: Path) -> None:
        run = Trainee(tiny_model_folder, tmp_path / "run", rows=FakeRows(TRAIN_ROWS[:1]), eval_rows=None)
        run.train()
        assert run.state.steps_done == 2
        assert run.losses[1] < run.losses[0]

    @pytest.mark.parametrize(
        "lora",
        [
            LoraSettings(r=4, use_rslora=True),
            LoraSettings(r=4, use_dora=True),
            LoraSettings(r=4, loraplus_lr_ratio=16.0),
            LoraSettings(r=4, lora_dropout=0.2),
        ],
    )
    @pytest.mark.parametrize("precision", ["float32", "bfloat16"])
    def test_variants_of_lora_learn(
        self, tiny_model_folder: Path, tmp_path: Path, lora: LoraSettings, precision: Any
    ) -> None:
        config = config_of(lora=lora, num_epochs=4, precision=precision)
        run = Trainee(tiny_model_folder, tmp_path / "run", config, eval_rows=FakeRows(TRAIN_ROWS))
        dtype = torch.float32 if precision == "float32" else torch.bfloat16
        run.train(load_causal_lm(tiny_model_folder, CPU, dtype))
        losses = [entry.eval_loss or 0.0 for entry in run.state.history]
        assert losses[-1] < losses[0] - 0.05
        assert {value.dtype for value in run.weights.values()} == {torch.float32}


def test_loraplus_lets_b_learn_faster(tiny_model_folder: Path, tmp_path: Path) -> None:
    """After one step of AdamW, B has moved by its learning rate, whatever the gradient."""
    moved = []
    for ratio in (None, 8.0):
        lora = LoraSettings(r=4, lora_dropout=0.0, loraplus_lr_ratio=ratio)
        config = config_of(lora=lora, batch_size=12, num_epochs=1, warmup_ratio=0.0)
        run = Trainee(tiny_model_folder, tmp_path / str(ratio), config, eval_rows=None)
        run.train()
        moved.append(max(float(value.abs().max()) for name, value in run.weights.items() if "lora_B" in name))
    assert moved[1] / moved[0] == pytest.approx(8.0, rel=0.05)


def test_accumulating_two_batches_of_two_is_one_batch_of_four(tiny_model_folder: Path, tmp_path: Path) -> None:
    """With the same adapter, the same losses and the same number of steps."""
    big = Trainee(tiny_model_folder, tmp_path / "big", config_of(batch_size=4))
    small = Trainee(tiny_model_folder, tmp_path / "small", config_of(batch_size=2, gradient_accumulation_steps=2))
    big.train()
    small.train()
    torch.testing.assert_close(small.weights, big.weights, rtol=1e-3, atol=1e-6)
    assert small.losses == pytest.approx(big.losses, rel=1e-5)
    assert small.state.steps_done == big.state.steps_done


def test_gradient_checkpointing_changes_nothing(tiny_model_folder: Path, tmp_path: Path) -> None:
    kept = Trainee(tiny_model_folder, tmp_path / "kept", config_of(gradient_checkpointing=False))
    twice = Trainee(tiny_model_folder, tmp_path / "twice", config_of(gradient_checkpointing=True))
    kept.train()
    result = twice.train()
    assert result.facts.gradient_checkpointing is True
    assert result.facts.recomputation == "full"
    torch.testing.assert_close(twice.weights, kept.weights, rtol=1e-4, atol=1e-6)


class TestFailures:
    @pytest.mark.parametrize("loss", [float("nan"), float("inf")])
    def test_loss_that_is_no_number_ends_the_run(self, loss: float) -> None:
        with pytest.raises(
            TrainingError, match=r"the loss became .* at step 7; lower learning_rate \(now 0.001\)"
        ) as error:
            _check_finite("loss", loss, 7, config_of())
        assert error.value.reason is FailureReason.DIVERGED

    def test_so_do_weights_that_are_none(self, tiny_model_folder: Path, tmp_path: Path) -> None:
        run = Trainee(tiny_model_folder, tmp_path / "run")
        base = load_causal_lm(tiny_model_folder, CPU)
        base.model.norm.weight.data.fill_(math.nan)
        with pytest.raises(TrainingError, match="the loss became nan at step 1") as error:
            run.train(base)
        assert error.value.reason is FailureReason.DIVERGED
        assert not any(report.eval_loss for report in run.reporter.reports)

    def test_unknown_target_modules_end_it_before_it_starts(self, tiny_model_folder: Path, tmp_path: Path) -> None:
        config = config_of(lora=LoraSettings(target_modules=("q_proj", "c_attn")))
        run = Trainee(tiny_model_folder, tmp_path / "run", config)
        with pytest.raises(TrainingError, match="target_modules has c_attn, which") as error:
            run.train()
        assert error.value.reason is FailureReason.INVALID_HYPERPARAMETERS
        assert list((tmp_path / "run").iterdir()) == []

    def test_rows_without_room_for_an_answer_are_left_out(self, tiny_model_folder: Path, tmp_path: Path) -> None:
        rows = FakeRows([*TRAIN_ROWS[:6], ([], []), ([], []), *TRAIN_ROWS[6:]])
        run = Trainee(tiny_model_folder, tmp_path / "run", config_of(batch_size=2), rows=rows)
        run.train()
        assert run.state.num_dropped_rows == 2
        assert run.state.tokens_done == 2 * sum(len(input_ids) for input_ids, _ in TRAIN_ROWS)

    def test_a_dataset_that_is_all_prompt_fails(self, tiny_model_folder: Path, tmp_path: Path) -> None:
        rows = FakeRows([([], []) for _ in range(6)])
        run = Trainee(tiny_model_folder, tmp_path / "run", rows=rows, eval_rows=FakeRows([([], [])]))
        with pytest.raises(InvalidDatasetError, match=r"no row of the dataset has room .*max_length=512"):
            run.train()

    def test_held_out_rows_without_room_are_looked_at_once(self, tiny_model_folder: Path, tmp_path: Path) -> None:
        eval_rows = FakeRows([([], [])])
        run = Trainee(tiny_model_folder, tmp_path / "run", eval_rows=eval_rows)
        run.train()
        assert eval_rows.num_passes == 1
        assert [entry.eval_loss for entry in run.state.history] == [None, None, None]
        assert run.state.steps_done == 6

    def test_a_validation_dataset_that_is_all_prompt_fails(self, tiny_model_folder: Path, tmp_path: Path) -> None:
        eval_rows = FakeRows([([], [])])
        run = Trainee(tiny_model_folder, tmp_path / "run", eval_rows=eval_rows, has_validation_dataset=True)
        with pytest.raises(InvalidDatasetError, match="no row of the validation dataset has room for its answer"):
            run.train()

    def test_rows_without_labels_count_as_nothing(self, tiny_model_folder: Path, tmp_path: Path) -> None:
        unlabelled = ([1, 2, 3], [IGNORE_INDEX] * 3)
        run = Trainee(
            tiny_model_folder, tmp_path / "run", config_of(batch_size=1), rows=FakeRows([unlabelled, TRAIN_ROWS[0]])
        )
        run.train()
        assert all(math.isfinite(loss) for loss in run.losses)


class TestLongRows:
    """A third item of a row says how many tokens it has beyond `max_length`."""

    def rows(self) -> FakeRows:
        return FakeRows([TokenArrays(*row, 7 if place in (1, 4) else 0) for place, row in enumerate(TRAIN_ROWS)])

    def warnings(self, run: Trainee) -> list[str]:
        return [report.warning for report in run.reporter.reports if report.warning is not None]

    def test_cut_rows_are_counted_and_told(
        self, tiny_model_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        run = Trainee(tiny_model_folder, tmp_path / "run", config_of(batch_size=2), rows=self.rows())
        with caplog.at_level("WARNING"):
            run.train()
        first, last = self.warnings(run)
        assert first.startswith("Some rows have more than max_length=512 tokens and are cut (long_rows=cut), so ")
        assert last == (
            "2 of 12 rows have more than max_length=512 tokens and are cut (long_rows=cut): 14 tokens are lost, among "
            "them the end-of-turn token of each row; raise max_length (up to 2048), or set long_rows to drop, "
            "split or fail"
        )
        assert [text for text in caplog.messages if "rows have more than" in text] == [first, last]
        assert (run.state.num_long_rows, run.state.num_cut_tokens, run.state.num_dropped_rows) == (2, 14, 0)
        steps = [report for report in run.reporter.reports if report.current_step == 12 and report.current_loss]
        assert (steps[-1].num_long_rows, steps[-1].num_cut_tokens) == (2, 14)

    def test_an_epoch_of_one_step_is_told_of_once(self, tiny_model_folder: Path, tmp_path: Path) -> None:
        run = Trainee(tiny_model_folder, tmp_path / "run", config_of(batch_size=12), rows=self.rows())
        run.train()
        assert [words.split(";")[0][:12] for words in self.warnings(run)] == ["2 of 12 rows"]

    def test_rows_that_are_left_out_are_counted_as_dropped(self, tiny_model_folder: Path, tmp_path: Path) -> None:
        rows = FakeRows([*TRAIN_ROWS[:4], TokenArrays([], [], 9)])
        run = Trainee(tiny_model_folder, tmp_path / "run", config_of(batch_size=5, long_rows="drop"), rows=rows)
        run.train()
        assert (run.state.num_long_rows, run.state.num_cut_tokens, run.state.num_dropped_rows) == (1, 0, 1)
        (warning,) = self.warnings(run)
        assert warning.startswith("1 of 5 rows have more than max_length=512 tokens and are left out (long_rows=drop)")

    def test_rows_that_all_are_left_out_fail_with_the_reason(self, tiny_model_folder: Path, tmp_path: Path) -> None:
        rows = FakeRows([TokenArrays([], [], 9)] * 3)
        run = Trainee(tiny_model_folder, tmp_path / "run", config_of(long_rows="drop"), rows=rows, eval_rows=None)
        with pytest.raises(InvalidDatasetError, match="every row of the dataset has more than max_length=512 tokens"):
            run.train()

    def test_split_rows_are_counted_once_each(self, tiny_model_folder: Path, tmp_path: Path) -> None:
        """The last example of a row that was split says so; one of them has lost tokens as well."""
        pieces = [TokenArrays(*TRAIN_ROWS[0]), TokenArrays(*TRAIN_ROWS[1], is_split=True)]
        lossy = TokenArrays(*TRAIN_ROWS[2], num_over=5, is_split=True)
        rows = FakeRows([*pieces, lossy, *TRAIN_ROWS[3:6]])
        run = Trainee(tiny_model_folder, tmp_path / "run", config_of(batch_size=6, long_rows="split"), rows=rows)
        run.train()
        state = run.state
        assert (state.num_long_rows, state.num_split_rows, state.num_cut_rows, state.num_cut_tokens) == (2, 2, 1, 5)
        (warning,) = self.warnings(run)
        assert warning == (
            "2 of 6 rows have more than max_length=512 tokens and are split into several (long_rows=split), but for 5 "
            "tokens of turns that are too long by themselves; raise max_length (up to 2048), or shorten these rows"
        )
        steps = [report for report in run.reporter.reports if report.current_loss]
        assert (steps[-1].num_split_rows, steps[-1].num_cut_rows) == (2, 1)

    def test_held_out_rows_are_counted_by_themselves(self, tiny_model_folder: Path, tmp_path: Path) -> None:
        eval_rows = FakeRows([TokenArrays(*EVAL_ROWS[0], 3), TokenArrays(*EVAL_ROWS[1])])
        run = Trainee(tiny_model_folder, tmp_path / "run", eval_rows=eval_rows)
        run.train()
        assert (run.state.num_long_eval_rows, run.state.num_long_rows) == (1, 0)
        assert self.warnings(run) == []

    def test_a_resumed_run_doesnt_count_again(self, tiny_model_folder: Path, tmp_path: Path) -> None:
        options: dict[str, Any] = {"config": config_of(batch_size=2), "rows": self.rows()}
        paused = Trainee(tiny_model_folder, tmp_path / "run", reporter=RecordingReporter(pause_after=8), **options)
        paused.train()
        resumed = Trainee(tiny_model_folder, tmp_path / "run", **options)
        resumed.train()
        assert (resumed.state.num_long_rows, resumed.state.num_cut_tokens) == (2, 14)
        assert self.warnings(resumed) == []
