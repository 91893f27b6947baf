"""One fine-tune from its dataset to the published adapter: the driver's side of Ray Train."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray.exceptions
import ray.train
from ray.train.torch import TorchTrainer

from sienn_ray.datasets.mixed_rows import MixedRows
from sienn_ray.datasets.mixture_order import MixtureOrder
from sienn_ray.datasets.row_order import NO_ROWS, RowNumbers, RowOrder, held_out_rows
from sienn_ray.datasets.token_stream import RowStore, StoredRows
from sienn_ray.errors import (
    FailureReason,
    FencedError,
    MicroBatchMemoryError,
    OutOfReachError,
    SiennError,
    TrainingError,
)
from sienn_ray.settings import Settings
from sienn_ray.storage import Storage
from sienn_ray.storage_keys import CHECKPOINTS_KEY, checkpoints_key
from sienn_ray.template_check.check import verdict_of
from sienn_ray.template_check.verdict import settled_special_tokens
from sienn_ray.training.failure_budget import FailureBudget
from sienn_ray.training.failures import causes, explain, is_worth_another_try, micro_batch_limits
from sienn_ray.training.long_rows import check_lengths, compute_lengths
from sienn_ray.training.micro_batch_limits import NO_LIMITS, MicroBatchLimits
from sienn_ray.training.publication import assemble, start_facts
from sienn_ray.training.ray_worker import train_loop
from sienn_ray.training.reporting import Phase, Progress, Reporter
from sienn_ray.training.resources import (
    WorkerResources,
    alive_nodes,
    choose_resources,
    free_placement_groups,
    wait_until_losses_are_known,
    wait_until_placeable,
)
from sienn_ray.training.run_state import EvalRecord
from sienn_ray.training.spec import LoopResult, LoopSpec, OrderedRows, Run, RunRows
from sienn_ray.training.steps import StepPlan
from sienn_ray.training.summary import RunSummary
from sienn_ray.training.temporary_folders import clear_left_folders, temporary_folder
from sienn_ray.training.unfinished import delete_unfinished_checkpoints, newest_checkpoint

logger = logging.getLogger(__name__)

# Callbacks of Ray Train that start a process each and have nothing to do here: workers read their rows themselves, and
# a placement group goes with this program, which ends when the controller does.
UNUSED_CALLBACKS = {"DatasetsCallback", "PlacementGroupCleanerCallback"}
# Ray Train's default is to try for ever, also when the workers can never be placed.
_CONTROLLER_FAILURES = 2


class LeanTrainer(TorchTrainer):  # type: ignore[misc]
    """Ray Train's trainer with two processes less, whose start would hold up that of the workers."""

    def _create_default_callbacks(self) -> list[Any]:
        # By name: should they be called otherwise one day, they start as ever.
        found: list[Any] = super()._create_default_callbacks()
        return [callback for callback in found if type(callback).__name__ not in UNUSED_CALLBACKS]


def run_training(run: Run, settings: Settings, reporter: Reporter) -> RunSummary | None:
    """Train and publish; resumes from the last checkpoint when an earlier attempt left one.

    Returns:
        How the run went; None when it was paused.

    Raises:
        SiennError: The run failed for a reason that a person can act on.
    """
    started = time.monotonic()
    clear_left_folders()
    storage = Storage(settings.storage_url, settings.outage_patience_s)
    reporter.report(Progress.of_phase(Phase.LOADING_DATA, "Reading the dataset"))
    rows = _rows(run, storage)
    run = _with_checked_templates(run, settings, storage, reporter)
    _check_lengths(run, settings, storage)
    resources = _resources(run, settings, rows)
    run.timeline.mark("read_dataset")
    starting = Progress.of_phase(Phase.WAITING_FOR_RESOURCES, f"Starting {resources}")
    reporter.report(
        replace(
            starting,
            reserved_cpus=float(resources.num_cpus),
            reserved_gpus=float(resources.num_gpus),
            rows_per_epoch=_rows_per_epoch(run, rows),
        )
    )
    result, last = _fit_until_it_holds(run, settings, reporter, storage, rows)
    if result.is_fenced:
        raise _fenced(run)
    if result.is_paused:
        return None
    reporter.report(Progress.of_phase(Phase.SAVING, "Publishing the adapter"))
    with temporary_folder("adapter") as target, last.as_directory() as source:
        state = assemble(run, Path(source), target, result, rows, start_facts(storage, run.start_key))
        _check_awaited(run, reporter)
        manifest = storage.publish(target, run.adapter_key)
    if run.mixture:
        saving = Progress.of_phase(Phase.SAVING, "Publishing the adapter")
        reporter.report(replace(saving, rows_seen=_rows_seen(run, rows, state.steps_done)))
    history = tuple(_rounded(record) for record in state.history)
    published = _rounded(state.published)
    return RunSummary(
        train_loss=published.train_loss,
        eval_loss=published.eval_loss,
        current_loss=history[-1].train_loss,
        loss_history=history,
        run_method=result.facts.method.value,
        run_precision=result.facts.precision,
        run_packed=result.facts.packed,
        num_train_rows=rows.num_train - state.num_dropped_rows,
        num_eval_rows=rows.num_eval,
        num_dropped_rows=state.num_dropped_rows,
        num_tokens=state.tokens_done,
        tokens_per_s=round(state.tokens_done / max(state.train_seconds, 1e-9), 1),
        train_seconds=round(state.train_seconds, 1),
        total_seconds=round(time.monotonic() - started, 1),
        num_workers=result.facts.num_workers,
        peak_memory_bytes=result.peak_memory_bytes,
        rows_per_step=run.config.rows_per_step,
        use_gpu=resources.use_gpu,
        stop_reason=state.stop_reason,
        best_epoch=state.best_epoch,
        best_step=state.best_step,
        adapter_size_bytes=manifest.size_bytes,
        train_rewards=published.train_rewards,
        eval_rewards=published.eval_rewards,
    )


def delete_checkpoints(run: Run, settings: Settings) -> None:
    """Free the checkpoints of a run that needn't be resumed any more."""
    Storage(settings.storage_url).delete(checkpoints_key(run.job_id))


def _rows(run: Run, storage: Storage) -> RunRows:
    """Divide the rows into those to train on and those to evaluate on."""
    config = run.config
    share = 0.0 if run.validation_rows_key else config.validation_split
    stored, train, held_out = _mixed(run, storage, share) if run.mixture else _plain(run, storage, share)
    evaluation = None
    if run.validation_rows_key is not None:
        other = StoredRows(storage, run.validation_rows_key)
        evaluation = OrderedRows(other, RowOrder.of(other.groups, None, NO_ROWS))
    elif len(held_out):
        evaluation = OrderedRows(stored, RowOrder.of(stored.groups, None, held_out, is_inverted=True))
    return RunRows(train, evaluation)


def _plain(run: Run, storage: Storage, share: float) -> tuple[RowStore, OrderedRows, RowNumbers]:
    """Rows of one dataset, in the order of training, and those that are held out."""
    stored = StoredRows(storage, run.rows_key)
    held_out = held_out_rows(stored.num_rows, share, run.config.seed)
    return stored, OrderedRows(stored, RowOrder.of(stored.groups, run.config.seed, held_out)), held_out


def _mixed(run: Run, storage: Storage, share: float) -> tuple[RowStore, OrderedRows, RowNumbers]:
    """The same of several datasets; each has its share held out."""
    stored = MixedRows(tuple(StoredRows(storage, dataset.rows_key) for dataset in run.mixture))
    held_out = stored.held_out(share, run.config.seed)
    portions = stored.portions([dataset.weight for dataset in run.mixture])
    return stored, OrderedRows(stored, MixtureOrder(portions, run.config.seed, held_out)), held_out


def _by_dataset(run: Run, counts: Sequence[int]) -> dict[str, int]:
    """Counts of a mixture's rows by the id of their dataset."""
    return {dataset.dataset_id: count for dataset, count in zip(run.mixture, counts, strict=True)}


def _rows_per_epoch(run: Run, rows: RunRows) -> dict[str, int] | None:
    """Rows that an epoch has of each dataset of a mixture; None of a run that has no mixture."""
    order = rows.train.order
    return _by_dataset(run, order.portion_rows) if isinstance(order, MixtureOrder) else None


def _rows_seen(run: Run, rows: RunRows, steps_done: int) -> dict[str, int] | None:
    """Rows of each dataset of a mixture that were trained on in so many steps."""
    order = rows.train.order
    if not isinstance(order, MixtureOrder):
        return None
    plan = StepPlan.of(run.config, 1, rows.num_train)
    num_epochs, num_more = divmod(steps_done, plan.steps_per_epoch)
    return _by_dataset(run, order.seen_rows(num_epochs, num_more * plan.rows_per_step))


def _with_checked_templates(run: Run, settings: Settings, storage: Storage, reporter: Reporter) -> Run:
    """Refuse rows that can't be rendered before any worker starts, and settle how special tokens in text are read.

    Most runs find what was found when the job was submitted; a base model that wasn't here then is looked up now.
    """
    found = [(request, verdict_of(request, settings, storage)) for request in run.templates]
    for request, verdict in found:
        verdict.check(request)
    warnings = [words for request, verdict in found for words in verdict.warnings(request)]
    if warnings and newest_checkpoint(storage, checkpoints_key(run.job_id)) is None:
        words = Progress.of_phase(Phase.LOADING_DATA, "Reading the dataset")
        reporter.report(replace(words, warning="; ".join(warnings)))
    if not run.config.is_auto:
        return run
    config = run.config.settled(settled_special_tokens(found) or "text")
    statistics = tuple(replace(request, options=config.render_options) for request in run.statistics)
    return replace(run, config=config, statistics=statistics)


def _check_lengths(run: Run, settings: Settings, storage: Storage) -> None:
    """Refuse rows that are too long before any worker starts, where the run is to fail for them."""

    def tokenizer() -> Any:
        from sienn_ray.base_model import load_tokenizer, tokenizer_folder

        return load_tokenizer(tokenizer_folder(run.config.base_model, settings, run.config.base_model_revision))

    compute = compute_lengths(storage, tokenizer)
    check_lengths(run.config, settings.max_row_tokens, run.statistics, storage, compute)


def _resources(run: Run, settings: Settings, rows: RunRows) -> WorkerResources:
    max_workers = min(rows.num_train, run.config.rows_per_step)
    return choose_resources(settings, run.config.num_workers, max_workers, alive_nodes(), run.config.min_workers)


def _fit_until_it_holds(
    run: Run, settings: Settings, reporter: Reporter, storage: Storage, rows: RunRows
) -> tuple[LoopResult, ray.train.Checkpoint]:
    """Run the loop on Ray Train's workers, again where that may help; each time from the last checkpoint.

    Ray Train's own retries would repeat what can't succeed, and couldn't change the micro batch.

    Raises:
        SiennError: It doesn't help, or was tried often enough.
    """
    budget, limits = FailureBudget(settings.training_max_failures), NO_LIMITS
    _check_awaited(run, reporter)
    delete_unfinished_checkpoints(storage, checkpoints_key(run.job_id))  # of an attempt that was killed
    while True:
        resources = _resources(run, settings, rows)
        wait_until_placeable(resources, settings.training_start_timeout_s)
        spec = LoopSpec(
            run.config,
            settings,
            reporter,
            rows.num_train,
            rows.num_eval,
            row_kind=run.row_kind,
            has_validation_dataset=run.validation_rows_key is not None,
            num_cpus=resources.cpus_per_worker,
            known_limits=limits,
            timeline=run.timeline,
            start_key=run.start_key,
        )
        try:
            return _fit(run, settings, storage, spec, rows, resources)
        except (ray.train.TrainingFailedError, ray.exceptions.RayError) as error:  # the latter: of its controller
            free_placement_groups()
            _check_awaited(run, reporter)
            delete_unfinished_checkpoints(storage, checkpoints_key(run.job_id))
            cause = explain(error, run.config, settings)
            # What a worker says in our words is its last, unless it asks for smaller micro batches.
            is_outage = isinstance(cause, OutOfReachError)
            is_final = not isinstance(cause, OutOfReachError | MicroBatchMemoryError)
            is_last_word = is_final and any(isinstance(inner, SiennError) for inner in causes(error))
            if is_last_word or not is_worth_another_try(cause):
                raise cause from error
            is_short = isinstance(cause, TrainingError) and cause.reason is FailureReason.OUT_OF_MEMORY
            smaller = _smaller(limits, error, run, resources) if is_short else limits
            if smaller != limits:
                limits, words = smaller, f"Out of memory; going on with {smaller} in a micro batch"
            elif is_short and not resources.use_gpu:
                raise cause from error
            else:
                if not budget.allows_another(newest_checkpoint(storage, checkpoints_key(run.job_id))):
                    raise cause from error
                what = "Training workers were lost"
                if is_short or is_outage:
                    what = "Memory ran out" if is_short else "The hub or storage was out of reach"
                words = f"{what} ({budget.num_failures} time(s)); going on from the last checkpoint"
            logger.warning("%s: %s", words, cause.message)
            reporter.report(Progress.of_phase(Phase.WAITING_FOR_RESOURCES, words))
            wait_until_losses_are_known(resources)


def _smaller(limits: MicroBatchLimits, error: BaseException, run: Run, resources: WorkerResources) -> MicroBatchLimits:
    """Return the limits of a micro batch in the next attempt, after memory ran out; the same if they can't be lower.

    A worker that was killed had no time to ask for any: on a CPU it gets half of the rows. One with a GPU was killed
    since the host's memory ran out, which a GPU's micro batch takes nothing of.
    """
    asked = micro_batch_limits(error)
    if asked == NO_LIMITS and not resources.use_gpu:
        rows = limits.max_examples or StepPlan.of(run.config, resources.num_workers, 1).micro_batch_rows
        asked = MicroBatchLimits(max_examples=rows // 2) if rows > 1 else limits
    return limits.tightened(asked)


def _fit(
    run: Run, settings: Settings, storage: Storage, spec: LoopSpec, rows: RunRows, resources: WorkerResources
) -> tuple[LoopResult, ray.train.Checkpoint]:
    trainer = LeanTrainer(
        train_loop,
        train_loop_config={"spec": spec, "rows": rows},
        scaling_config=ray.train.ScalingConfig(
            num_workers=resources.scaling,
            use_gpu=resources.use_gpu,
            resources_per_worker=resources.per_worker,
        ),
        # The same name on the same storage finds the checkpoints of an earlier attempt: that is how a run resumes.
        run_config=ray.train.RunConfig(
            name=run.job_id,
            storage_path=storage.path(CHECKPOINTS_KEY),
            storage_filesystem=storage.arrow_filesystem(),
            failure_config=ray.train.FailureConfig(max_failures=0, controller_failure_limit=_CONTROLLER_FAILURES),
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=settings.checkpoints_kept),
        ),
    )
    # Ray Train gives up placing the workers after this long, each time anew.
    os.environ["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"] = str(
        settings.training_start_timeout_s / (_CONTROLLER_FAILURES + 1)
    )
    result = trainer.fit()
    outcome: LoopResult = result.return_value
    return outcome, result.checkpoint


def _check_awaited(run: Run, reporter: Reporter) -> None:
    """Fence this attempt off from files that another one may write.

    Raises:
        FencedError: The job doesn't await it any more.
    """
    if not reporter.is_awaited():
        raise _fenced(run)


def _fenced(run: Run) -> FencedError:
    return FencedError(f"job {run.job_id} doesn't await this attempt any more; it ends and leaves its files alone")


def _rounded(record: EvalRecord) -> EvalRecord:
    """The same with losses of four decimals and rewards of five."""

    def rounded(loss: float | None) -> float | None:
        return None if loss is None else round(loss, 4)

    return replace(
        record,
        train_loss=rounded(record.train_loss),
        eval_loss=rounded(record.eval_loss),
        train_rewards=record.train_rewards and record.train_rewards.rounded(),
        eval_rewards=record.eval_rewards and record.eval_rewards.rounded(),
    )
