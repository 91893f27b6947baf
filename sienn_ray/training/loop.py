"""The LoRA training loop."""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedModel

from sienn_ray.compute_threads import SpinControl
from sienn_ray.datasets.token_stream import Share
from sienn_ray.errors import FailureReason, InvalidDatasetError, TrainingError
from sienn_ray.training import checkpoint
from sienn_ray.training.adapter.adapters import make_optimizer, trainable
from sienn_ray.training.checkpoint import Weights
from sienn_ray.training.config import TrainingConfig
from sienn_ray.training.evaluation import Evaluation
from sienn_ray.training.hardware import peak_memory_bytes
from sienn_ray.training.long_rows import RowCounts, first_words, found_words, no_room
from sienn_ray.training.micro_batch_limits import MicroBatchLimits
from sienn_ray.training.preference_signals import PreferenceSignals
from sienn_ray.training.prefetch import Prefetched
from sienn_ray.training.preparation import Learner, prepare
from sienn_ray.training.progress_log import ProgressLog
from sienn_ray.training.reporting import Progress, ProgressMeter, Reporter, RunCommand
from sienn_ray.training.rewards import NO_REWARDS
from sienn_ray.training.run_state import EvalRecord, RunState, read_state
from sienn_ray.training.schedules import Schedule
from sienn_ray.training.spec import LoopResult, LoopSpec, RowSource
from sienn_ray.training.steps import StepPlan
from sienn_ray.training.temporary_folders import temporary_folder
from sienn_ray.training.worker import Worker, global_sums

logger = logging.getLogger(__name__)


class FineTune:
    """One worker's part of a fine-tune.

    It goes on from the last checkpoint if there is one. Rows are being prepared from the moment it is entered.

    Args:
        spec: What to do.
        worker: Its place in the group.
        train: Rows to train on.
        evaluation: Rows to evaluate on, if any.
        pad_token_id: The tokenizer's.
        fetch_start: Gives the folder of the adapter that the run starts from; None where it starts from the base model.
    """

    def __init__(
        self,
        spec: LoopSpec,
        worker: Worker,
        train: RowSource,
        evaluation: RowSource | None,
        pad_token_id: int,
        fetch_start: Callable[[], AbstractContextManager[Path]] | None = None,
    ) -> None:
        self._fetch_start = fetch_start
        self._train_rows = train
        self._eval_rows = evaluation
        self._pad_token_id = pad_token_id
        self._spec = spec
        self._worker = worker
        self._config = spec.config
        self._reporter: Reporter = ProgressLog(spec.reporter) if worker.rank == 0 else _Silent()
        self._plan = StepPlan.of(spec.config, worker.world_size, spec.num_train_rows)
        with worker.last_checkpoint() as folder:
            self._state = RunState() if folder is None else read_state(folder)
        self._best_weights: Weights | None = None
        self._is_fenced = False
        self._threads = ExitStack()
        self._is_float16 = False

    def __enter__(self) -> FineTune:
        share = Share(self._plan.rows_per_step, self._worker.rank, self._worker.world_size)
        source = self._train_rows.steps(share, first_step=self._state.steps_done, num_steps=self._plan.num_steps)
        self._rows = self._threads.enter_context(Prefetched(source))
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.close()

    def train(self, base: PreTrainedModel) -> LoopResult:
        """Train until the last epoch, or until something else ends it.

        Raises:
            TrainingError: The loss is no number any more, or memory doesn't suffice.
            InvalidDatasetError: No row has room for its answer.
            OSError: A checkpoint can't be written.
        """
        spec, config, plan, state = self._spec, self._config, self._plan, self._state
        state.tighten(spec.known_limits)
        learner = prepare(
            base,
            config,
            self._worker,
            plan,
            pad_token_id=self._pad_token_id,
            row_kind=spec.row_kind,
            known_limits=state.known_limits,
            fetch_start=self._fetch_start,
        )
        self._is_float16 = learner.gradients.loss_scale.is_used
        parameters = trainable(learner.adapter)
        optimizer = make_optimizer(learner.adapter, config)
        peak_rates = [float(group["lr"]) for group in optimizer.param_groups]
        schedule = Schedule(config.lr_scheduler, config.warmup_ratio, plan.num_steps)
        if learner.restored is not None:
            optimizer.load_state_dict(learner.restored.optimizer_state)
            self._best_weights = learner.restored.best_weights
            epochs_done = state.steps_done // plan.steps_per_epoch
            logger.info("Resuming after epoch %d, step %d", epochs_done, state.steps_done)
        spec.timeline.mark("prepare_adapter")
        evaluation = Evaluation(
            self._eval_rows,
            spec.num_eval_rows,
            learner,
            self._worker,
            rows_per_batch=max(plan.micro_batch_rows, (learner.facts.micro_batch_tokens or 0) // config.max_length),
        )
        meter = ProgressMeter(
            self._reporter,
            num_epochs=config.num_epochs,
            num_steps=plan.num_steps,
            num_eval_batches=evaluation.num_batches,
            first_step=state.steps_done,
            first_tokens=state.tokens_done,
            first_seconds=state.train_seconds,
            interval_s=spec.settings.report_interval_s,
            start_words="the base model" if self._fetch_start is None else "the adapter that it starts from",
        )
        signals = PreferenceSignals(learner.facts.method, config)
        spin = SpinControl()
        keeper = _Keeper(self._worker, learner, optimizer, spec.settings.checkpoint_interval_s)
        began = time.monotonic() - state.elapsed_s

        # Collated by a thread of their own, since rows are being prepared before it is known how they are divided.
        collated = ((step, learner.collator.step(rows)) for step, rows in self._rows)
        for step, own in self._threads.enter_context(Prefetched(collated)):
            if state.is_done:
                break
            epoch = plan.epoch_of(step)
            learner.adapter.train()
            meter.begin_step()
            checkpoint.seed_step(config.seed, step, self._worker.rank)
            for group, peak_rate in zip(optimizer.param_groups, peak_rates, strict=True):
                group["lr"] = peak_rate * schedule(step)
            unread, norm = learner.gradients.accumulate(parameters, own), None
            if unread.weight:
                with learner.gradients.telling_shortage():
                    norm = torch.nn.utils.clip_grad_norm_(parameters, config.max_grad_norm)
                    optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            # The one wait for a GPU. If the step went wrong, so did its update, which no checkpoint will have.
            loss, norm_value = unread.read(norm)
            if loss.weight:
                _check_finite("loss", loss.mean, step + 1, config, is_float16=self._is_float16)
                _check_finite("gradient's norm", norm_value, step + 1, config, is_float16=self._is_float16)
            spin.look()

            state.steps_done = step + 1
            state.tokens_done += loss.num_tokens
            if loss.weight:
                state.epoch_loss_sum += loss.mean * loss.weight
                state.epoch_weight += loss.weight
                state.epoch_rewards = state.epoch_rewards.plus(loss.rewards)
            state.tighten(MicroBatchLimits(max_tokens=learner.collator.lowered_to))
            if learner.gradients.loss_scale.is_used:
                state.loss_scale = learner.gradients.loss_scale.value
                state.loss_scale_clean_steps = learner.gradients.loss_scale.clean_steps
            state.elapsed_s = time.monotonic() - began
            if loss.weight:
                meter.step(
                    epoch=epoch,
                    step=state.steps_done,
                    loss=loss.mean,
                    num_tokens=state.tokens_done,
                    learning_rate=config.learning_rate * schedule(step),
                    rewards=loss.rewards.means(),
                )
            state.train_seconds = meter.train_seconds
            if not spec.timeline.is_complete:
                spec.timeline.mark("first_step")
                spec.timeline.complete()
                meter.tell_timeline(spec.timeline.seconds(), epoch=epoch, step=state.steps_done)

            if evaluation.num_rows and not any(entry.step == 0 for entry in state.history):
                self._evaluate_start(evaluation, meter)
            ends_epoch = plan.ends_epoch(state.steps_done)
            had_long_rows = state.num_long_rows > 0
            wishes = self._agree(keeper, own.counts, epoch)
            if wishes.is_stop:
                break
            if ends_epoch:
                self._check_room(epoch)
            is_eval_due = config.eval_steps is not None and state.steps_done % config.eval_steps == 0
            if ends_epoch or is_eval_due or wishes.is_time_up:
                self._evaluate(evaluation, meter, learner)
                state.elapsed_s = time.monotonic() - began
            if ends_epoch:
                for words in signals.warnings(state.epoch_rewards, epoch, plan.num_epochs):
                    meter.warn(words, epoch=epoch, step=state.steps_done)
                state.epoch_loss_sum, state.epoch_weight, state.epoch_rewards = 0.0, 0, NO_REWARDS
            self._decide_end(wishes)
            if epoch == 1:
                self._tell_of_long_rows(meter, is_news=not had_long_rows, is_last=ends_epoch or state.is_done)
            if ends_epoch or state.is_done or wishes.is_pause or wishes.is_checkpoint_due:
                keeper.save(state, self._best_weights)
            if wishes.is_pause and not state.is_done:
                break
        spin.end()
        return LoopResult(
            is_paused=not state.is_done,
            is_fenced=self._is_fenced,
            facts=learner.facts,
            timeline=spec.timeline.seconds(),
            peak_memory_bytes=peak_memory_bytes(self._worker.device),
        )

    def _evaluate(self, evaluation: Evaluation, meter: ProgressMeter, learner: Learner) -> None:
        """Evaluate where there is anything to evaluate on, and keep the best adapter."""
        state = self._state
        epoch = self._plan.epoch_of(state.steps_done - 1)
        train_loss = state.epoch_loss_sum / state.epoch_weight if state.epoch_weight else None
        train_rewards = state.epoch_rewards.means()
        found = evaluation.run(meter, epoch=epoch, step=state.steps_done) if evaluation.num_rows else None
        eval_loss = None if found is None else found.loss
        eval_rewards = None if found is None else found.rewards
        if eval_loss is not None:
            _check_finite("evaluation loss", eval_loss, state.steps_done, self._config, is_float16=self._is_float16)
            meter.evaluated(
                epoch=epoch, step=state.steps_done, eval_loss=eval_loss, train_loss=train_loss, rewards=eval_rewards
            )
        elif train_loss is not None and self._plan.ends_epoch(state.steps_done):
            meter.epoch_done(epoch=epoch, step=state.steps_done, train_loss=train_loss)
        record = EvalRecord(epoch, train_loss, eval_loss, state.steps_done, train_rewards, eval_rewards)
        state.history.append(record)
        if eval_loss is None:
            return
        if state.best_eval_loss is None or eval_loss < state.best_eval_loss:
            state.best_eval_loss, state.best_step, state.best_epoch = eval_loss, state.steps_done, epoch
            state.evals_without_gain = 0
            self._best_weights = checkpoint.adapter_weights(learner.adapter)
        else:
            state.evals_without_gain += 1

    def _evaluate_start(self, evaluation: Evaluation, meter: ProgressMeter) -> None:
        """Evaluate the model that the run starts from, to compare with; after the first step, which doesn't wait."""
        found = evaluation.run(meter, epoch=0, step=self._state.steps_done, is_start=True)
        if found is None and self._spec.has_validation_dataset:
            raise self._no_room("validation dataset")
        if found is not None:
            _check_finite("evaluation loss", found.loss, 0, self._config, is_float16=self._is_float16)
            meter.evaluated(epoch=0, step=0, eval_loss=found.loss, rewards=found.rewards)
        loss, rewards = (None, None) if found is None else (found.loss, found.rewards)
        self._state.history.insert(0, EvalRecord(0, None, loss, 0, None, rewards))
        self._state.num_long_eval_rows = evaluation.num_long_rows

    def _tell_of_long_rows(self, meter: ProgressMeter, *, is_news: bool, is_last: bool) -> None:
        """Warn of rows that are too long: when the first is met, and once all were read."""
        state, config = self._state, self._config
        if not state.num_long_rows or not (is_news or is_last):
            return
        meter.count_long_rows(
            num_long=state.num_long_rows,
            num_split=state.num_split_rows,
            num_cut=state.num_cut_rows,
            num_cut_tokens=state.num_cut_tokens,
        )
        max_row_tokens = self._spec.settings.max_row_tokens
        words = first_words(config, max_row_tokens)
        if is_last:
            words = found_words(
                config,
                max_row_tokens,
                num_long=state.num_long_rows,
                num_rows=self._spec.num_train_rows,
                num_cut_tokens=state.num_cut_tokens,
            )
        meter.warn(words, epoch=1, step=state.steps_done)

    def _agree(self, keeper: _Keeper, counts: RowCounts, epoch: int) -> _Wishes:
        """What the first worker wants, on all of them: each must leave the loop at the same step."""
        state, limit = self._state, self._config.max_train_time_s
        is_first = self._worker.rank == 0
        own = [
            float(is_first and keeper.is_due),
            float(is_first and self._reporter.command() is RunCommand.PAUSE),
            float(is_first and limit is not None and state.elapsed_s >= limit),
            float(counts.num_dropped),
            float(counts.num_long),
            float(counts.num_split),
            float(counts.num_cut),
            float(counts.num_cut_tokens),
            float(is_first and self._reporter.command() is RunCommand.STOP),
        ]
        due, pause, time_up, dropped, long, split, cut, tokens, stop = global_sums(own, self._worker.device)
        if epoch == 1:
            state.num_dropped_rows += int(dropped)
            state.num_long_rows += int(long)
            state.num_split_rows += int(split)
            state.num_cut_rows += int(cut)
            state.num_cut_tokens += int(tokens)
        self._is_fenced = bool(stop)
        return _Wishes(bool(due), bool(pause), bool(time_up), bool(stop))

    def _decide_end(self, wishes: _Wishes) -> None:
        state, patience = self._state, self._config.early_stopping_patience
        if state.steps_done >= self._plan.num_steps:
            state.is_done = True
        elif patience is not None and state.evals_without_gain >= patience:
            state.is_done, state.stop_reason = True, "early_stopping"
        elif wishes.is_time_up:
            state.is_done, state.stop_reason = True, "max_train_time_s"

    def _check_room(self, epoch: int) -> None:
        if epoch == 1 and self._state.num_dropped_rows >= self._spec.num_train_rows:
            raise self._no_room("dataset")

    def _no_room(self, name: str) -> InvalidDatasetError:
        return no_room(self._config, self._spec.settings.max_row_tokens, name)


@dataclass(frozen=True)
class _Wishes:
    """What is to be done after a step."""

    is_checkpoint_due: bool
    is_pause: bool
    is_time_up: bool
    # Neither a checkpoint nor anything else is to be written.
    is_stop: bool


class _Keeper:
    """Writes checkpoints, and knows when one is due."""

    def __init__(self, worker: Worker, learner: Learner, optimizer: torch.optim.Optimizer, interval_s: float) -> None:
        self._worker = worker
        self._learner = learner
        self._optimizer = optimizer
        self._interval_s = interval_s
        self._last = time.monotonic()

    @property
    def is_due(self) -> bool:
        """Return whether the last one is long enough ago."""
        return time.monotonic() - self._last >= self._interval_s

    def save(self, state: RunState, best_weights: Weights | None) -> None:
        """Report one checkpoint; every worker has to call this, since it is a barrier.

        Raises:
            OSError: The disk is full.
        """
        learner = self._learner
        metrics = {"step": state.steps_done, "eval_loss": state.history[-1].eval_loss if state.history else None}
        if self._worker.rank != 0:
            self._worker.report(metrics, None)
            return
        is_best = state.best_step == state.steps_done
        with temporary_folder("checkpoint") as folder:
            checkpoint.save(
                folder,
                learner.adapter,
                checkpoint.adapter_weights(learner.adapter),
                None if is_best else best_weights,
                self._optimizer.state_dict(),
                copy.copy(state),
                learner.start_weights,
            )
            self._worker.report(metrics, folder)
        self._last = time.monotonic()


def _check_finite(name: str, value: float, step: int, config: TrainingConfig, *, is_float16: bool = False) -> None:
    if math.isfinite(value):
        return
    way_out = f"lower learning_rate (now {config.learning_rate})"
    if is_float16:  # which holds no number above 65,504, and many models are made for those of bfloat16
        way_out += ", or set precision=float32, since this run computes in float16"
    raise TrainingError(f"the {name} became {value} at step {step}; {way_out}", FailureReason.DIVERGED)


class _Silent:
    """The reporter of all workers but the first."""

    def report(self, progress: Progress) -> None:
        """Tell nobody."""

    def command(self) -> RunCommand:
        """The first worker hears of wishes."""
        return RunCommand.GO_ON

    def is_awaited(self) -> bool:
        """The first worker hears of that, too."""
        return True
