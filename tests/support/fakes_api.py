"""What stands behind the API in tests: engines and logs in memory, records, and hand-made multipart bodies."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import zip_longest
from types import MappingProxyType
from typing import Any

from sienn_ray.errors import NotFoundError, SiennError
from sienn_ray.inference.engine import GenerationDelta, GenerationRequest, GenerationResult
from sienn_ray.jobs import job_facts
from sienn_ray.jobs.schema import DatasetRecord, JobRecord
from sienn_ray.training.config import TrainingConfig

BASE_MODEL = "Qwen/Qwen2.5-0.5B-Instruct"
CREATED_AT = datetime(2025, 11, 12, 10, 30, 0, 7_999, tzinfo=UTC)
BOUNDARY = b"0e1d2c3b4a"


class FakeEngines:
    """Answers every request with `result`, or raises `error`, and remembers what was asked.

    Attributes:
        error_of: What a request fails with; `error` by default.
        late_error: What a stream ends with in place of the result.
        hangs: Whether answers never come to their end.
        num_running: Answers that are being given.
    """

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.error_of: Callable[[GenerationRequest], Exception | None] = lambda _: self.error
        self.late_error: SiennError | None = None
        self.hangs = False
        self.num_running = 0
        self.asked: list[tuple[str, GenerationRequest]] = []
        self.start_waits: list[float | None] = []
        self.result = GenerationResult(
            text="A branch of artificial intelligence.",
            rendered_prompt="<user>What is machine learning?<assistant>",
            num_prompt_tokens=9,
            num_generated_tokens=6,
            finish_reason="stop",
            adapter_cached=False,
            generation_time_s=2.34049,
        )

    async def generate(
        self, base_model: str, request: GenerationRequest, start_wait_s: float | None = None
    ) -> GenerationResult:
        self.start_waits.append(start_wait_s)
        with self._taken(base_model, request):
            await self._rest()
            return self.result

    async def stream(
        self, base_model: str, request: GenerationRequest, start_wait_s: float | None = None
    ) -> AsyncGenerator[GenerationDelta]:
        self.start_waits.append(start_wait_s)
        with self._taken(base_model, request):
            tokens = self.result.logprobs or ()
            for text, token in zip_longest(re.findall(r"\S+\s*", self.result.text), tokens):
                yield GenerationDelta(text or "", (token,) if token else ())
            await self._rest()
            is_whole = self.late_error is None
            yield GenerationDelta(result=self.result if is_whole else None, error=self.late_error)

    @contextmanager
    def _taken(self, base_model: str, request: GenerationRequest) -> Iterator[None]:
        self.asked.append((base_model, request))
        if error := self.error_of(request):
            raise error
        self.num_running += 1
        try:
            yield
        finally:
            self.num_running -= 1

    async def _rest(self) -> None:
        if self.hangs:
            await asyncio.Event().wait()


class FakeJobLogs:
    """Logs by submission id, as chunks; one that isn't there is not found.

    Attributes:
        asked: Submission id, `tail` and `follow` of each call.
        on_end: Called with the submission id when a log has been read to its end.
    """

    def __init__(self) -> None:
        self.chunks: dict[str, list[bytes]] = {}
        self.asked: list[tuple[str, int | None, bool]] = []
        self.error: Exception | None = None
        self.on_end: Callable[[str], None] = lambda _: None

    async def stream(self, submission_id: str, *, tail: int | None, follow: bool) -> AsyncGenerator[bytes]:
        self.asked.append((submission_id, tail, follow))
        if self.error is not None:
            raise self.error
        if submission_id not in self.chunks:
            raise NotFoundError(f"the cluster has no log of {submission_id}")
        yield b""
        for chunk in self.chunks[submission_id]:
            yield chunk
        self.on_end(submission_id)


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


def job_record(*, facts: Mapping[str, Any] = MappingProxyType({}), **changes: Any) -> JobRecord:
    """A pending job; `facts` are as a row of the database has them."""
    fields: dict[str, Any] = {
        "id": "job-1",
        "dataset_id": "dataset-1",
        "config": TrainingConfig(base_model=BASE_MODEL),
        "created_at": CREATED_AT,
        "updated_at": CREATED_AT,
    }
    return JobRecord(**{**fields, **job_facts.of_flat(facts), **changes})


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
