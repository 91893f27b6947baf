from __future__ import annotations

from typing import Any

import pytest
from starlette.testclient import TestClient

from sienn_ray.errors import CapacityError
from sienn_ray.jobs.schema import JobStatus
from tests.support.fakes_api import job_record
from tests.support.in_process_tracker import InProcessTracker

PAUSE, RESUME = "/api/jobs/job-1/pause", "/api/jobs/job-1/resume"


def state_of(response: Any) -> tuple[int, str, str | None]:
    body = response.json()
    return response.status_code, body["status"], body["meta"].get("phase")


def test_waiting_job(client: TestClient, tracker: InProcessTracker) -> None:
    tracker.put(job_record(progress=40))
    response = client.post(PAUSE)
    assert state_of(response)[:2] == (200, "paused")
    assert (response.json()["ended_at"], response.json()["progress"]) == (None, 40)
    assert client.get("/api/jobs/job-1").json() == response.json()
    assert [job["job_id"] for job in client.get("/api/jobs?status=paused").json()["jobs"]] == ["job-1"]
    assert client.get("/api/metrics").json()["application"]["jobs"]["by_status"]["paused"] == 1
    response = client.post(RESUME)
    assert (state_of(response)[:2], response.json()["progress"]) == ((200, "pending"), 40)


def test_running_job_says_that_it_is_pausing(client: TestClient, tracker: InProcessTracker) -> None:
    tracker.put(job_record(status=JobStatus.RUNNING, attempt=1))
    assert state_of(client.post(PAUSE)) == (200, "running", "pausing")
    assert client.post(PAUSE).status_code == 409
    assert state_of(client.post(RESUME)) == (200, "running", "resuming")
    assert client.post(RESUME).status_code == 409


@pytest.mark.parametrize(
    ("path", "status"),
    [
        *((PAUSE, status) for status in JobStatus if status.is_at_rest),
        *((RESUME, status) for status in JobStatus if status is not JobStatus.PAUSED),
    ],
)
def test_of_others_is_a_conflict(client: TestClient, tracker: InProcessTracker, path: str, status: JobStatus) -> None:
    tracker.put(job_record(status=status))
    response = client.post(path)
    assert (response.status_code, set(response.json())) == (409, {"detail", "status_code"})
    assert f"'{status}'" in response.json()["detail"]
    assert tracker.last_job.status is status


def test_paused_job_is_cancelled_before_it_is_deleted(client: TestClient, tracker: InProcessTracker) -> None:
    tracker.put(job_record(status=JobStatus.PAUSED))
    response = client.delete("/api/jobs/job-1")
    assert response.status_code == 409
    assert "POST /api/jobs/job-1/cancel" in response.json()["detail"]
    assert client.post("/api/jobs/job-1/cancel").json()["status"] == "cancelled"
    assert client.delete("/api/jobs/job-1").status_code == 200


@pytest.mark.parametrize("path", [PAUSE, RESUME])
class TestEveryRoute:
    def test_unknown_job(self, client: TestClient, path: str) -> None:
        assert client.post(path).status_code == 404

    def test_tracker_that_is_away_is_a_503(self, client: TestClient, tracker: InProcessTracker, path: str) -> None:
        tracker.fail_with(CapacityError("the job tracker is restarting; try again in a moment"))
        response = client.post(path)
        assert (response.status_code, response.headers["retry-after"]) == (503, "5")

    def test_statuses_are_documented(self, client: TestClient, path: str) -> None:
        operation = client.get("/openapi.json").json()["paths"][path.replace("job-1", "{job_id}")]["post"]
        assert {"200", "404", "409", "503"} <= operation["responses"].keys()
