from __future__ import annotations

import errno

import pyarrow as pa
import pytest
import ray.exceptions
import torch
from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError

from sienn_ray.errors import (
    ArtifactError,
    CapacityError,
    FailureReason,
    InvalidBaseModelError,
    InvalidDatasetError,
    OutOfReachError,
    SiennError,
    TrainingError,
)
from sienn_ray.settings import Settings
from sienn_ray.training.config import TrainingConfig
from sienn_ray.training.failures import causes, explain, is_worth_another_try, reason_of

CONFIG = TrainingConfig(base_model="m", batch_size=8, max_length=1024)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        *((TrainingError("words", reason), reason) for reason in FailureReason),
        (InvalidDatasetError("words", 3), FailureReason.INVALID_DATASET),
        (InvalidBaseModelError("words"), FailureReason.INVALID_BASE_MODEL),
        (ArtifactError("words"), FailureReason.STORAGE),
        (CapacityError("words"), FailureReason.INTERNAL),
        (OutOfReachError("words"), FailureReason.OUT_OF_REACH),
    ],
)
def test_every_error_has_a_reason(error: SiennError, reason: FailureReason) -> None:
    assert reason_of(error) is reason


def raised_from(cause: Exception) -> Exception:
    """An error as it comes out of Ray Train: around what really happened."""
    outer = RuntimeError("training failed")
    outer.__cause__ = cause
    return outer


def test_an_error_of_our_own_is_found_behind_others() -> None:
    own = InvalidBaseModelError("gone")
    assert explain(raised_from(raised_from(own)), CONFIG, Settings()) is own


@pytest.mark.parametrize(
    ("cause", "reason", "words"),
    [
        (torch.OutOfMemoryError("CUDA"), FailureReason.OUT_OF_MEMORY, "batch_size=8 and max_length=1024; lower either"),
        (ray.exceptions.RayActorError(), FailureReason.WORKER_LOST, "SIENN_TRAINING_MAX_FAILURES=3"),
        (ZeroDivisionError("by zero"), FailureReason.INTERNAL, "ZeroDivisionError: by zero"),
    ],
)
def test_others_are_put_in_words(cause: Exception, reason: FailureReason, words: str) -> None:
    error = explain(raised_from(cause), CONFIG, Settings())
    assert reason_of(error) is reason
    assert words in error.message


@pytest.mark.parametrize("cause", [OutOfReachError("the hub"), ConnectionResetError("store"), OSError(errno.EBUSY, "")])
def test_an_outage_is_worth_another_attempt(cause: Exception) -> None:
    error = explain(raised_from(cause), CONFIG, Settings())
    assert (type(error), reason_of(error)) == (OutOfReachError, FailureReason.OUT_OF_REACH)
    assert is_worth_another_try(error)


# From Ray's memory monitor, and from Ray where it only knows that the process is gone.
MONITOR_WORDS = "1 worker(s) were killed due to the node running low on memory. Memory on the node was 1.90GB / 2.00GB."
CRASH_WORDS = (
    "Worker exits unexpectedly. Some common causes include: (1) the process was killed by the OOM killer due to high "
    "memory usage, (2) ray stop --force was called, or (3) the worker crashed unexpectedly due to SIGSEGV"
)


def dead_actor(words: str) -> Exception:
    error: Exception = ray.exceptions.RayActorError(error_msg=words)
    return error


@pytest.mark.parametrize(
    "cause",
    [
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes."),
        ray.exceptions.OutOfMemoryError("killed"),
        dead_actor(MONITOR_WORDS),
        dead_actor("The worker was killed due to memory pressure (OOM)."),
    ],
)
def test_short_memory_is_told_from_lost_workers(cause: Exception) -> None:
    error = explain(raised_from(cause), CONFIG, Settings())
    assert reason_of(error) is FailureReason.OUT_OF_MEMORY
    assert "batch_size=8 and max_length=1024; lower either" in error.message


@pytest.mark.parametrize(
    "cause",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.ENOSPC, "Kein Platz"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        pa.ArrowException("Error writing bytes to file. Detail: [errno 28] No space left on device"),
        RuntimeError("checkpoint: No space left on device"),
    ],
)
def test_a_full_disk_is_told_with_what_to_do(cause: Exception) -> None:
    settings = Settings(storage_url="file:///full")
    error = explain(raised_from(cause), CONFIG, settings)
    assert reason_of(error) is FailureReason.STORAGE
    assert "no space left for checkpoints at file:///full" in error.message
    assert "set SIENN_STORAGE_URL to a store that has room, then retry the job" in error.message


def test_another_error_of_a_file_is_none_of_these() -> None:
    error = explain(raised_from(OSError(errno.EACCES, "Permission denied")), CONFIG, Settings())
    assert reason_of(error) is FailureReason.INTERNAL


@pytest.mark.parametrize(
    "words",
    [
        "[../third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer [10.0.0.7]:5821",
        "Connection reset by peer",
        "NCCL communicator was aborted on rank 1.",
    ],
)
def test_a_peer_that_is_gone_is_a_lost_worker(words: str) -> None:
    error = explain(raised_from(RuntimeError(words)), CONFIG, Settings())
    assert reason_of(error) is FailureReason.WORKER_LOST
    assert words in error.message


def test_what_the_last_worker_died_of_is_said() -> None:
    error = explain(raised_from(dead_actor("node 7 went away\nmore")), CONFIG, Settings())
    assert reason_of(error) is FailureReason.WORKER_LOST
    assert error.message.endswith("last: node 7 went away")


def test_a_crash_that_may_have_been_short_memory_is_a_lost_worker() -> None:
    assert reason_of(explain(dead_actor(CRASH_WORDS), CONFIG, Settings())) is FailureReason.WORKER_LOST


class WorkersFailed(Exception):  # noqa: N818
    """As Ray Train tells of them."""

    def __init__(self, *failures: Exception) -> None:
        super().__init__("workers failed")
        self.worker_failures = dict(enumerate(failures))


def test_errors_of_single_workers_are_found() -> None:
    own = InvalidDatasetError("row 7")
    error = raised_from(WorkersFailed(RuntimeError("gloo"), raised_from(own)))
    assert own in causes(error)
    assert explain(error, CONFIG, Settings()) is own


def test_short_memory_of_one_worker_counts_more_than_its_loss_to_the_others() -> None:
    failures = WorkersFailed(RuntimeError("gloo: Connection closed by peer"), torch.OutOfMemoryError("CUDA"))
    assert reason_of(explain(failures, CONFIG, Settings())) is FailureReason.OUT_OF_MEMORY


@pytest.mark.parametrize("reason", FailureReason)
def test_another_try_is_worth_it_after_what_may_not_come_again(reason: FailureReason) -> None:
    is_transient = reason in {FailureReason.OUT_OF_MEMORY, FailureReason.WORKER_LOST}
    assert is_worth_another_try(TrainingError("words", reason)) is is_transient


@pytest.mark.parametrize("error", [InvalidDatasetError("words"), ArtifactError("words"), CapacityError("words")])
def test_but_not_after_errors_that_are_no_training_s(error: SiennError) -> None:
    assert not is_worth_another_try(error)


def test_a_worker_that_stopped_answering_is_a_lost_one() -> None:
    """As Ray Train tells of a killed process: by a class of its own, with nothing behind it."""
    silent = type("WorkerHealthCheckFailedError", (Exception,), {})("A worker health check failed.")
    failed = ray.train.TrainingFailedError()
    failed.__cause__ = silent
    found = explain(failed, CONFIG, Settings())
    assert isinstance(found, TrainingError)
    assert found.reason is FailureReason.WORKER_LOST
    assert is_worth_another_try(found)


@pytest.mark.parametrize("behind", [ray.exceptions.OutOfMemoryError("killed"), dead_actor(MONITOR_WORDS)])
def test_what_is_behind_a_failed_health_check_is_looked_at(behind: Exception) -> None:
    failed = ray.train.TrainingFailedError()
    failed.__cause__ = WorkerHealthCheckFailedError("A worker health check failed.", failure=behind)
    assert reason_of(explain(failed, CONFIG, Settings())) is FailureReason.OUT_OF_MEMORY
