"""Runs of exports without Ray: they publish a few bytes, at once or when a test says so."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from sienn_ray.export.options import ExportFormat, ExportOptions, GgufQuantization
from sienn_ray.export.publication import Publication
from sienn_ray.export.sink import Sink
from sienn_ray.export.targets import Choice, target_of
from sienn_ray.jobs.export_schema import ExportRecord
from sienn_ray.jobs.supervision.export_runs import ExportEnd
from sienn_ray.storage import FileEntry, Storage

CONTENT = b"GGUF" + bytes(range(256)) * 40
MOMENT = datetime(2025, 3, 4, 5, 6, 7, 890_000, tzinfo=UTC)
# A value of each field of a request that isn't its default.
CHOSEN: dict[Choice, Any] = {
    "model_name": "me/ferry",
    "temperature": 0.1,
    "top_p": 0.5,
    "top_k": 3,
    "system": "Be brief.",
    "quantization": "F16",
    "merged": True,
    "adapter_only": True,
}


def export_record(job_id: str = "job-1", **fields: Any) -> ExportRecord:
    """An export of a job as Q8_0 that waits."""
    options = fields.pop("options", ExportOptions(format=ExportFormat.GGUF, quantization=GgufQuantization.Q8_0))
    defaults: dict[str, Any] = {
        "id": options.export_id(job_id),
        "base_model": "owner/model",
        "options": options,
        "created_at": MOMENT,
        "updated_at": MOMENT,
    }
    return ExportRecord(job_id=job_id, **{**defaults, **fields})


def publish(storage: Storage, record: ExportRecord, content: bytes = CONTENT) -> FileEntry:
    """What a run does at its end."""

    def write(file: Sink) -> Iterator[int]:
        yield file.write(content)

    file_name = target_of(record.options.format).file_name(record.options)
    for _ in Publication(storage, record.key).publish(file_name, write):
        pass
    return storage.manifest(record.key).files[0]


class FakeExportRuns:
    """`ExportRuns` in memory.

    Attributes:
        storage: Where the files go.
        is_held: Runs don't end by themselves.
        is_stuck: Runs don't end when they are told to, either.
        held_formats: The same for these formats alone.
        started: What was started, with its memory, in order.
        stopped: Ids of exports of which the run was told to end, each time.
        node_bytes: Memory of the largest node.
    """

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self.is_held = False
        self.is_stuck = False
        self.held_formats: set[ExportFormat] = set()
        self.started: list[tuple[ExportRecord, int]] = []
        self.stopped: list[str] = []
        self.node_bytes: int | None = None
        self._active: dict[str, ExportRecord] = {}
        self._ends: list[ExportEnd] = []

    def start(self, record: ExportRecord, memory_bytes: int) -> None:
        self.started.append((record, memory_bytes))
        self._active[record.id] = record
        if not self.is_held and record.options.format not in self.held_formats:
            self.end(ExportEnd(record, file=publish(self.storage, record)))

    def stop(self, export_id: str) -> None:
        self.stopped.append(export_id)
        if not self.is_stuck:
            self.end(ExportEnd(self._active[export_id], is_cancelled=True))

    def end(self, end: ExportEnd) -> None:
        """Let a run end like this."""
        self._ends.append(end)

    def active(self) -> set[str]:
        return set(self._active)

    def ends(self) -> list[ExportEnd]:
        return list(self._ends)

    def forget(self, export_id: str) -> None:
        self._active.pop(export_id, None)
        self._ends = [end for end in self._ends if end.record.id != export_id]

    def largest_node_bytes(self) -> int | None:
        return self.node_bytes
