"""The numbers that a run leaves behind, beside its adapter."""

from __future__ import annotations

from dataclasses import dataclass

from sienn_ray.training.rewards import Rewards
from sienn_ray.training.run_state import EvalRecord


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """Summary of a run that has published its adapter.

    Args:
        train_loss: Of the published adapter, mean over the epoch until then; None before the first step.
        eval_loss: Of the published adapter; None where nothing was evaluated on.
        current_loss: `train_loss` of the last record of the history.
        loss_history: One record for each evaluation and each epoch.
        run_method: What was learned by, a `Method`.
        run_precision: Type that was computed in, such as `bfloat16`.
        run_packed: Whether rows shared sequences.
        num_train_rows: Rows that were trained on, an epoch.
        num_eval_rows: Rows that were evaluated on.
        num_dropped_rows: Rows without room for an answer.
        num_tokens: Tokens that were trained on, in all attempts.
        tokens_per_s: `num_tokens` over `train_seconds`.
        train_seconds: Seconds of training without evaluations, in all attempts.
        total_seconds: Seconds of the last attempt.
        num_workers: Workers of the last attempt.
        peak_memory_bytes: Most memory of a worker.
        rows_per_step: Rows of an optimizer step.
        use_gpu: Whether workers had GPUs.
        stop_reason: Why the run ended before its last epoch, if it did.
        best_epoch: Epoch of the published adapter; None where nothing was evaluated on.
        best_step: Steps that it had been trained for; None where nothing was evaluated on.
        adapter_size_bytes: Size of the published files.
        train_rewards: Of answers under the published adapter, means over the epoch until then; None of a loss without
            rewards.
        eval_rewards: Of the rows that were evaluated on, likewise.
    """

    train_loss: float | None
    eval_loss: float | None
    current_loss: float | None
    loss_history: tuple[EvalRecord, ...]
    run_method: str
    run_precision: str
    run_packed: bool
    num_train_rows: int
    num_eval_rows: int
    num_dropped_rows: int
    num_tokens: int
    tokens_per_s: float
    train_seconds: float
    total_seconds: float
    num_workers: int
    peak_memory_bytes: int
    rows_per_step: int
    use_gpu: bool
    stop_reason: str | None
    best_epoch: int | None
    best_step: int | None
    adapter_size_bytes: int
    train_rewards: Rewards | None = None
    eval_rewards: Rewards | None = None
