"""The LoRA training loop that runs on every Ray Train worker."""

from __future__ import annotations

import logging
import math
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import ray.train
import ray.train.torch
import torch
import torch.distributed as dist
import torch.nn.functional as F  # noqa: N812
from peft import LoraConfig, PeftModel, get_peft_model

from sienn_ray.base_model import load_causal_lm, local_folder
from sienn_ray.datasets.tokenization import IGNORE_INDEX
from sienn_ray.errors import FailureReason, TrainingError
from sienn_ray.settings import Settings
from sienn_ray.training import checkpoint
from sienn_ray.training.batches import Batch, iter_batches
from sienn_ray.training.checkpoint import EpochRecord, RunState
from sienn_ray.training.config import TrainingConfig
from sienn_ray.training.reporting import Phase, Progress, ProgressMeter, Reporter

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoopSpec:
    """All that a worker needs to know."""

    config: TrainingConfig
    settings: Settings
    reporter: Reporter
    pad_token_id: int
    num_train_rows: int
    num_eval_rows: int

    def num_batches(self, num_rows: int, world_size: int) -> int:
        """Batches of one pass over these rows; Ray gives every worker the same number of rows."""
        return math.ceil(num_rows // world_size / self.micro_batch_size(world_size))

    def micro_batch_size(self, world_size: int) -> int:
        """Rows of one step on one worker."""
        return max(1, self.config.batch_size // world_size)


def train_loop(loop_config: dict[str, Any]) -> TrainingError | None:
    """What Ray Train runs on every worker.

    Args:
        loop_config: `{"spec": LoopSpec}`, the one shape that Ray Train passes on.

    Returns:
        An error that every worker meets and that another try would meet again. Ray Train starts the workers anew after
        whatever is raised, so such an error is handed back instead.
    """
    try:
        fine_tune(loop_config["spec"])
    except TrainingError as error:
        if error.reason is not FailureReason.DIVERGED:
            raise
        return error
    return None


def fine_tune(spec: LoopSpec) -> None:
    """Fine-tune on this worker's shard; checkpoints after each epoch, and goes on from the last one if there is one.

    Raises:
        TrainingError: The loss is no number any more.
        InvalidBaseModelError: The base model can't be had on this node.
    """
    config, world_size = spec.config, ray.train.get_context().get_world_size()
    rank = ray.train.get_context().get_world_rank()
    device = ray.train.torch.get_device()
    reporter: Reporter = spec.reporter if rank == 0 else _Silent()
    reporter.report(Progress.of_phase(Phase.LOADING_MODEL, f"Loading base model {config.base_model}"))

    torch.manual_seed(config.seed)  # the same adapter on every worker
    adapter = add_adapter(load_causal_lm(local_folder(config.base_model, spec.settings), device), config)
    torch.manual_seed(config.seed + rank)  # but dropout of its own
    model = ray.train.torch.prepare_model(adapter)
    trainable = [parameter for parameter in adapter.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=config.learning_rate, weight_decay=config.weight_decay)
    num_steps = spec.num_batches(spec.num_train_rows, world_size) * config.num_epochs
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, WarmupCosine(config.warmup_ratio, num_steps))

    state = _restore(adapter, optimizer, scheduler) or RunState()
    train_shard = ray.train.get_dataset_shard("train")
    eval_shard = ray.train.get_dataset_shard("evaluation") if spec.num_eval_rows else None
    batching: dict[str, Any] = {
        "batch_size": spec.micro_batch_size(world_size),
        "pad_token_id": spec.pad_token_id,
        "device": device,
    }
    meter = ProgressMeter(
        reporter,
        num_epochs=config.num_epochs,
        num_steps=num_steps,
        num_eval_batches=spec.num_batches(spec.num_eval_rows, world_size),
        first_step=state.steps_done,
        interval_s=spec.settings.report_interval_s,
    )
    if eval_shard is not None and not state.history:
        eval_loss = evaluate(model, eval_shard, batching, partial(meter.eval_batch, epoch=0, step=0))
        meter.evaluated(epoch=0, step=0, eval_loss=eval_loss)
        state.history.append(EpochRecord(0, None, eval_loss))

    for epoch in range(state.epochs_done + 1, config.num_epochs + 1):
        model.train()
        meter.begin_epoch()
        loss_sum, token_sum, started = 0.0, 0, time.monotonic()
        for batch in iter_batches(train_shard, shuffle_seed=config.seed + epoch, **batching):
            batch_loss_sum = completion_loss_sum(model, batch)  # scalar: summed over completion tokens
            num_targets = _global_sum(count_targets(batch), device)
            # DDP averages gradients over workers, so each scales its sum to the mean over all workers' tokens.
            (batch_loss_sum * (world_size / num_targets)).backward()
            torch.nn.utils.clip_grad_norm_(trainable, config.max_grad_norm)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            learning_rate = float(scheduler.get_last_lr()[0])
            scheduler.step()

            step_loss = _global_sum(float(batch_loss_sum.detach()), device) / num_targets
            state.steps_done += 1
            state.tokens_done += int(_global_sum(batch.num_tokens, device))
            _check_finite(step_loss, state.steps_done, config)
            loss_sum, token_sum = loss_sum + step_loss * num_targets, token_sum + int(num_targets)
            meter.step(
                epoch=epoch,
                step=state.steps_done,
                loss=step_loss,
                tokens=batch.num_tokens * world_size,
                learning_rate=learning_rate,
            )
        state.train_seconds += time.monotonic() - started
        state.epochs_done = epoch

        record = EpochRecord(epoch, loss_sum / max(token_sum, 1), None)
        if eval_shard is not None:
            on_batch = partial(meter.eval_batch, epoch=epoch, step=state.steps_done)
            eval_loss = evaluate(model, eval_shard, batching, on_batch)
            meter.evaluated(epoch=epoch, step=state.steps_done, eval_loss=eval_loss)
            record = replace(record, eval_loss=eval_loss)
        state.history.append(record)
        _save(adapter, optimizer, scheduler, state, is_writer=rank == 0)


def add_adapter(model: Any, config: TrainingConfig) -> PeftModel:
    """Wrap a base model with a new LoRA adapter that names its base model by id, not by a local folder."""
    lora = LoraConfig(
        r=config.lora.r,
        lora_alpha=config.lora.lora_alpha,
        lora_dropout=config.lora.lora_dropout,
        target_modules=config.lora.target_modules,
        task_type="CAUSAL_LM",
    )
    adapter = get_peft_model(model, lora)
    adapter.peft_config["default"].base_model_name_or_path = config.base_model
    return adapter


class WarmupCosine:
    """Learning rate factor: a linear rise, then half a cosine to zero (Loshchilov & Hutter 2017, arXiv:1608.03983)."""

    def __init__(self, warmup_ratio: float, num_steps: int) -> None:
        self._num_steps = num_steps
        self._num_warmup = min(math.ceil(warmup_ratio * num_steps), max(num_steps - 1, 0))

    def __call__(self, step: int) -> float:
        """Factor for the step that comes after `step` steps are done."""
        if step < self._num_warmup:
            return (step + 1) / (self._num_warmup + 1)
        share_done = (step - self._num_warmup) / max(1, self._num_steps - self._num_warmup)
        return 0.5 * (1.0 + math.cos(math.pi * min(share_done, 1.0)))


def completion_loss_sum(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """Cross-entropy summed over the tokens that have to be produced; in float32."""
    use_bfloat16 = batch.input_ids.is_cuda
    with torch.autocast(batch.input_ids.device.type, torch.bfloat16, enabled=use_bfloat16):
        output = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False)
    logits = output.logits[:, :-1]  # (rows, tokens - 1, vocabulary): position i predicts token i + 1
    targets = batch.labels[:, 1:]  # (rows, tokens - 1)
    is_target = targets != IGNORE_INDEX
    # Selected first: float32 logits over prompts and padding would be the largest tensors of the step.
    return F.cross_entropy(logits[is_target].float(), targets[is_target], reduction="sum")


def count_targets(batch: Batch) -> int:
    """Tokens of a batch that the loss counts."""
    return int((batch.labels[:, 1:] != IGNORE_INDEX).sum())


@torch.no_grad()
def evaluate(model: torch.nn.Module, shard: Any, batching: dict[str, Any], on_batch: Callable[..., None]) -> float:
    """Mean cross-entropy per completion token over the held-out rows of all workers, in nats.

    Args:
        model: The adapted base model, as Ray Train prepared it.
        shard: This worker's held-out rows.
        batching: Arguments of `iter_batches`.
        on_batch: Told after each batch how many are done.
    """
    model.eval()
    loss_sum, token_sum = 0.0, 0
    for number, batch in enumerate(iter_batches(shard, **batching), start=1):
        # A worker's DDP forward synchronizes nothing without gradients, so workers may differ in their batches.
        loss_sum += float(completion_loss_sum(model, batch))
        token_sum += count_targets(batch)
        on_batch(batch=number)
    device = batching["device"]
    return _global_sum(loss_sum, device) / max(_global_sum(token_sum, device), 1.0)


def _global_sum(value: float, device: torch.device) -> float:
    """Sum of a number over all workers."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return value
    total = torch.tensor(value, dtype=torch.float64, device=device)
    dist.all_reduce(total)
    return float(total)


def _check_finite(loss: float, step: int, config: TrainingConfig) -> None:
    if not math.isfinite(loss):
        raise TrainingError(
            f"the loss became {loss} at step {step}; lower learning_rate (now {config.learning_rate})",
            FailureReason.DIVERGED,
        )


def _restore(adapter: PeftModel, optimizer: torch.optim.Optimizer, scheduler: Any) -> RunState | None:
    last = ray.train.get_checkpoint()
    if last is None:
        return None
    with last.as_directory() as folder:
        state = checkpoint.restore(Path(folder), adapter, optimizer, scheduler)
    logger.info("Resuming after epoch %d, step %d", state.epochs_done, state.steps_done)
    return state


def _save(
    adapter: PeftModel, optimizer: torch.optim.Optimizer, scheduler: Any, state: RunState, *, is_writer: bool
) -> None:
    """Report one checkpoint; every worker has to call this, since it is a barrier."""
    metrics = asdict(state.history[-1])
    if not is_writer:
        ray.train.report(metrics)
        return
    with tempfile.TemporaryDirectory(prefix="sienn-checkpoint-") as folder:
        checkpoint.save(Path(folder), adapter, optimizer, scheduler, state)
        ray.train.report(metrics, checkpoint=ray.train.Checkpoint.from_directory(folder))


class _Silent:
    """The reporter of all workers but the first."""

    def report(self, progress: Progress) -> None:
        """Tell nobody."""
