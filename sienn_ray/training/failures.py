"""Reasons why a run failed, in words that a person can act on."""

from __future__ import annotations

import errno

import ray.exceptions
import ray.train

from sienn_ray.errors import (
    ArtifactError,
    FailureReason,
    InvalidBaseModelError,
    InvalidDatasetError,
    MicroBatchMemoryError,
    OutOfReachError,
    SiennError,
    StorageFullError,
    TrainingError,
)
from sienn_ray.retries import is_out_of_reach
from sienn_ray.settings import Settings
from sienn_ray.training.config import TrainingConfig
from sienn_ray.training.micro_batch_limits import MicroBatchLimits

_REASONS: dict[type[SiennError], FailureReason] = {
    InvalidDatasetError: FailureReason.INVALID_DATASET,
    InvalidBaseModelError: FailureReason.INVALID_BASE_MODEL,
    ArtifactError: FailureReason.STORAGE,
    StorageFullError: FailureReason.STORAGE,
    OutOfReachError: FailureReason.OUT_OF_REACH,
}

_TRANSIENT = {FailureReason.OUT_OF_MEMORY, FailureReason.WORKER_LOST}
# What the others of a group say when one of them is gone.
_PEER_WORDS = ("gloo", "NCCL", "Connection closed by peer", "Connection reset by peer")
_MONITOR_WORDS = ("running low on memory", "memory pressure", "OutOfMemory", "(OOM)")


def explain(error: BaseException, config: TrainingConfig, settings: Settings) -> SiennError:
    """Turn what Ray Train raised into an error with a reason and a way out."""
    chain = causes(error)
    own = [cause for cause in chain if isinstance(cause, SiennError)]
    if own:  # what another attempt gets around counts less than what it doesn't
        return min(own, key=lambda cause: isinstance(cause, MicroBatchMemoryError))
    if any(_is_out_of_memory(cause) for cause in chain):
        return TrainingError(
            f"out of memory with batch_size={config.batch_size} and max_length={config.max_length}; lower either "
            "(gradient_accumulation_steps makes up for a smaller batch_size), or choose a smaller base model",
            FailureReason.OUT_OF_MEMORY,
        )
    if any(_is_disk_full(cause) for cause in chain):
        return TrainingError(
            f"no space left for checkpoints at {settings.storage_url} or in a worker's temporary folder; free some, or "
            "set SIENN_STORAGE_URL to a store that has room, then retry the job: it goes on from its last checkpoint",
            FailureReason.STORAGE,
        )
    if any(type(cause).__name__ == "WorkerGroupStartupTimeoutError" for cause in chain):
        return TrainingError(
            f"the training workers found no room on the cluster within {settings.training_start_timeout_s:.0f} s "
            "(SIENN_TRAINING_START_TIMEOUT_S), since others hold it; lower SIENN_MAX_RUNNING_JOBS, "
            "SIENN_ENGINE_NUM_CPUS or SIENN_ENGINE_NUM_GPUS, or add nodes",
            FailureReason.NO_RESOURCES,
        )
    if any(_is_lost_worker(cause) for cause in chain):
        return TrainingError(
            f"training workers were lost more than SIENN_TRAINING_MAX_FAILURES={settings.training_max_failures} times "
            f"since the last checkpoint (killed, or their node went away); last: {_first_line(chain[-1])}",
            FailureReason.WORKER_LOST,
        )
    if (outage := next(filter(is_out_of_reach, chain), None)) is not None:
        return OutOfReachError.of("storage or the model hub", outage)
    return TrainingError(f"{type(chain[-1]).__name__}: {_first_line(chain[-1])}", FailureReason.INTERNAL)


def reason_of(error: SiennError) -> FailureReason:
    """The code that a job fails with."""
    if isinstance(error, TrainingError):
        return error.reason
    fitting = (reason for kind, reason in _REASONS.items() if isinstance(error, kind))
    return next(fitting, FailureReason.INTERNAL)


def is_worth_another_try(error: SiennError) -> bool:
    """Return whether a run may succeed from its last checkpoint: after lost workers, lacking memory, an outage."""
    if isinstance(error, OutOfReachError):
        return True
    return isinstance(error, TrainingError) and error.reason in _TRANSIENT


def micro_batch_limits(error: BaseException) -> MicroBatchLimits:
    """Return the limits that workers ask for which ran out of memory; none where none of them had time to ask."""
    asked = (cause.max_tokens for cause in causes(error) if isinstance(cause, MicroBatchMemoryError))
    return MicroBatchLimits(max_tokens=min(asked, default=None))


def _is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, or Ray's memory monitor killed a worker, which it only tells in words."""
    from sienn_ray.memory_shortage import is_out_of_memory  # brings torch along, and is seldom needed

    if isinstance(error, ray.exceptions.OutOfMemoryError) or is_out_of_memory(error):
        return True
    return isinstance(error, ray.exceptions.RayActorError) and any(words in str(error) for words in _MONITOR_WORDS)


def _is_lost_worker(error: BaseException) -> bool:
    # Ray Train's own class comes without the error behind it.
    if isinstance(error, ray.exceptions.RayActorError) or type(error).__name__ == "WorkerHealthCheckFailedError":
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _PEER_WORDS)


def _is_disk_full(error: BaseException) -> bool:
    is_told = isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}
    # Arrow's file systems, and Ray behind them, pass the words on, but not the number.
    return is_told or "No space left on device" in str(error)


def causes(error: BaseException) -> list[BaseException]:
    """The error and all behind it, outermost first."""
    inner: list[BaseException | None] = [error.__cause__, getattr(error, "cause", None)]
    inner.extend(getattr(error, "worker_failures", {}).values())
    inner.append(getattr(error, "controller_failure", None))
    inner.append(getattr(error, "_base_exc", None))
    inner.append(getattr(error, "health_check_failure", None))
    found = [error]
    for cause in inner:
        if isinstance(cause, BaseException) and cause is not error:
            found.extend(causes(cause))
    return found


def _first_line(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else "no message")[:500]
