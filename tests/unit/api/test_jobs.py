from __future__ import annotations

import re
from datetime import timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from sienn_ray.errors import FailureReason
from sienn_ray.jobs.schema import JobStatus
from sienn_ray.settings import Settings
from sienn_ray.training.config import TrainingConfig
from tests.fakes_api import BASE_MODEL, CREATED_AT, FakeTracker, dataset_record, job_record

START = "/api/start-finetuning"
TIMESTAMP = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"


def start(client: TestClient, **fields: Any) -> Any:
    return client.post(START, json={"dataset_id": "dataset-1", **fields})


@pytest.fixture
def dataset(tracker: FakeTracker) -> str:
    tracker.put(dataset_record())
    return "dataset-1"


@pytest.mark.usefixtures("dataset", "cached_base_model")
class TestStart:
    def test_answer_is_that_of_the_contract(self, client: TestClient) -> None:
        response = start(client)
        body = response.json()
        assert response.status_code == 201
        assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", body.pop("job_id"))
        assert re.fullmatch(TIMESTAMP, body.pop("created_at"))
        assert body == {
            "status": "pending",
            "dataset_id": "dataset-1",
            "message": "Fine-tuning job submitted successfully",
        }

    def test_defaults_are_those_of_the_contract(self, client: TestClient, tracker: FakeTracker) -> None:
        start(client)
        assert tracker.last_job.config == TrainingConfig(
            base_model="Qwen/Qwen2.5-0.5B-Instruct",
            learning_rate=0.0002,
            num_epochs=3,
            batch_size=4,
            max_length=512,
            seed=42,
        )

    def test_every_field_reaches_the_job(self, client: TestClient, tracker: FakeTracker) -> None:
        fields = {"learning_rate": 3e-4, "num_epochs": 2, "batch_size": 8, "max_length": 1024, "seed": 7}
        start(client, model_name=BASE_MODEL, **fields)
        job = tracker.last_job
        assert job.config == TrainingConfig(base_model=BASE_MODEL, **fields)
        assert (job.dataset_id, job.status, job.progress) == ("dataset-1", JobStatus.PENDING, 0)
        assert job.created_at == job.updated_at

    @pytest.mark.parametrize(
        ("field", "inside", "outside"),
        [
            ("learning_rate", [1e-5, 1e-3, "0.0002"], [9.9e-6, 1.01e-3, 0, -1e-4, "fast", None, [1e-4]]),
            ("num_epochs", [1, 10, 2.0], [0, 11, -1, 1.5, None, "three", 10**30]),
            ("batch_size", [1, 32], [0, 33, -4, 2.5, None]),
            ("max_length", [128, 2048], [127, 2049, 0, None]),
            ("seed", [0, 2**31 - 1], [-1, 2**31, 0.5]),
        ],
    )
    def test_ranges(
        self, client: TestClient, tracker: FakeTracker, field: str, inside: list[Any], outside: list[Any]
    ) -> None:
        assert [value for value in inside if start(client, **{field: value}).status_code != 201] == []
        num_records = tracker.num_records
        for value in outside:
            response = start(client, **{field: value})
            assert (response.status_code, value) == (422, value)
            assert response.json()["detail"].startswith(f"{field}: ")
        assert tracker.num_records == num_records

    def test_unknown_dataset_is_refused_by_name(self, client: TestClient, tracker: FakeTracker) -> None:
        response = start(client, dataset_id="other")
        assert (response.status_code, response.json()["detail"]) == (404, "Dataset other not found")
        assert tracker.num_records == 1


@pytest.mark.usefixtures("dataset", "hub_cache")
class TestBaseModel:
    def test_unknown_id_offline_shows_a_way_out(self, client: TestClient, tracker: FakeTracker) -> None:
        response = start(client, model_name="nobody/nothing")
        detail = response.json()["detail"]
        assert response.status_code == 400
        assert detail.startswith("base model 'nobody/nothing' is not in the local cache and the hub can't be reached")
        assert re.search(r"Choose one that is here as model_name: .*HuggingFaceTB/SmolLM2-135M-Instruct", detail)
        assert tracker.num_records == 1

    def test_cached_model_is_named_as_the_way_out(self, client: TestClient, cached_base_model: str) -> None:
        assert cached_base_model in start(client, model_name="nobody/nothing").json()["detail"]

    def test_packaged_model_needs_no_hub(self, client: TestClient) -> None:
        assert start(client, model_name="HuggingFaceTB/SmolLM2-135M-Instruct").status_code == 201

    @pytest.mark.parametrize(
        "model_name",
        [
            "",
            "/etc/passwd",
            "../models/mine",
            "~/model",
            "C:\\model",
            "https://huggingface.co/Qwen/Qwen2.5-0.5B-Instruct",
            "file:///model",
            "a/b/c",
            "owner/name@main",
            "owner/na me",
            "owner/name\n",
            "owner/..",
            "owner/model.gguf",
            "o" * 97,
        ],
    )
    def test_path_or_url_is_no_id(self, client: TestClient, tracker: FakeTracker, model_name: str) -> None:
        response = start(client, model_name=model_name)
        assert response.status_code == 400
        assert "is not a model id; give a hub id" in response.json()["detail"]
        assert len(response.json()["detail"]) < 500
        assert tracker.num_records == 1

    def test_folder_of_that_name_is_not_taken(
        self, client: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_model_folder: Path
    ) -> None:
        (tmp_path / "owner").mkdir()
        (tmp_path / "owner" / "name").symlink_to(tiny_model_folder)
        monkeypatch.chdir(tmp_path)
        assert start(client, model_name="owner/name").status_code == 400


class TestStatus:
    def test_running_job_is_as_the_contract_says(
        self, client: TestClient, tracker: FakeTracker, settings: Settings
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
        }
        assert meta.pop("hyperparameters")["learning_rate"] == 0.0002
        assert meta == {
            "model_name": BASE_MODEL,
            "model_path": f"{settings.home}/storage/adapters/job-1",
            "attempt": 1,
            "ray_submission_id": "sienn-job-1-1",
            **facts,
        }

    def test_job_that_has_not_begun_has_the_same_fields(self, client: TestClient, tracker: FakeTracker) -> None:
        tracker.put(job_record(facts={"queue_position": 2}))
        body = client.get("/api/training-status/job-1").json()
        assert (body["status"], body["progress"]) == ("pending", 0)
        expected = {"current_epoch": 0, "total_epochs": 3, "current_loss": None, "queue_position": 2}
        assert expected.items() <= body["meta"].items()
        assert "failure_reason" not in body["meta"]

    def test_failed_job_says_why(self, client: TestClient, tracker: FakeTracker) -> None:
        reason, message = FailureReason.OUT_OF_MEMORY, "no memory left; lower batch_size"
        tracker.put(job_record(status=JobStatus.FAILED, failure_reason=reason, message=message))
        body = client.get("/api/training-status/job-1").json()
        assert (body["status"], body["message"], body["meta"]["failure_reason"]) == ("failed", message, "out_of_memory")

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_loss_that_is_no_number_is_null(self, client: TestClient, tracker: FakeTracker, value: float) -> None:
        history = [{"epoch": 1, "train_loss": 0.5, "eval_loss": value}]
        tracker.put(job_record(facts={"current_loss": value, "eval_loss": value, "loss_history": history}))
        meta = client.get("/api/training-status/job-1").json()["meta"]
        assert meta["current_loss"] is None
        assert meta["eval_loss"] is None
        assert meta["loss_history"][0]["eval_loss"] is None

    def test_time_is_utc_whatever_its_zone_was(self, client: TestClient, tracker: FakeTracker) -> None:
        tracker.put(job_record(created_at=CREATED_AT.astimezone(timezone(timedelta(hours=5, minutes=30)))))
        assert client.get("/api/training-status/job-1").json()["created_at"] == "2025-11-12T10:30:00.007Z"

    def test_whole_second_has_milliseconds_too(self, client: TestClient, tracker: FakeTracker) -> None:
        tracker.put(job_record(created_at=CREATED_AT.replace(microsecond=0)))
        assert client.get("/api/training-status/job-1").json()["created_at"] == "2025-11-12T10:30:00.000Z"


def test_list_has_the_newest_first_and_a_count(client: TestClient, tracker: FakeTracker) -> None:
    tracker.put(*(job_record(id=f"job-{index}") for index in range(3)))
    body = client.get("/api/jobs").json()
    assert [job["job_id"] for job in body["jobs"]] == ["job-2", "job-1", "job-0"]
    assert body["count"] == 3


def test_list_has_the_fields_of_the_contract(client: TestClient, tracker: FakeTracker) -> None:
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
            }
        ],
        "count": 1,
    }


def test_empty_list_is_a_list(client: TestClient) -> None:
    assert client.get("/api/jobs").json() == {"jobs": [], "count": 0}
