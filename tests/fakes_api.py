"""What stands behind the API in tests: a tracker and engines in memory, records, and hand-made multipart bodies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sienn_ray.errors import NotFoundError
from sienn_ray.inference.engine import GenerationRequest, GenerationResult
from sienn_ray.jobs.schema import DatasetRecord, JobRecord
from sienn_ray.training.config import TrainingConfig

BASE_MODEL = "Qwen/Qwen2.5-0.5B-Instruct"
CREATED_AT = datetime(2025, 11, 12, 10, 30, 0, 7_999, tzinfo=UTC)
BOUNDARY = b"0e1d2c3b4a"


class FakeTracker:
    """Keeps records in order of arrival; raises `error`, if one is set, whatever it is asked."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self._datasets: dict[str, DatasetRecord] = {}
        self._jobs: dict[str, JobRecord] = {}

    def _check(self) -> None:
        if self.error is not None:
            raise self.error

    async def add_dataset(self, record: DatasetRecord) -> DatasetRecord:
        self._check()
        return self._datasets.setdefault(record.id, record)

    async def dataset(self, dataset_id: str) -> DatasetRecord:
        self._check()
        if dataset_id not in self._datasets:
            raise NotFoundError(f"Dataset {dataset_id} not found")
        return self._datasets[dataset_id]

    async def datasets(self) -> list[DatasetRecord]:
        self._check()
        return list(reversed(self._datasets.values()))

    async def add_job(self, record: JobRecord) -> JobRecord:
        await self.dataset(record.dataset_id)
        return self._jobs.setdefault(record.id, record)

    async def job(self, job_id: str) -> JobRecord:
        self._check()
        if job_id not in self._jobs:
            raise NotFoundError(f"Job {job_id} not found")
        return self._jobs[job_id]

    async def jobs(self) -> list[JobRecord]:
        self._check()
        return list(reversed(self._jobs.values()))

    def put(self, *records: DatasetRecord | JobRecord) -> None:
        """Have these records stand, in this order."""
        for record in records:
            if isinstance(record, JobRecord):
                self._jobs[record.id] = record
            else:
                self._datasets[record.id] = record

    @property
    def last_job(self) -> JobRecord:
        return list(self._jobs.values())[-1]

    @property
    def num_records(self) -> int:
        return len(self._datasets) + len(self._jobs)


class FakeEngines:
    """Answers every request with `result`, or raises `error`, and remembers what was asked."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.asked: list[tuple[str, GenerationRequest]] = []
        self.result = GenerationResult(
            text="A branch of artificial intelligence.",
            rendered_prompt="<user>What is machine learning?<assistant>",
            num_prompt_tokens=9,
            num_generated_tokens=6,
            finish_reason="stop",
            adapter_cached=False,
            generation_time_s=2.34049,
        )

    async def generate(self, base_model: str, request: GenerationRequest) -> GenerationResult:
        self.asked.append((base_model, request))
        if self.error is not None:
            raise self.error
        return self.result


def dataset_record(**changes: Any) -> DatasetRecord:
    fields: dict[str, Any] = {
        "id": "dataset-1",
        "filename": "conversations.csv",
        "size_bytes": 102_400,
        "sha256": "0" * 64,
        "format": "instruction-response",
        "num_rows": 2,
        "columns": ["instruction", "response"],
        "preview": [{"instruction": "a", "response": "b"}],
        "created_at": CREATED_AT,
    }
    return DatasetRecord(**{**fields, **changes})


def job_record(**changes: Any) -> JobRecord:
    fields: dict[str, Any] = {
        "id": "job-1",
        "dataset_id": "dataset-1",
        "config": TrainingConfig(base_model=BASE_MODEL),
        "created_at": CREATED_AT,
        "updated_at": CREATED_AT,
    }
    return JobRecord(**{**fields, **changes})


@dataclass(frozen=True)
class Part:
    """One part of a multipart body; without `filename` it is a plain form field."""

    content: bytes
    name: bytes = b"file"
    filename: bytes | None = b"rows.csv"

    def encoded(self) -> bytes:
        filename = b"" if self.filename is None else b'; filename="%s"' % self.filename
        disposition = b'Content-Disposition: form-data; name="%s"%s\r\n' % (self.name, filename)
        return b"--%s\r\n%s\r\n%s\r\n" % (BOUNDARY, disposition, self.content)


def multipart_body(parts: Sequence[Part], *, is_closed: bool = True) -> bytes:
    """A body exactly as given, also where no honest client would send it."""
    return b"".join(part.encoded() for part in parts) + (b"--%s--\r\n" % BOUNDARY if is_closed else b"")


def multipart_type() -> str:
    return f"multipart/form-data; boundary={BOUNDARY.decode()}"
