from __future__ import annotations

import shlex
import shutil
import sys
from dataclasses import dataclass, field
from typing import Any

import pytest
from ray.job_submission import JobStatus

from sienn_ray.jobs.supervision.ray_jobs import RayJobApi, RayJobReport, RayJobState, entrypoint_of, submission_id_of


@dataclass
class _Details:
    status: JobStatus
    message: str | None = None


@dataclass
class _Client:
    """Ray's own client, as far as it is used; its errors carry the HTTP status in their text."""

    details: dict[str, _Details] = field(default_factory=dict)
    error: Exception | None = None
    calls: list[tuple[str, str]] = field(default_factory=list)

    def _find(self, call: str, submission_id: str) -> _Details:
        self.calls.append((call, submission_id))
        if self.error is not None:
            raise self.error
        if submission_id not in self.details:
            raise RuntimeError(f"Request failed with status code 404: job {submission_id} does not exist.")
        return self.details[submission_id]

    def get_job_info(self, submission_id: str) -> _Details:
        return self._find("look", submission_id)

    def stop_job(self, submission_id: str) -> bool:
        return self._find("stop", submission_id).status is JobStatus.RUNNING

    def submit_job(self, *, entrypoint: str, submission_id: str, metadata: dict[str, str]) -> str:
        self.calls.append(("submit", submission_id))
        self.details[submission_id] = _Details(JobStatus.PENDING, entrypoint)
        return submission_id


@pytest.mark.parametrize(
    ("status", "state"),
    [
        (JobStatus.PENDING, RayJobState.ACTIVE),
        (JobStatus.RUNNING, RayJobState.ACTIVE),
        (JobStatus.STOPPED, RayJobState.STOPPED),
        (JobStatus.SUCCEEDED, RayJobState.SUCCEEDED),
        (JobStatus.FAILED, RayJobState.FAILED),
    ],
)
def test_look(status: JobStatus, state: RayJobState) -> None:
    message = "its words" if state is RayJobState.FAILED else ""
    client = _Client({"x": _Details(status, "its words")})
    assert RayJobApi(client).look("x") == RayJobReport(state, message)


def test_unknown_job_is_missing() -> None:
    assert RayJobApi(_Client()).look("x") == RayJobReport(RayJobState.MISSING)


def test_submission_is_made_once() -> None:
    client = _Client()
    for _ in range(2):
        RayJobApi(client).submit("job-1", 2, {})
    assert [call for call, _ in client.calls] == ["look", "submit", "look"]
    words = client.details[submission_id_of("job-1", 2)].message
    assert str(words).endswith("-m sienn_ray.train --job-id job-1 --attempt 2")


@pytest.mark.parametrize(("place", "beginning"), [("/usr/bin/nice", ["nice", "-n", "15"]), (None, [])])
def test_a_program_takes_no_cpus_from_the_api(
    monkeypatch: pytest.MonkeyPatch, place: str | None, beginning: list[str]
) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: place)
    program = [sys.executable, "-m", "sienn_ray.train", "--job-id", "job-1", "--attempt", "2"]
    assert shlex.split(entrypoint_of("job-1", 2)) == [*beginning, *program]


def test_stop() -> None:
    client = _Client({"x": _Details(JobStatus.RUNNING), "y": _Details(JobStatus.SUCCEEDED)})
    for submission_id in ("x", "y", "unknown"):
        RayJobApi(client).stop(submission_id)
    assert client.calls == [("stop", "x"), ("stop", "y"), ("stop", "unknown")]


@pytest.mark.parametrize(
    "error",
    [RuntimeError("Request failed with status code 500: No available agent"), ConnectionResetError("reset")],
)
@pytest.mark.parametrize(
    "ask", [lambda api: api.look("x"), lambda api: api.stop("x"), lambda api: api.submit("job-1", 1, {})]
)
def test_job_api_that_does_not_answer(ask: Any, error: Exception) -> None:
    with pytest.raises(ConnectionError):
        ask(RayJobApi(_Client(error=error)))
