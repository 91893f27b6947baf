"""The LoRA training loop that runs on every Ray Train worker."""

from __future__ import annotations

import logging
import math
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import PreTrainedModel

from sienn_ray.base_model import load_causal_lm, local_folder
from sienn_ray.errors import FailureReason, TrainingError
from sienn_ray.settings import Settings
from sienn_ray.training import checkpoint
from sienn_ray.training.batches import Batch, Collator, iter_own_share, iter_steps
from sienn_ray.training.checkpoint import EpochRecord, RunState
from sienn_ray.training.config import ALL_LINEAR, TrainingConfig
from sienn_ray.training.loss import accumulate_gradients, evaluate
from sienn_ray.training.reporting import Phase, Progress, ProgressMeter, Reporter
from sienn_ray.training.schedules import Schedule
from sienn_ray.training.steps import StepPlan
from sienn_ray.training.target_modules import check_target_modules
from sienn_ray.training.worker import RayTrainWorker, Worker

logger = logging.getLogger(__name__)

# Every worker meets these, and would meet them again.
_NOT_WORTH_ANOTHER_TRY = {FailureReason.DIVERGED, FailureReason.INVALID_HYPERPARAMETERS}


@dataclass(frozen=True)
class LoopSpec:
    """All that a worker needs to know."""

    config: TrainingConfig
    settings: Settings
    reporter: Reporter
    pad_token_id: int
    num_train_rows: int
    num_eval_rows: int


def train_loop(loop_config: dict[str, Any]) -> TrainingError | None:
    """What Ray Train runs on every worker.

    Args:
        loop_config: `{"spec": LoopSpec}`, the one shape that Ray Train passes on.

    Returns:
        An error that every worker meets and that another try would meet again. Ray Train starts the workers anew after
        whatever is raised, so such an error is handed back instead.

    Raises:
        InvalidBaseModelError: The base model can't be had on this node.
    """
    spec: LoopSpec = loop_config["spec"]
    worker = RayTrainWorker()
    base_model = spec.config.base_model
    if worker.rank == 0:
        spec.reporter.report(Progress.of_phase(Phase.LOADING_MODEL, f"Loading base model {base_model}"))
    base = load_causal_lm(local_folder(base_model, spec.settings), worker.device)
    try:
        fine_tune(spec, worker, base)
    except TrainingError as error:
        if error.reason not in _NOT_WORTH_ANOTHER_TRY:
            raise
        return error
    return None


def fine_tune(spec: LoopSpec, worker: Worker, base: PreTrainedModel) -> None:
    """Fine-tune on this worker's rows; checkpoints after each epoch, and goes on from the last one if there is one.

    Raises:
        TrainingError: The loss is no number any more, or the adapter can't sit where it should.
    """
    config, device = spec.config, worker.device
    reporter: Reporter = spec.reporter if worker.rank == 0 else _Silent()

    torch.manual_seed(config.seed)  # the same adapter on every worker
    adapter = add_adapter(base, config)
    torch.manual_seed(config.seed + worker.rank)  # but dropout of its own
    model = worker.prepare(adapter)
    trainable = [parameter for parameter in adapter.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=config.learning_rate, weight_decay=config.weight_decay)
    plan = StepPlan.of(config, worker.world_size)
    num_steps = plan.steps_per_epoch(spec.num_train_rows) * config.num_epochs
    schedule = Schedule(config.lr_scheduler, config.warmup_ratio, num_steps)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule)

    state = _restore(worker, adapter, optimizer, scheduler) or RunState()
    collate = Collator(spec.pad_token_id, device)
    train_shard = worker.shard("train")
    eval_shard = worker.shard("evaluation") if spec.num_eval_rows else None
    meter = ProgressMeter(
        reporter,
        num_epochs=config.num_epochs,
        num_steps=num_steps,
        num_eval_batches=plan.eval_batches(spec.num_eval_rows),
        first_step=state.steps_done,
        first_tokens=state.tokens_done,
        first_seconds=state.train_seconds,
        interval_s=spec.settings.report_interval_s,
    )

    def evaluated(epoch: int) -> float | None:
        if eval_shard is None:
            return None
        batches = _eval_batches(eval_shard, collate, plan, worker)
        # The adapter itself: see `evaluate`.
        loss = evaluate(adapter, batches, worker, partial(meter.eval_batch, epoch=epoch, step=state.steps_done))
        _check_finite("evaluation loss", loss, state.steps_done, config)
        meter.evaluated(epoch=epoch, step=state.steps_done, eval_loss=loss)
        return loss

    if not state.history and eval_shard is not None:
        state.history.append(EpochRecord(0, None, evaluated(0)))

    for epoch in range(state.epochs_done + 1, config.num_epochs + 1):
        model.train()
        meter.begin_epoch()
        loss_sum, num_targets = 0.0, 0
        for micro_batches in iter_steps(
            train_shard,
            collate,
            rows_per_step=plan.rows_per_worker,
            micro_batch_rows=plan.micro_batch_rows,
            shuffle_seed=config.seed + epoch,
        ):
            step_loss = accumulate_gradients(model, micro_batches, worker)
            torch.nn.utils.clip_grad_norm_(trainable, config.max_grad_norm)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            learning_rate = float(scheduler.get_last_lr()[0])
            scheduler.step()

            state.steps_done += 1
            state.tokens_done += step_loss.num_tokens
            _check_finite("loss", step_loss.mean, state.steps_done, config)
            loss_sum += step_loss.mean * step_loss.num_targets
            num_targets += step_loss.num_targets
            meter.step(
                epoch=epoch,
                step=state.steps_done,
                loss=step_loss.mean,
                num_tokens=state.tokens_done,
                learning_rate=learning_rate,
            )
        state.train_seconds = meter.train_seconds
        state.epochs_done = epoch
        state.history.append(EpochRecord(epoch, loss_sum / max(num_targets, 1), evaluated(epoch)))
        _save(worker, adapter, optimizer, scheduler, state)


def add_adapter(model: Any, config: TrainingConfig) -> PeftModel:
    """Wrap a base model with a new LoRA adapter that names its base model by id, not by a local folder.

    Raises:
        TrainingError: The base model has no such target modules.
    """
    targets = config.lora.target_modules
    if targets != ALL_LINEAR:
        check_target_modules(model, targets, config.base_model)
    lora = LoraConfig(
        r=config.lora.r,
        lora_alpha=config.lora.lora_alpha,
        lora_dropout=config.lora.lora_dropout,
        target_modules=targets if targets == ALL_LINEAR else list(targets),
        task_type="CAUSAL_LM",
    )
    adapter = get_peft_model(model, lora)
    adapter.peft_config["default"].base_model_name_or_path = config.base_model
    return adapter


def _eval_batches(shard: Any, collate: Collator, plan: StepPlan, worker: Worker) -> Iterator[Batch]:
    return iter_own_share(
        shard, collate, batch_rows=plan.micro_batch_rows, rank=worker.rank, world_size=worker.world_size
    )


def _check_finite(name: str, loss: float, step: int, config: TrainingConfig) -> None:
    if not math.isfinite(loss):
        raise TrainingError(
            f"the {name} became {loss} at step {step}; lower learning_rate (now {config.learning_rate})",
            FailureReason.DIVERGED,
        )


def _restore(worker: Worker, adapter: PeftModel, optimizer: torch.optim.Optimizer, scheduler: Any) -> RunState | None:
    with worker.last_checkpoint() as folder:
        if folder is None:
            return None
        state = checkpoint.restore(folder, adapter, optimizer, scheduler)
    logger.info("Resuming after epoch %d, step %d", state.epochs_done, state.steps_done)
    return state


def _save(
    worker: Worker, adapter: PeftModel, optimizer: torch.optim.Optimizer, scheduler: Any, state: RunState
) -> None:
    """Report one checkpoint; every worker has to call this, since it is a barrier."""
    metrics = asdict(state.history[-1])
    if worker.rank != 0:
        worker.report(metrics, None)
        return
    with tempfile.TemporaryDirectory(prefix="sienn-checkpoint-") as folder:
        checkpoint.save(Path(folder), adapter, optimizer, scheduler, state)
        worker.report(metrics, Path(folder))


class _Silent:
    """The reporter of all workers but the first."""

    def report(self, progress: Progress) -> None:
        """Tell nobody."""
