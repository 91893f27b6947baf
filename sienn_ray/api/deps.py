"""What routes depend on: protocols at the costly edges, and how a route gets at them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Protocol, cast

from fastapi import Depends, Request

from sienn_ray.inference.engine import GenerationRequest, GenerationResult
from sienn_ray.jobs.schema import DatasetRecord, JobRecord
from sienn_ray.settings import Settings
from sienn_ray.storage import Storage


class Tracker(Protocol):
    """The job tracker, as routes see it."""

    async def add_dataset(self, record: DatasetRecord) -> DatasetRecord:
        """Add a dataset."""
        ...

    async def dataset(self, dataset_id: str) -> DatasetRecord:
        """One dataset; raises `NotFoundError`."""
        ...

    async def datasets(self) -> list[DatasetRecord]:
        """All datasets, the newest first."""
        ...

    async def add_job(self, record: JobRecord) -> JobRecord:
        """Add a job to the queue."""
        ...

    async def job(self, job_id: str) -> JobRecord:
        """One job; raises `NotFoundError`."""
        ...

    async def jobs(self) -> list[JobRecord]:
        """All jobs, the newest first."""
        ...


class Engines(Protocol):
    """The engines of all base models."""

    async def generate(self, base_model: str, request: GenerationRequest) -> GenerationResult:
        """Answer one request."""
        ...


@dataclass(frozen=True)
class Backends:
    """Everything behind the API."""

    settings: Settings
    tracker: Tracker
    engines: Engines
    storage: Storage


def _backends(request: Request) -> Backends:
    return cast(Backends, request.app.state.backends)


BackendsDep = Annotated[Backends, Depends(_backends)]
