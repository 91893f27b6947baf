from __future__ import annotations

from datetime import timedelta, timezone
from typing import Any

import pytest
from starlette.testclient import TestClient

from sienn_ray.errors import CapacityError, FailureReason
from sienn_ray.jobs.schema import JobStatus
from sienn_ray.settings import Settings
from sienn_ray.storage import Storage
from sienn_ray.training.config import TrainingConfig
from sienn_ray.training.hyperparameters import HYPERPARAMETERS
from tests.support.fakes_api import BASE_MODEL, CREATED_AT, job_record
from tests.support.in_process_tracker import InProcessTracker


class TestStatus:
    def test_running_job_is_as_the_contract_says(
        self, client: TestClient, tracker: InProcessTracker, settings: Settings
    ) -> None:
        facts = {"current_epoch": 2, "total_epochs": 3, "current_loss": 0.523, "phase": "training"}
        tracker.put(
            job_record(
                status=JobStatus.RUNNING,
                progress=45,
                message="Training in progress: Epoch 2/3",
                attempt=1,
                submission_id="sienn-job-1-1",
                facts=facts,
                updated_at=CREATED_AT + timedelta(minutes=5),
                started_at=CREATED_AT + timedelta(seconds=4),
                name="Ferry",
                labels={"team": "support"},
            )
        )
        response = client.get("/api/training-status/job-1")
        body = response.json()
        meta = body.pop("meta")
        assert response.status_code == 200
        assert body == {
            "job_id": "job-1",
            "dataset_id": "dataset-1",
            "status": "running",
            "progress": 45,
            "message": "Training in progress: Epoch 2/3",
            "created_at": "2025-11-12T10:30:00.007Z",
            "updated_at": "2025-11-12T10:35:00.007Z",
            "name": "Ferry",
            "labels": {"team": "support"},
            "model_name": BASE_MODEL,
            "started_at": "2025-11-12T10:30:04.007Z",
            "ended_at": None,
            "priority": "normal",
            "log_tail": None,
        }
        assert meta.pop("hyperparameters") == {each.name: each.field.default for each in HYPERPARAMETERS}
        assert meta == {
            "model_name": BASE_MODEL,
            "model_revision": None,
            "model_path": f"{settings.home}/storage/adapters/job-1",
            "attempt": 1,
            "ray_submission_id": "sienn-job-1-1",
            "failure_reason": None,
            "validation_dataset_id": None,
            "from_job": None,
            "lineage": [],
            "learning_rate": 2e-4,
            "num_epochs": 3,
            "batch_size": 4,
            "train_loss": 0.523,
            "datasets": [
                {"dataset_id": "dataset-1", "version": 1, "weight": 1.0, "rows_per_epoch": None, "rows_seen": None}
            ],
            **facts,
        }

    def test_rate_and_loss_of_a_run_stand_beside_what_was_asked_for(
        self, client: TestClient, tracker: InProcessTracker
    ) -> None:
        facts = {"learning_rate": 1e-5, "current_loss": 0.4, "epoch_loss": 0.5}
        tracker.put(job_record(status=JobStatus.RUNNING, facts=facts))
        meta = client.get("/api/training-status/job-1").json()["meta"]
        assert (meta["learning_rate"], meta["current_learning_rate"]) == (2e-4, 1e-5)
        assert (meta["current_loss"], meta["train_loss"]) == (0.4, 0.5)

    def test_job_that_has_not_begun_has_the_same_fields(self, client: TestClient, tracker: InProcessTracker) -> None:
        tracker.put(job_record(id="job-0"), job_record())
        body = client.get("/api/training-status/job-1").json()
        assert (body["status"], body["progress"]) == ("pending", 0)
        expected = {"current_epoch": 0, "total_epochs": 3, "current_loss": None, "queue_position": 2}
        assert expected.items() <= body["meta"].items()
        assert body["meta"]["failure_reason"] is None

    def test_failed_job_says_why(self, client: TestClient, tracker: InProcessTracker) -> None:
        reason, message = FailureReason.OUT_OF_MEMORY, "no memory left; lower batch_size"
        tracker.put(job_record(status=JobStatus.FAILED, failure_reason=reason, message=message))
        body = client.get("/api/training-status/job-1").json()
        assert (body["status"], body["message"], body["meta"]["failure_reason"]) == ("failed", message, "out_of_memory")

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_loss_that_is_no_number_is_null(self, client: TestClient, tracker: InProcessTracker, value: float) -> None:
        history = [{"epoch": 1, "train_loss": 0.5, "eval_loss": value}]
        tracker.put(job_record(facts={"current_loss": value, "eval_loss": value, "loss_history": history}))
        meta = client.get("/api/training-status/job-1").json()["meta"]
        assert meta["current_loss"] is None
        assert meta["eval_loss"] is None
        assert meta["loss_history"][0]["eval_loss"] is None

    def test_time_is_utc_whatever_its_zone_was(self, client: TestClient, tracker: InProcessTracker) -> None:
        tracker.put(job_record(created_at=CREATED_AT.astimezone(timezone(timedelta(hours=5, minutes=30)))))
        assert client.get("/api/training-status/job-1").json()["created_at"] == "2025-11-12T10:30:00.007Z"

    def test_whole_second_has_milliseconds_too(self, client: TestClient, tracker: InProcessTracker) -> None:
        tracker.put(job_record(created_at=CREATED_AT.replace(microsecond=0)))
        assert client.get("/api/training-status/job-1").json()["created_at"] == "2025-11-12T10:30:00.000Z"

    def test_job_is_there_under_both_paths(self, client: TestClient, tracker: InProcessTracker) -> None:
        tracker.put(job_record(status=JobStatus.CANCELLED, ended_at=CREATED_AT))
        answer = client.get("/api/jobs/job-1")
        assert answer.status_code == 200
        assert answer.json() == client.get("/api/training-status/job-1").json()
        assert (answer.json()["status"], answer.json()["ended_at"]) == ("cancelled", "2025-11-12T10:30:00.007Z")

    def test_facts_never_hide_what_the_record_says(self, client: TestClient, tracker: InProcessTracker) -> None:
        tracker.put(job_record(attempt=2, facts={"attempt": 7, "model_name": "x", "phase": "training"}))
        meta = client.get("/api/jobs/job-1").json()["meta"]
        assert (meta["attempt"], meta["model_name"], meta["phase"]) == (2, BASE_MODEL, "training")

    @pytest.mark.parametrize("suffix", ["", "/events", "/metrics", "/logs"])
    @pytest.mark.parametrize("job_id", ["job-9", "..%2e", "a" * 65, "%00", "job%0d%0aX-A:b", "%F0%9F%98%80", "'--"])
    def test_unknown_and_strange_ids_are_not_found(self, client: TestClient, job_id: str, suffix: str) -> None:
        response = client.get(f"/api/jobs/{job_id}{suffix}")
        assert response.status_code == 404
        assert response.json().keys() == {"detail", "status_code"}
        assert response.json()["detail"].isprintable()
        assert len(response.json()["detail"]) < 200

    @pytest.mark.parametrize("path", ["/api/jobs/{}", "/api/training-status/{}", "/api/jobs/{}/logs"])
    def test_strange_id_never_reaches_the_tracker(
        self, client: TestClient, tracker: InProcessTracker, path: str
    ) -> None:
        assert client.get(path.format("a%00b")).status_code == 404
        assert tracker.calls == []


def ids(response: Any) -> list[str]:
    assert response.status_code == 200, response.text
    return [job["job_id"] for job in response.json()["jobs"]]


class TestList:
    def test_newest_first_and_a_count(self, client: TestClient, tracker: InProcessTracker) -> None:
        tracker.put(*(job_record(id=f"job-{index}") for index in range(3)))
        response = client.get("/api/jobs")
        assert ids(response) == ["job-2", "job-1", "job-0"]
        assert (response.json()["count"], response.json()["next_cursor"]) == (3, None)

    def test_fields(self, client: TestClient, tracker: InProcessTracker) -> None:
        tracker.put(job_record(status=JobStatus.COMPLETED, progress=100, message="Training completed successfully"))
        assert client.get("/api/jobs").json() == {
            "jobs": [
                {
                    "job_id": "job-1",
                    "dataset_id": "dataset-1",
                    "status": "completed",
                    "progress": 100,
                    "message": "Training completed successfully",
                    "created_at": "2025-11-12T10:30:00.007Z",
                    "updated_at": "2025-11-12T10:30:00.007Z",
                    "name": None,
                    "labels": {},
                    "model_name": BASE_MODEL,
                    "started_at": None,
                    "ended_at": None,
                    "priority": "normal",
                }
            ],
            "count": 1,
            "next_cursor": None,
        }

    def test_empty_list_is_a_list(self, client: TestClient) -> None:
        assert client.get("/api/jobs").json() == {"jobs": [], "count": 0, "next_cursor": None}

    @pytest.mark.parametrize(
        ("query", "expected"),
        [
            ("status=failed", ["c"]),
            ("status=running", []),
            ("dataset_id=dataset-2", ["c", "b"]),
            ("dataset_id=other", []),
            ("dataset_id=../x", []),
            ("dataset_id=%00", []),
            ("model_name=owner/model", ["b"]),
            ("name=F%C3%A4hre", ["a"]),
            ("label=team=support", ["b", "a"]),
            ("label=team=support&label=env=a%3Db", ["b"]),
            ("label=env=", []),
            ("label=team=support&status=pending&name=F%C3%A4hre", ["a"]),
            ("label=team=support&label=team=support", ["b", "a"]),
        ],
    )
    def test_filters(self, client: TestClient, tracker: InProcessTracker, query: str, expected: list[str]) -> None:
        config = TrainingConfig(base_model="owner/model")
        tracker.put(
            job_record(id="a", name="Fähre", labels={"team": "support"}),
            job_record(id="b", dataset_id="dataset-2", config=config, labels={"team": "support", "env": "a=b"}),
            job_record(id="c", validation_dataset_id="dataset-2", status=JobStatus.FAILED),
        )
        response = client.get(f"/api/jobs?{query}")
        assert (ids(response), response.json()["count"]) == (expected, len(expected))

    @pytest.mark.parametrize(
        ("query", "status"),
        [
            ("status=done", 422),
            ("status=", 422),
            ("name=", 422),
            ("name=%00", 422),
            ("name=" + "x" * 201, 422),
            ("model_name=%00", 422),
            ("label=team", 422),
            ("label==support", 422),
            ("label=team=%0d%0a", 422),
            ("label=team=a&label=team=b", 400),
            ("&".join(f"label=k{number}=v" for number in range(33)), 422),
            ("limit=0", 422),
            ("limit=1001", 422),
            ("limit=ten", 422),
            ("cursor=", 422),
            ("cursor=%00", 422),
            ("cursor=" + "a" * 501, 422),
            ("cursor=nonsense&limit=1", 400),
        ],
    )
    def test_what_is_no_filter_is_named(self, client: TestClient, query: str, status: int) -> None:
        response = client.get(f"/api/jobs?{query}")
        assert (response.status_code, response.json()["status_code"]) == (status, status)
        assert query.split("=", 1)[0] in response.json()["detail"]

    def test_pages(self, client: TestClient, tracker: InProcessTracker) -> None:
        tracker.put(*(job_record(id=f"job-{index}", labels={"odd": str(index % 2)}) for index in range(7)))
        seen: list[list[str]] = []
        cursor: str | None = ""
        while cursor is not None:
            response = client.get(f"/api/jobs?limit=3&label=odd=0{cursor and f'&cursor={cursor}'}")
            seen.append(ids(response))
            assert response.json()["count"] == 4
            cursor = response.json()["next_cursor"]
        assert seen == [["job-6", "job-4", "job-2"], ["job-0"]]

    def test_what_comes_or_goes_between_pages_moves_no_job(self, client: TestClient, tracker: InProcessTracker) -> None:
        ended: dict[str, Any] = {"status": JobStatus.FAILED}
        tracker.put(*(job_record(id=f"job-{index}", **ended) for index in range(4)))
        cursor = client.get("/api/jobs?limit=2").json()["next_cursor"]
        tracker.put(job_record(id="job-new"))
        assert client.delete("/api/jobs/job-2").status_code == 200
        assert ids(client.get(f"/api/jobs?limit=2&cursor={cursor}")) == ["job-1", "job-0"]

    def test_page_that_is_full_and_last_has_no_next(self, client: TestClient, tracker: InProcessTracker) -> None:
        tracker.put(job_record(id="a"), job_record(id="b"))
        assert client.get("/api/jobs?limit=2").json()["next_cursor"] is None

    def test_without_a_limit_all_are_there_in_pages_of_the_tracker(
        self, client: TestClient, tracker: InProcessTracker
    ) -> None:
        tracker.put(*(job_record(id=f"job-{index}") for index in range(2001)))
        response = client.get("/api/jobs")
        assert ids(response) == [f"job-{index}" for index in reversed(range(2001))]
        assert (response.json()["count"], tracker.calls) == (2001, ["jobs"] * 3)

    def test_rest_after_a_cursor(self, client: TestClient, tracker: InProcessTracker) -> None:
        tracker.put(*(job_record(id=f"job-{index}") for index in range(4)))
        cursor = client.get("/api/jobs?limit=1").json()["next_cursor"]
        response = client.get(f"/api/jobs?cursor={cursor}")
        assert (ids(response), response.json()["count"]) == (["job-2", "job-1", "job-0"], 4)


def state_of(response: Any) -> tuple[int, str]:
    return response.status_code, response.json().get("status")


class TestCancel:
    def test_waiting_job(self, client: TestClient, tracker: InProcessTracker) -> None:
        tracker.put(job_record())
        response = client.post("/api/jobs/job-1/cancel")
        assert state_of(response) == (200, "cancelled")
        assert response.json()["ended_at"] is not None
        assert response.json()["meta"]["phase"] == "cancelled"
        assert client.get("/api/jobs/job-1").json() == response.json()

    def test_running_job_answers_at_once_and_stops_then(self, client: TestClient, tracker: InProcessTracker) -> None:
        tracker.put(job_record(status=JobStatus.RUNNING, attempt=1))
        response = client.post("/api/jobs/job-1/cancel")
        assert state_of(response) == (200, "cancelled")
        assert response.json()["meta"]["phase"] == "stopping"

    @pytest.mark.parametrize("status", [JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED])
    def test_ended_job_is_a_conflict(self, client: TestClient, tracker: InProcessTracker, status: JobStatus) -> None:
        tracker.put(job_record(status=status))
        response = client.post("/api/jobs/job-1/cancel")
        assert response.status_code == 409
        assert status.value in response.json()["detail"]
        assert tracker.last_job.status is status


class TestRetry:
    @pytest.mark.parametrize("status", [JobStatus.FAILED, JobStatus.CANCELLED])
    def test_goes_back_to_the_queue(self, client: TestClient, tracker: InProcessTracker, status: JobStatus) -> None:
        reason = FailureReason.WORKER_LOST
        tracker.put(job_record(status=status, attempt=3, progress=40, failure_reason=reason, ended_at=CREATED_AT))
        response = client.post("/api/jobs/job-1/retry")
        body = response.json()
        assert state_of(response) == (200, "pending")
        assert (body["job_id"], body["progress"], body["ended_at"]) == ("job-1", 40, None)
        assert (body["meta"]["attempt"], body["meta"]["failure_reason"]) == (3, None)

    @pytest.mark.parametrize("status", [JobStatus.PENDING, JobStatus.RUNNING, JobStatus.COMPLETED])
    def test_of_others_is_a_conflict(self, client: TestClient, tracker: InProcessTracker, status: JobStatus) -> None:
        tracker.put(job_record(status=status))
        response = client.post("/api/jobs/job-1/retry")
        assert response.status_code == 409
        assert status.value in response.json()["detail"]
        assert tracker.last_job.status is status


# Folders with something of a job.
KINDS = ("adapters", "checkpoints", "exports", "logs")


class TestDelete:
    @pytest.mark.parametrize("status", [JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED])
    def test_nothing_is_left(
        self, client: TestClient, tracker: InProcessTracker, storage: Storage, status: JobStatus
    ) -> None:
        tracker.put(job_record(status=status), job_record(id="job-2", status=status))
        for job_id in ("job-1", "job-2"):
            for kind in KINDS:
                storage.write_bytes(f"{kind}/{job_id}/file", b"{}")
        response = client.delete("/api/jobs/job-1")
        assert (response.status_code, response.json()) == (200, {"job_id": "job-1", "deleted": True})
        assert ids(client.get("/api/jobs")) == ["job-2"]
        assert client.post("/api/jobs/job-1/retry").status_code == 404
        tracker.step("deletions")
        for kind in KINDS:
            assert not storage.exists(f"{kind}/job-1")
            assert storage.exists(f"{kind}/job-2/file")
        assert client.get("/api/jobs/job-1").status_code == 404
        assert client.delete("/api/jobs/job-1").status_code == 404

    @pytest.mark.parametrize("status", [JobStatus.PENDING, JobStatus.RUNNING])
    def test_of_what_has_not_ended_is_a_conflict(
        self, client: TestClient, tracker: InProcessTracker, storage: Storage, status: JobStatus
    ) -> None:
        tracker.put(job_record(status=status))
        storage.write_bytes("checkpoints/job-1/state.bin", b"1")
        response = client.delete("/api/jobs/job-1")
        assert response.status_code == 409
        assert "POST /api/jobs/job-1/cancel" in response.json()["detail"]
        assert storage.exists("checkpoints/job-1/state.bin")
        assert tracker.last_job.status is status

    def test_run_that_is_still_stopping_keeps_what_it_writes(
        self, client: TestClient, tracker: InProcessTracker, storage: Storage
    ) -> None:
        tracker.put(job_record(status=JobStatus.RUNNING, attempt=1))
        storage.write_bytes("checkpoints/job-1/state.bin", b"1")
        client.post("/api/jobs/job-1/cancel")
        response = client.delete("/api/jobs/job-1")
        assert response.status_code == 409
        assert "still stopping" in response.json()["detail"]
        assert storage.exists("checkpoints/job-1/state.bin")

    def test_retry_that_comes_first_keeps_its_checkpoints(
        self, client: TestClient, tracker: InProcessTracker, storage: Storage
    ) -> None:
        tracker.put(job_record(status=JobStatus.FAILED, attempt=1))
        storage.write_bytes("checkpoints/job-1/state.bin", b"1")
        tracker.before["delete_job"] = lambda _: tracker.actor.retry_job("job-1")
        assert client.delete("/api/jobs/job-1").status_code == 409
        tracker.step("deletions")
        assert storage.exists("checkpoints/job-1/state.bin")

    def test_dataset_is_free_again(self, client: TestClient, tracker: InProcessTracker) -> None:
        tracker.put(job_record(status=JobStatus.FAILED))
        client.delete("/api/jobs/job-1")
        assert client.get("/api/jobs?dataset_id=dataset-1").json()["count"] == 0


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/jobs"),
        ("GET", "/api/jobs/job-1"),
        ("GET", "/api/training-status/job-1"),
        ("GET", "/api/jobs/job-1/events"),
        ("GET", "/api/jobs/job-1/metrics"),
        ("GET", "/api/jobs/job-1/logs"),
        ("POST", "/api/jobs/job-1/cancel"),
        ("POST", "/api/jobs/job-1/retry"),
        ("DELETE", "/api/jobs/job-1"),
    ],
)
class TestEveryRoute:
    def test_tracker_that_is_away_is_a_503(
        self, client: TestClient, tracker: InProcessTracker, method: str, path: str
    ) -> None:
        tracker.fail_with(CapacityError("the job tracker is restarting; try again in a moment"))
        response = client.request(method, path)
        assert (response.status_code, response.headers["retry-after"]) == (503, "5")

    def test_statuses_are_documented(self, client: TestClient, method: str, path: str) -> None:
        operation = client.get("/openapi.json").json()["paths"][path.replace("job-1", "{job_id}")][method.lower()]
        statuses = {"200", "503"} | ({"400", "422"} if path == "/api/jobs" else {"404"})
        assert statuses <= operation["responses"].keys()
        assert ("409" in operation["responses"]) is (method != "GET")
        for parameter in operation.get("parameters", []):
            assert parameter["description"]
            assert parameter.get("example") or parameter.get("examples") or parameter["schema"]["examples"]
