"""The place of a log is that of the Ray job, and errors of Ray's job API become those of `RayLogs`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
from ray.job_submission import JobStatus

from sienn_ray.jobs.supervision.ray_logs import LogPlace, RayLogApi


@dataclass
class _Details:
    status: JobStatus
    driver_node_id: str | None = "node-1"


@dataclass
class _Client:
    """Ray's own client, as far as logs need it."""

    answer: _Details | Exception
    batches: tuple[str, ...] = ()

    def get_job_info(self, submission_id: str) -> _Details:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    async def tail_job_logs(self, submission_id: str) -> AsyncIterator[str]:
        for batch in self.batches:
            yield batch
        if isinstance(self.answer, Exception):
            raise self.answer


@pytest.mark.parametrize(
    ("details", "place"),
    [
        (_Details(JobStatus.PENDING, None), LogPlace(None, False)),
        (_Details(JobStatus.RUNNING), LogPlace("node-1", False)),
        (_Details(JobStatus.FAILED), LogPlace("node-1", True)),
    ],
)
def test_place_of_a_log(details: _Details, place: LogPlace) -> None:
    assert RayLogApi(_Client(details)).look("x") == place


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (RuntimeError("Request failed with status code 404: job x does not exist."), LookupError),
        (RuntimeError("Request failed with status code 500: No available agent"), ConnectionError),
        (ConnectionResetError("reset"), ConnectionError),
    ],
)
def test_error_of_the_job_api(error: Exception, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        RayLogApi(_Client(error)).look("x")


def test_log_is_followed_until_the_connection_ends() -> None:
    read: list[bytes] = []

    async def follow() -> None:
        async for chunk in RayLogApi(_Client(RuntimeError("closed"), ("a", "b"))).follow("x"):
            read.append(chunk)

    with pytest.raises(ConnectionError):
        asyncio.run(follow())
    assert read == [b"a", b"b"]
