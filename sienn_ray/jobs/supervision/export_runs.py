"""Exports as Ray tasks: start one, stop one, and hear how they ended."""

from __future__ import annotations

import functools
import logging
import time
from dataclasses import dataclass
from typing import Any, Protocol

import ray
from ray.exceptions import (
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
    RayError,
    RaySystemError,
    RayTaskError,
    TaskCancelledError,
    WorkerCrashedError,
)

from sienn_ray.errors import ArtifactError, InvalidInputError, SiennError, StorageFullError, first_line
from sienn_ray.jobs.export_schema import ExportFailure, ExportRecord
from sienn_ray.jobs.supervision.export_task import run_export
from sienn_ray.retries import is_out_of_reach
from sienn_ray.settings import Settings
from sienn_ray.storage import FileEntry

logger = logging.getLogger(__name__)

_LOST = (WorkerCrashedError, NodeDiedError, ObjectLostError, RaySystemError)
_PATIENCE_S = 30.0


@dataclass(frozen=True)
class ExportEnd:
    """The end of a run: its file, or its failure.

    Args:
        record: The export as it was when the run began.
        file: What it published.
        failure: Why it didn't; None for a run that was lost or cancelled.
        words: What a user is told.
        is_cancelled: Whether it ended because it was told to.
        is_loss_of_node: Whether it went with its node.
    """

    record: ExportRecord
    file: FileEntry | None = None
    failure: ExportFailure | None = None
    words: str = ""
    is_cancelled: bool = False
    is_loss_of_node: bool = False


class ExportRuns(Protocol):
    """The runs of exports that this process has started."""

    def start(self, record: ExportRecord, memory_bytes: int) -> None:
        """Begin a run; it waits until a node has the memory."""
        ...

    def stop(self, export_id: str) -> None:
        """Tell a run to end; it is among the ends once it has."""
        ...

    def active(self) -> set[str]:
        """Ids of the exports that have a run."""
        ...

    def ends(self) -> list[ExportEnd]:
        """Runs that have ended and aren't forgotten yet."""
        ...

    def forget(self, export_id: str) -> None:
        """Forget a run, since its end is noted, or it doesn't end."""
        ...

    def largest_node_bytes(self) -> int | None:
        """Memory that Ray has to give on the largest node; None where that isn't known."""
        ...


class RayExportRuns:
    """Runs exports as tasks of the cluster that this process has joined.

    Args:
        settings: What a run needs to know.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings.without_secrets()
        self._runs: dict[str, tuple[ExportRecord, Any]] = {}
        # When runs were told to end.
        self._told_at: dict[Any, float] = {}

    def start(self, record: ExportRecord, memory_bytes: int) -> None:
        """Begin a run. A process of its own gives all its memory back at the end."""
        named = _task().options(
            name=f"export {record.id} of job {record.job_id} as {record.options.format}",
            num_cpus=self._settings.export_num_cpus,
            memory=memory_bytes,
        )
        self._runs[record.id] = (record, named.remote(record, self._settings))

    def stop(self, export_id: str) -> None:
        """Raise KeyboardInterrupt in the run, which clears away what it has begun to write; kill it if it goes on.

        It is interrupted once, so that nothing interrupts the clearing away.
        """
        if export_id not in self._runs:
            return
        reference = self._runs[export_id][1]
        if reference not in self._told_at:
            self._told_at[reference] = time.monotonic()
            ray.cancel(reference)
        elif time.monotonic() - self._told_at[reference] > _PATIENCE_S:
            ray.cancel(reference, force=True)

    def active(self) -> set[str]:
        """Ids of the exports that have a run."""
        return set(self._runs)

    def ends(self) -> list[ExportEnd]:
        """Runs that have ended and aren't forgotten yet; each is given until what it did is written down."""
        if not self._runs:
            return []
        references = [reference for _, reference in self._runs.values()]
        done, _ = ray.wait(references, num_returns=len(references), timeout=0)
        return [_end_of(record, reference) for record, reference in self._runs.values() if reference in done]

    def forget(self, export_id: str) -> None:
        """Let go of a run's result."""
        _, reference = self._runs.pop(export_id, (None, None))
        self._told_at.pop(reference, None)

    def largest_node_bytes(self) -> int | None:
        """Memory that Ray has to give on the largest node."""
        sizes = [node["Resources"].get("memory") for node in ray.nodes() if node["Alive"]]
        known = [int(size) for size in sizes if size]
        return max(known) if known else None


@functools.cache
def _task() -> Any:
    """The task of all exports: Ray keeps each function that is decorated for as long as the cluster lives."""
    return ray.remote(max_retries=0, max_calls=1)(run_export)


def _end_of(record: ExportRecord, reference: Any) -> ExportEnd:
    def failed(failure: ExportFailure, words: str) -> ExportEnd:
        return ExportEnd(record, failure=failure, words=words)

    try:
        return ExportEnd(record, file=ray.get(reference))
    except TaskCancelledError:
        return ExportEnd(record, is_cancelled=True)
    except OutOfMemoryError:
        return failed(
            ExportFailure.OUT_OF_MEMORY,
            "the node ran out of memory; end other work on it, or export on a larger one",
        )
    except _LOST as error:
        words = f"{type(error).__name__}: {first_line(error)}"
        return ExportEnd(record, words=words, is_loss_of_node=isinstance(error, NodeDiedError))
    except RayTaskError as error:
        cause = getattr(error, "cause", None)
        if cause is not None and is_out_of_reach(cause):
            return ExportEnd(record, words=first_line(cause))
        return failed(*_reason_of(error))
    except RayError as error:
        return ExportEnd(record, words=f"{type(error).__name__}: {first_line(error)}")


_REASON_OF: tuple[tuple[type[BaseException], ExportFailure], ...] = (
    (InvalidInputError, ExportFailure.INVALID),
    (ArtifactError, ExportFailure.INTERNAL),
    (StorageFullError, ExportFailure.STORAGE_FULL),
    (MemoryError, ExportFailure.OUT_OF_MEMORY),
    (SiennError, ExportFailure.INTERNAL),
)


def _reason_of(error: RayTaskError) -> tuple[ExportFailure, str]:
    cause: Any = getattr(error, "cause", None) or error
    for kind, reason in _REASON_OF:
        if isinstance(cause, kind):
            return reason, cause.message if isinstance(cause, SiennError) else first_line(cause)
    logger.error("an export failed", exc_info=error)
    return ExportFailure.INTERNAL, f"{type(cause).__name__}: {first_line(cause)}"
