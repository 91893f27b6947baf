from __future__ import annotations

from typing import Any

import pytest
from starlette.testclient import TestClient

from sienn_ray.jobs.schema import JobEvent, MetricPoint
from tests.support.fakes_api import CREATED_AT, job_record
from tests.support.in_process_tracker import InProcessTracker

EVENTS, METRICS = "/api/jobs/job-1/events", "/api/jobs/job-1/metrics"


def event(seq: int, **fields: Any) -> JobEvent:
    return JobEvent(**{"seq": seq, "kind": "phase", "message": "Tokenizing", "created_at": CREATED_AT, **fields})


def point(step: int, **fields: Any) -> MetricPoint:
    return MetricPoint(**{"step": step, "epoch": 1, "created_at": CREATED_AT, **fields})


@pytest.fixture(autouse=True)
def job(tracker: InProcessTracker) -> None:
    tracker.put(job_record(), job_record(id="job-2"))


class TestEvents:
    def test_fields(self, client: TestClient, tracker: InProcessTracker) -> None:
        tracker.put_events("job-1", event(17, kind="started", message="Attempt 1 started", data={"attempt": 1}))
        assert client.get(EVENTS).json() == {
            "job_id": "job-1",
            "events": [
                {
                    "seq": 17,
                    "kind": "started",
                    "message": "Attempt 1 started",
                    "data": {"attempt": 1},
                    "created_at": "2025-11-12T10:30:00.007Z",
                }
            ],
            "next_after": 17,
        }

    def test_without_events_after_stays(self, client: TestClient) -> None:
        assert client.get(EVENTS).json() == {"job_id": "job-1", "events": [], "next_after": 0}
        assert client.get(f"{EVENTS}?after=9").json()["next_after"] == 9

    def test_page_after_page_gives_each_once(self, client: TestClient, tracker: InProcessTracker) -> None:
        tracker.put_events("job-1", *(event(seq) for seq in (3, 5, 8, 9, 21)))
        tracker.put_events("job-2", event(6))
        seen, after = [], 0
        while page := client.get(f"{EVENTS}?after={after}&limit=2").json()["events"]:
            seen += [entry["seq"] for entry in page]
            after = page[-1]["seq"]
        assert seen == [3, 5, 8, 9, 21]

    def test_what_a_user_does_is_told(self, client: TestClient) -> None:
        client.post("/api/jobs/job-1/cancel")
        client.post("/api/jobs/job-1/retry")
        assert [entry["kind"] for entry in client.get(EVENTS).json()["events"]] == [
            "cancelled",
            "retried",
            "queued",
        ]

    @pytest.mark.parametrize("query", ["after=-1", "after=x", f"after={2**63}", "limit=0", "limit=1001", "limit="])
    def test_limits(self, client: TestClient, query: str) -> None:
        response = client.get(f"{EVENTS}?{query}")
        assert response.status_code == 422
        assert query.split("=")[0] in response.json()["detail"]


REWARDS = ("chosen", "rejected", "margins", "accuracies")


class TestMetrics:
    def test_fields(self, client: TestClient, tracker: InProcessTracker) -> None:
        tracker.put_points(
            "job-1", point(10, loss=0.523, learning_rate=2e-4, tokens_per_s=812.4), point(20, epoch=2, eval_loss=0.7)
        )
        nothing = {f"{of}rewards_{name}": None for of in ("", "eval_") for name in REWARDS}
        assert client.get(METRICS).json() == {
            "job_id": "job-1",
            "points": [
                {
                    "step": 10,
                    "epoch": 1,
                    "loss": 0.523,
                    "eval_loss": None,
                    "learning_rate": 0.0002,
                    "tokens_per_s": 812.4,
                    **nothing,
                    "created_at": "2025-11-12T10:30:00.007Z",
                },
                {
                    "step": 20,
                    "epoch": 2,
                    "loss": None,
                    "eval_loss": 0.7,
                    "learning_rate": None,
                    "tokens_per_s": None,
                    **nothing,
                    "created_at": "2025-11-12T10:30:00.007Z",
                },
            ],
        }

    def test_rewards_are_curves(self, client: TestClient, tracker: InProcessTracker) -> None:
        values = {f"{of}rewards_{name}": 0.25 for of in ("", "eval_") for name in REWARDS}
        tracker.put_points("job-1", point(10, **values))
        (found,) = client.get(METRICS).json()["points"]
        assert {name: found[name] for name in values} == values

    def test_without_points(self, client: TestClient) -> None:
        assert client.get(METRICS).json() == {"job_id": "job-1", "points": []}

    def test_loss_that_is_no_number_is_null(self, client: TestClient, tracker: InProcessTracker) -> None:
        tracker.put_points("job-1", point(1, loss=float("nan"), eval_loss=float("inf")))
        (shown,) = client.get(METRICS).json()["points"]
        assert (shown["loss"], shown["eval_loss"]) == (None, None)

    @pytest.mark.parametrize(("max_points", "steps"), [(1, [100]), (2, [1, 100]), (3, [1, 51, 100]), (10_000, None)])
    def test_no_more_than_asked_for(
        self, client: TestClient, tracker: InProcessTracker, max_points: int, steps: list[int] | None
    ) -> None:
        tracker.put_points("job-1", *(point(step) for step in range(1, 101)))
        points = client.get(f"{METRICS}?max_points={max_points}").json()["points"]
        assert [shown["step"] for shown in points] == (steps or list(range(1, 101)))

    @pytest.mark.parametrize("max_points", ["0", "-1", "10001", "many"])
    def test_limits(self, client: TestClient, max_points: str) -> None:
        assert client.get(f"{METRICS}?max_points={max_points}").status_code == 422
