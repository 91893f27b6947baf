"""When a run's workers are lost, or its memory runs out, and what the next attempt does otherwise."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import ray.exceptions
import ray.train

from sienn_ray.datasets.schema import RowKind
from sienn_ray.errors import FailureReason, FencedError, MicroBatchMemoryError, TrainingError
from sienn_ray.settings import Settings
from sienn_ray.training import trainer
from sienn_ray.training.config import TrainingConfig
from sienn_ray.training.micro_batch_limits import NO_LIMITS, MicroBatchLimits
from sienn_ray.training.reporting import Progress
from sienn_ray.training.resources import WorkerResources
from sienn_ray.training.spec import Run

SETTINGS = Settings(training_max_failures=1)
RUN = Run("job", TrainingConfig(base_model="m", batch_size=4), RowKind.CONVERSATION, "rows", "adapter")
ROWS: Any = SimpleNamespace(num_train=100, num_eval=0)


class Attempts:
    """Stands in for Ray Train: fails with each of some errors, then succeeds."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.micro_batches: list[MicroBatchLimits] = []
        self.messages: list[str] = []
        self.num_freed = self.num_learned = self.num_cleaned = 0
        self.num_awaited: float = float("inf")
        # Names of the newest checkpoint at each failure.
        self.checkpoints: list[str] = []

    def fit(self, _run: Any, _settings: Any, _storage: Any, spec: Any, *_: Any) -> str:
        self.micro_batches.append(spec.known_limits)
        if self.errors:
            raise self.errors.pop(0)
        return "trained"

    def free(self) -> None:
        self.num_freed += 1

    def learn_of_losses(self, _: Any) -> None:
        self.num_learned += 1

    def clean(self, _: Any, key: str) -> None:
        assert key == "checkpoints/job"
        self.num_cleaned += 1

    def newest_checkpoint(self, _: Any, key: str) -> str | None:
        assert key == "checkpoints/job"
        return self.checkpoints.pop(0) if self.checkpoints else None

    def is_awaited(self) -> bool:
        self.num_awaited -= 1
        return self.num_awaited >= 0

    def report(self, progress: Progress) -> None:
        self.messages.append(progress.message)


def attempt(monkeypatch: pytest.MonkeyPatch, *errors: Exception) -> tuple[Attempts, Any]:
    attempts = Attempts(*errors)
    return attempts, carry_out(monkeypatch, attempts)


def carry_out(monkeypatch: pytest.MonkeyPatch, attempts: Any, *, num_workers: int = 1, use_gpu: bool = False) -> Any:
    resources = WorkerResources(num_workers=num_workers, cpus_per_worker=2, use_gpu=use_gpu)
    monkeypatch.setattr(trainer, "_resources", lambda *_: resources)
    monkeypatch.setattr(trainer, "wait_until_placeable", lambda *_: None)
    monkeypatch.setattr(trainer, "free_placement_groups", attempts.free)
    monkeypatch.setattr(trainer, "wait_until_losses_are_known", attempts.learn_of_losses)
    monkeypatch.setattr(trainer, "_fit", attempts.fit)
    monkeypatch.setattr(trainer, "delete_unfinished_checkpoints", attempts.clean)
    monkeypatch.setattr(trainer, "newest_checkpoint", attempts.newest_checkpoint)
    return trainer._fit_until_it_holds(RUN, SETTINGS, attempts, None, ROWS)  # type: ignore[arg-type]


def failed(cause: Exception) -> Exception:
    error: Exception = ray.train.TrainingFailedError()
    error.__cause__ = cause
    return error


@pytest.mark.parametrize("wrap", [failed, lambda cause: cause], ids=["worker", "controller"])
def test_each_time_memory_runs_out_the_micro_batch_is_halved(monkeypatch: pytest.MonkeyPatch, wrap: Any) -> None:
    killed = ray.exceptions.OutOfMemoryError("killed")
    attempts, result = attempt(monkeypatch, wrap(killed), wrap(killed))
    assert result == "trained"
    assert attempts.micro_batches == [NO_LIMITS, MicroBatchLimits(2), MicroBatchLimits(1)]
    assert attempts.messages[0] == "Out of memory; going on with at most 2 row(s) in a micro batch"
    # Also before the first one, which may follow one that was killed.
    assert (attempts.num_freed, attempts.num_cleaned) == (2, 3)


def test_a_micro_batch_of_one_row_is_the_last_to_be_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TrainingError, match="batch_size=4 and max_length=512; lower either") as caught:
        attempt(monkeypatch, *[ray.exceptions.OutOfMemoryError("killed")] * 3)
    assert caught.value.reason is FailureReason.OUT_OF_MEMORY


def short_of_memory(*max_tokens: int) -> Exception:
    """What comes of workers some of which ran out of memory, the first having only lost its peers."""
    failures: dict[int, Exception] = {0: RuntimeError("NCCL communicator was aborted on rank 0.")}
    failures |= {rank: MicroBatchMemoryError("short", tokens) for rank, tokens in enumerate(max_tokens, start=1)}
    return failed(type("WorkerGroupError", (Exception,), {"worker_failures": failures})())


def test_where_the_base_model_is_shared_out_tokens_are_halved(monkeypatch: pytest.MonkeyPatch) -> None:
    """With as many workers as rows of a batch, and by that of the workers that ran out which has room for least."""
    attempts = Attempts(short_of_memory(4000), short_of_memory(2500, 2000), short_of_memory(1000))
    assert carry_out(monkeypatch, attempts, num_workers=4, use_gpu=True) == "trained"
    assert [limits.max_tokens for limits in attempts.micro_batches] == [None, 4000, 2000, 1000]
    assert [limits.max_examples for limits in attempts.micro_batches] == [None] * 4
    assert attempts.messages[0] == "Out of memory; going on with at most 4000 tokens in a micro batch"


def test_a_worker_with_one_row_at_a_time_has_the_last_word(monkeypatch: pytest.MonkeyPatch) -> None:
    last = TrainingError("one row at a time", FailureReason.OUT_OF_MEMORY)
    failures = {0: MicroBatchMemoryError("short", 100), 1: last}
    attempts = Attempts(failed(type("WorkerGroupError", (Exception,), {"worker_failures": failures})()))
    with pytest.raises(TrainingError) as caught:
        carry_out(monkeypatch, attempts, num_workers=2, use_gpu=True)
    assert caught.value is last


def test_a_killed_worker_with_a_gpu_begins_with_what_it_had(monkeypatch: pytest.MonkeyPatch) -> None:
    """The host's memory ran out, which a GPU's micro batch takes nothing of."""
    killed = failed(ray.exceptions.OutOfMemoryError("killed"))
    attempts = Attempts(killed)
    assert carry_out(monkeypatch, attempts, use_gpu=True) == "trained"
    assert attempts.micro_batches == [NO_LIMITS, NO_LIMITS]
    with pytest.raises(TrainingError) as caught:
        carry_out(monkeypatch, Attempts(killed, killed), use_gpu=True)
    assert caught.value.reason is FailureReason.OUT_OF_MEMORY


def test_lost_workers_are_replaced_as_often_as_set(monkeypatch: pytest.MonkeyPatch) -> None:
    lost = failed(ray.exceptions.RayActorError(error_msg="the node is gone"))
    attempts, result = attempt(monkeypatch, lost)
    assert (result, attempts.micro_batches) == ("trained", [NO_LIMITS, NO_LIMITS])
    # Before workers are placed anew, or some would be on a node that is gone.
    assert attempts.num_learned == 1
    with pytest.raises(TrainingError, match="more than SIENN_TRAINING_MAX_FAILURES=1 times") as caught:
        attempt(monkeypatch, lost, lost)
    assert caught.value.reason is FailureReason.WORKER_LOST


def test_failures_count_anew_after_a_newer_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    lost = failed(ray.exceptions.RayActorError(error_msg="the node is gone"))
    attempts = Attempts(*[lost] * 4)
    attempts.checkpoints = ["checkpoint_1", "checkpoint_2", "checkpoint_3", "checkpoint_4"]
    assert carry_out(monkeypatch, attempts) == "trained"
    attempts = Attempts(*[lost] * 4)
    attempts.checkpoints = ["checkpoint_1", "checkpoint_2", "checkpoint_2", "checkpoint_2"]
    with pytest.raises(TrainingError, match="times since the last checkpoint"):
        carry_out(monkeypatch, attempts)
    assert len(attempts.micro_batches) == 3


@pytest.mark.parametrize("num_awaited", [0, 1])
def test_attempt_that_is_not_awaited_deletes_no_checkpoints(monkeypatch: pytest.MonkeyPatch, num_awaited: int) -> None:
    """Neither at its start nor after a failure: another attempt may be writing them."""
    attempts = Attempts(failed(ray.exceptions.RayActorError(error_msg="the node is gone")))
    attempts.num_awaited = num_awaited
    with pytest.raises(FencedError, match="doesn't await this attempt any more"):
        carry_out(monkeypatch, attempts)
    assert attempts.num_cleaned == num_awaited
