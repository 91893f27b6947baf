"""The loss over completion tokens: of a batch, of an optimizer step, of an evaluation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from torch.nn.parallel import DistributedDataParallel

from sienn_ray.datasets.tokenization import IGNORE_INDEX
from sienn_ray.training.batches import Batch
from sienn_ray.training.worker import Worker, global_sum


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


class StepLoss(NamedTuple):
    """What one optimizer step was about, over all workers.

    Args:
        mean: Nats per completion token.
        num_targets: Completion tokens.
        num_tokens: All tokens that aren't padding.
    """

    mean: float
    num_targets: int
    num_tokens: int


def accumulate_gradients(model: torch.nn.Module, micro_batches: Sequence[Batch], worker: Worker) -> StepLoss:
    """Add up the gradients of a step's micro batches, as if all their rows on all workers were one batch.

    The mean is over all completion tokens of the step. A mean of the micro batches' means would weigh a token by how
    few others happen to be in its micro batch.
    """
    num_targets = global_sum(sum(batch.num_targets for batch in micro_batches), worker.device)
    own_loss_sum = 0.0
    for number, batch in enumerate(micro_batches, start=1):
        with _synchronized(model, is_last=number == len(micro_batches)):
            batch_loss_sum = completion_loss_sum(model, batch)  # scalar: summed over completion tokens
            # DDP averages gradients over workers, so each scales its sum to the mean over all workers' tokens.
            scaled = batch_loss_sum * (worker.world_size / num_targets)
            scaled.backward()  # type: ignore[no-untyped-call]
        own_loss_sum += float(batch_loss_sum.detach())
    return StepLoss(
        global_sum(own_loss_sum, worker.device) / num_targets,
        int(num_targets),
        int(global_sum(sum(batch.num_tokens for batch in micro_batches), worker.device)),
    )


def _synchronized(model: torch.nn.Module, *, is_last: bool) -> AbstractContextManager[None]:
    """Let workers exchange gradients once a step, with its last micro batch."""
    if is_last or not isinstance(model, DistributedDataParallel):
        return nullcontext()
    return model.no_sync()


@torch.no_grad()
def evaluate(model: torch.nn.Module, batches: Iterable[Batch], worker: Worker, on_batch: Callable[..., None]) -> float:
    """Mean cross-entropy per completion token over the evaluation rows of all workers, in nats.

    Args:
        model: The adapted base model itself. DDP's wrapper would exchange buffers at each forward pass, and wait for
            ever, since workers may have a batch more or less.
        batches: This worker's rows.
        worker: This worker.
        on_batch: Told after each batch how many are done.
    """
    model.eval()
    loss_sum, num_targets = 0.0, 0
    for number, batch in enumerate(batches, start=1):
        loss_sum += float(completion_loss_sum(model, batch))
        num_targets += batch.num_targets
        on_batch(batch=number)
    return global_sum(loss_sum, worker.device) / max(global_sum(num_targets, worker.device), 1.0)
