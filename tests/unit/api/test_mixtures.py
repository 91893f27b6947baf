"""Several datasets with weights in one job."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.support.fakes_api import dataset_record
from tests.support.in_process_tracker import InProcessTracker
from tests.unit.api.starting import KEY, START

A, B = "dataset-1", "dataset-2"


@pytest.fixture(autouse=True)
def _second_dataset(tracker: InProcessTracker, dataset: object) -> None:
    tracker.put(dataset_record(id=B, num_rows=1000))


def start(client: TestClient, headers: dict[str, str] | None = None, **fields: Any) -> Any:
    return client.post(START, json=fields, headers=headers)


def mixed(*pairs: tuple[str, float]) -> list[dict[str, Any]]:
    return [{"dataset_id": dataset_id, "weight": weight} for dataset_id, weight in pairs]


@pytest.mark.usefixtures("cached_base_model")
class TestStart:
    def test_job_tells_what_it_trains_on(self, client: TestClient, tracker: InProcessTracker) -> None:
        answer = start(client, datasets=mixed((A, 1), (B, 0.25)))
        assert answer.status_code == 201, answer.text
        assert answer.json()["dataset_id"] == A
        assert tracker.last_job.is_mixture
        job = client.get(f"/api/jobs/{answer.json()['job_id']}").json()
        nothing_yet = {"rows_per_epoch": None, "rows_seen": None}
        assert job["meta"]["datasets"] == [
            {"dataset_id": A, "version": 1, "weight": 1.0, **nothing_yet},
            {"dataset_id": B, "version": 1, "weight": 0.25, **nothing_yet},
        ]

    def test_weight_is_one_unless_it_is_given(self, client: TestClient, tracker: InProcessTracker) -> None:
        assert start(client, datasets=[{"dataset_id": A}, {"dataset_id": B}]).status_code == 201
        assert [each.weight for each in tracker.last_job.trained_on] == [1.0, 1.0]

    def test_one_dataset_of_weight_one_is_that_dataset(self, client: TestClient, tracker: InProcessTracker) -> None:
        assert start(client, datasets=[{"dataset_id": A}]).status_code == 201
        assert not tracker.last_job.is_mixture
        assert start(client, datasets=mixed((A, 2))).status_code == 201
        assert tracker.last_job.is_mixture

    def test_jobs_are_found_by_each_dataset_and_keep_it(self, client: TestClient) -> None:
        job_id = start(client, datasets=mixed((A, 1), (B, 1))).json()["job_id"]
        for dataset_id in (A, B):
            found = client.get("/api/jobs", params={"dataset_id": dataset_id}).json()
            assert [job["job_id"] for job in found["jobs"]] == [job_id]
            refusal = client.delete(f"/api/datasets/{dataset_id}")
            assert refusal.status_code == 409
            assert job_id in refusal.json()["detail"]

    def test_datasets_are_free_again_once_the_job_is_deleted(self, client: TestClient) -> None:
        job_id = start(client, datasets=mixed((A, 1), (B, 1))).json()["job_id"]
        assert client.post(f"/api/jobs/{job_id}/cancel").status_code == 200
        assert client.delete(f"/api/jobs/{job_id}").status_code == 200
        assert client.delete(f"/api/datasets/{B}").status_code == 200

    def test_same_request_with_a_key_makes_one_job(self, client: TestClient) -> None:
        answers = [start(client, KEY, datasets=mixed((A, 1), (B, 0.5))) for _ in range(2)]
        assert answers[0].json()["job_id"] == answers[1].json()["job_id"]
        assert start(client, KEY, datasets=mixed((A, 1), (B, 0.6))).status_code == 409


@pytest.mark.usefixtures("cached_base_model")
class TestRefusals:
    @pytest.mark.parametrize(
        ("fields", "words"),
        [
            ({}, "dataset_id: Field required"),
            (
                {"dataset_id": A, "datasets": mixed((B, 1))},
                "dataset_id and datasets exclude each other; leave dataset_id out to mix several datasets",
            ),
            ({"datasets": []}, "datasets"),
            ({"datasets": mixed((A, 0))}, "weight"),
            ({"datasets": mixed((A, -1))}, "weight"),
            ({"datasets": mixed((A, 101))}, "weight"),
            ({"datasets": mixed(*((f"d{number}", 1) for number in range(17)))}, "datasets"),
        ],
    )
    def test_what_is_no_mixture(self, client: TestClient, fields: dict[str, Any], words: str) -> None:
        answer = start(client, **fields)
        assert answer.status_code == 422
        assert words in answer.json()["detail"]

    def test_a_dataset_that_is_named_twice(self, client: TestClient) -> None:
        answer = start(client, datasets=mixed((A, 1), (A, 2)))
        assert answer.status_code == 400
        assert "datasets name 'dataset-1' twice" in answer.json()["detail"]

    def test_other_kinds_of_rows(self, client: TestClient, tracker: InProcessTracker) -> None:
        tracker.put(dataset_record(id="texts", format="text"))
        answer = start(client, datasets=mixed((A, 1), ("texts", 1)))
        assert answer.status_code == 400
        assert "conversations and plain text can't be mixed" in answer.json()["detail"]

    def test_weight_without_a_single_row(self, client: TestClient) -> None:
        answer = start(client, datasets=mixed((A, 1), (B, 0.0001)))
        assert answer.status_code == 400
        assert "weight 0.0001 of dataset dataset-2 is less than one of its 1000 rows" in answer.json()["detail"]
        assert "use 0.001 or more" in answer.json()["detail"]
        assert start(client, datasets=mixed((A, 1), (B, 0.001))).status_code == 201

    def test_unknown_dataset(self, client: TestClient) -> None:
        answer = start(client, datasets=mixed((A, 1), ("other", 1)))
        assert (answer.status_code, answer.json()["detail"]) == (404, "Dataset other not found")

    def test_evaluating_on_one_of_them(self, client: TestClient) -> None:
        answer = start(client, datasets=mixed((A, 1), (B, 1)), validation_dataset_id=B)
        assert answer.status_code == 400
        assert "validation_dataset_id is among datasets" in answer.json()["detail"]
