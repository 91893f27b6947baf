"""A start that is asked for again with its key is one job."""

from __future__ import annotations

import hashlib
import json

import pytest
from starlette.testclient import TestClient

from tests.support.in_process_tracker import InProcessTracker
from tests.unit.api.starting import KEY, START, start


@pytest.mark.usefixtures("dataset", "cached_base_model")
class TestIdempotency:
    def test_same_request_makes_one_job(self, client: TestClient, tracker: InProcessTracker) -> None:
        first, second = start(client, KEY, num_epochs=2), start(client, KEY, num_epochs=2)
        assert (first.status_code, second.status_code) == (201, 201)
        assert first.json() == second.json()
        assert "idempotent-replayed" not in first.headers
        assert second.headers["idempotent-replayed"] == "true"
        assert tracker.num_records == 2

    def test_defaults_that_are_written_out_are_the_same_request(self, client: TestClient) -> None:
        first = start(client, KEY)
        second = start(client, KEY, num_epochs=3, labels={}, name=None, learning_rate=2e-4)
        assert second.json()["job_id"] == first.json()["job_id"]

    def test_hash_is_that_of_the_canonical_json(self, client: TestClient, tracker: InProcessTracker) -> None:
        start(client, KEY, seed=7, labels={"b": "1", "a": "ü"})
        asked = json.dumps(
            {"dataset_id": "dataset-1", "labels": {"a": "ü", "b": "1"}, "seed": 7},
            sort_keys=True,
            separators=(",", ":"),
        )
        assert tracker.last_job.request_hash == hashlib.sha256(asked.encode()).hexdigest()
        assert tracker.last_job.idempotency_key == "order 66/a"

    def test_another_request_is_a_conflict(self, client: TestClient, tracker: InProcessTracker) -> None:
        job_id = start(client, KEY).json()["job_id"]
        response = start(client, KEY, seed=7)
        assert response.status_code == 409
        assert f"'order 66/a' came with another request before, which made job {job_id}" in response.json()["detail"]
        assert tracker.num_records == 2

    def test_other_keys_and_none_make_jobs_of_their_own(self, client: TestClient) -> None:
        answers = [start(client, headers) for headers in (KEY, {"Idempotency-Key": "b"}, None, None)]
        assert len({answer.json()["job_id"] for answer in answers}) == 4

    def test_replay_asks_neither_for_the_dataset_nor_the_hub(
        self, client: TestClient, tracker: InProcessTracker
    ) -> None:
        start(client, KEY)
        tracker.calls.clear()
        assert start(client, KEY).status_code == 201
        assert tracker.calls == ["job_of_key"]

    def test_replay_tells_what_the_job_is_by_now(self, client: TestClient, tracker: InProcessTracker) -> None:
        job_id = start(client, KEY).json()["job_id"]
        client.post(f"/api/jobs/{job_id}/cancel")
        answer = start(client, KEY)
        assert (answer.status_code, answer.json()["status"]) == (201, "cancelled")

    @pytest.mark.parametrize("key", ["", "ä", "a\tb", "k" * 256])
    def test_what_is_no_key(self, client: TestClient, tracker: InProcessTracker, key: str) -> None:
        response = client.post(START, json={"dataset_id": "dataset-1"}, headers={b"Idempotency-Key": key.encode()})
        assert response.status_code == 422
        assert "Idempotency-Key" in response.json()["detail"]
        assert tracker.num_records == 1

    @pytest.mark.parametrize("key", ["k" * 255, "~!"])
    def test_any_printable_ascii_is_a_key(self, client: TestClient, key: str) -> None:
        assert start(client, {"Idempotency-Key": key}).status_code == 201

    def test_header_is_documented(self, client: TestClient) -> None:
        operation = client.get("/openapi.json").json()["paths"][START]["post"]
        (header,) = [parameter for parameter in operation["parameters"] if parameter["in"] == "header"]
        assert (header["name"], header["required"]) == ("Idempotency-Key", False)
        assert header["description"]
        assert header["schema"]["examples"]
        assert "Idempotent-Replayed" in operation["responses"]["201"]["headers"]
        assert "schema" in operation["responses"]["201"]["content"]["application/json"]
        assert {"400", "404", "409", "422", "429", "503"} <= operation["responses"].keys()


@pytest.mark.usefixtures("dataset", "cached_base_model")
class TestIdempotencyRace:
    def test_is_settled_by_the_tracker(self, client: TestClient, tracker: InProcessTracker) -> None:
        """Two equal requests at once: neither finds the other's job when it looks."""
        tracker.answers["job_of_key"] = None
        first, second = start(client, KEY), start(client, KEY)
        assert first.json()["job_id"] == second.json()["job_id"]
        assert second.headers["idempotent-replayed"] == "true"
        assert start(client, KEY, seed=7).status_code == 409
        assert tracker.num_records == 2
