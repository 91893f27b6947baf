from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from fastapi import FastAPI
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from sienn_ray.api.app import create_app
from sienn_ray.api.deps import Backends
from sienn_ray.api.monitoring.metrics_flusher import Flusher
from sienn_ray.errors import CapacityError
from sienn_ray.jobs.schema import JobStatus, utc_now
from sienn_ray.metrics import TRAINING_TOKENS_TOTAL, MetricBatch, Recorder
from sienn_ray.settings import MIB, Settings
from sienn_ray.storage import Storage
from tests.support.fakes_api import FakeEngines, FakeJobLogs, dataset_record, job_record
from tests.support.fakes_cluster import FakeCluster
from tests.support.fakes_renderings import FakeRenderings
from tests.support.fakes_statistics import FakeStatistics
from tests.support.in_process_tracker import InProcessTracker
from tests.unit.api.monitoring.test_prometheus import check_rules

ROUTE = "/api/metrics"
SCRAPE = "/api/metrics/prometheus"


@pytest.fixture
def replica(
    settings: Settings, tracker: InProcessTracker, storage: Storage, cluster: FakeCluster
) -> Callable[..., FastAPI]:
    """Makes replicas over one tracker; each counts for itself."""

    def make(**changes: Any) -> FastAPI:
        changed = settings.model_copy(update=changes)
        return create_app(
            Backends(
                changed, tracker, FakeEngines(), storage, FakeJobLogs(), cluster, FakeStatistics(), FakeRenderings()
            )
        )

    return make


def wait_for(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def scraped(client: TestClient) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Every series, after a look at the rules of the format."""
    response = client.get(SCRAPE)
    assert response.status_code == 200
    check_rules(response.text)
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }


def requests_to(series: dict[Any, float], route: str) -> float:
    name = "sienn_http_request_duration_seconds_count"
    return series.get((name, (("method", "GET"), ("route", route), ("status", "200"))), 0.0)


def shape(value: Any) -> Any:
    """The fields and their types."""
    return {name: shape(part) for name, part in value.items()} if isinstance(value, dict) else type(value)


class TestNumbers:
    def test_fields_and_types_are_those_of_the_contract(self, client: TestClient) -> None:
        body = client.get(ROUTE).json()
        assert shape(body) == {
            "timestamp": str,
            "system": dict.fromkeys(
                [
                    "cpu_percent",
                    "memory_percent",
                    "memory_available_mb",
                    "memory_total_mb",
                    "disk_percent",
                    "disk_free_gb",
                    "disk_total_gb",
                ],
                float,
            ),
            "application": {
                "jobs": {
                    "total": int,
                    "by_status": dict.fromkeys(
                        ["pending", "running", "paused", "completed", "failed", "cancelled"], int
                    ),
                    **dict.fromkeys(["pending", "running", "completed", "failed"], int),
                    "completed_last_24h": int,
                    "failed_last_24h": int,
                    "success_rate_24h": float,
                    "avg_training_time_minutes": float,
                },
                "datasets": {"total": int, "total_size_mb": float, "total_size_gb": float},
            },
        }

    def test_numbers_of_an_empty_service_are_zero(self, client: TestClient) -> None:
        application = client.get(ROUTE).json()["application"]
        assert application["jobs"].pop("by_status") == dict.fromkeys(
            ["pending", "running", "paused", "completed", "failed", "cancelled"], 0
        )
        assert set(application["jobs"].values()) | set(application["datasets"].values()) == {0}

    def test_jobs_and_datasets_are_counted(self, client: TestClient, tracker: InProcessTracker) -> None:
        now = utc_now()
        ended: dict[str, Any] = {"started_at": now - timedelta(minutes=13), "ended_at": now - timedelta(seconds=30)}
        of_a = partial(job_record, dataset_id="a")
        tracker.put(
            dataset_record(id="a", size_bytes=256 * MIB),
            dataset_record(id="b", size_bytes=MIB // 2),
            of_a(id="1"),
            of_a(id="2", status=JobStatus.RUNNING),
            *(of_a(id=f"c{number}", status=JobStatus.COMPLETED, **ended) for number in range(2)),
            of_a(id="f", status=JobStatus.FAILED, **ended),
            of_a(id="x", status=JobStatus.CANCELLED, **ended),
            of_a(id="y", status=JobStatus.PAUSED),
        )
        application = client.get(ROUTE).json()["application"]
        assert application["jobs"] == {
            "total": 7,
            "by_status": {"pending": 1, "running": 1, "paused": 1, "completed": 2, "failed": 1, "cancelled": 1},
            "pending": 1,
            "running": 1,
            "completed": 2,
            "failed": 1,
            "completed_last_24h": 2,
            "failed_last_24h": 1,
            "success_rate_24h": 66.7,
            "avg_training_time_minutes": 12.5,
        }
        assert application["datasets"] == {"total": 2, "total_size_mb": 256.5, "total_size_gb": 0.25}

    def test_old_jobs_do_not_count_for_the_rate(self, client: TestClient, tracker: InProcessTracker) -> None:
        old = datetime(2025, 1, 1, tzinfo=UTC)
        tracker.put(job_record(status=JobStatus.COMPLETED, started_at=old, ended_at=old + timedelta(minutes=1)))
        jobs = client.get(ROUTE).json()["application"]["jobs"]
        assert (jobs["completed_last_24h"], jobs["success_rate_24h"], jobs["avg_training_time_minutes"]) == (0, 0, 1)

    def test_machine_is_the_real_one(self, client: TestClient) -> None:
        system = client.get(ROUTE).json()["system"]
        assert 0 <= system["cpu_percent"] <= 100
        assert 0 < system["memory_percent"] < 100
        assert 0 < system["memory_available_mb"] < system["memory_total_mb"]
        assert 0 <= system["disk_free_gb"] < system["disk_total_gb"]
        assert all(round(value, 1) == value for value in system.values())

    def test_tracker_that_is_away_is_a_503(self, client: TestClient, tracker: InProcessTracker) -> None:
        tracker.fail_with(CapacityError("the job tracker is restarting"))
        for route in (ROUTE, SCRAPE):
            response = client.get(route)
            assert response.status_code == 503
            assert response.headers["retry-after"] == "5"


class TestScrape:
    def test_content_type_is_that_of_the_text_format(self, client: TestClient) -> None:
        response = client.get(SCRAPE, headers={"Accept": "application/openmetrics-text; version=1.0.0"})
        assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        check_rules(response.text)

    def test_jobs_of_the_tracker_are_there(self, client: TestClient, tracker: InProcessTracker) -> None:
        tracker.put(job_record(id="1"), job_record(id="2", status=JobStatus.FAILED))
        series = scraped(client)
        assert series["sienn_jobs", (("status", "pending"),)] == 1.0
        assert series["sienn_jobs", (("status", "failed"),)] == 1.0
        assert series["sienn_jobs", (("status", "cancelled"),)] == 0.0

    def test_requests_up_to_now_are_there(self, client: TestClient) -> None:
        for job_id in ("a", "b"):
            client.get(f"/api/training-status/{job_id}")
        name = "sienn_http_request_duration_seconds_count"
        labels = (("method", "GET"), ("route", "/api/training-status/{job_id}"), ("status", "404"))
        assert scraped(client)[name, labels] == 2.0

    def test_hostile_paths_and_methods_make_no_series(self, client: TestClient) -> None:
        before = len(scraped(client))
        for number in range(50):
            client.request("GET", f"/{number}/%0a%22")
            client.request(f"M{number}", "/health")
        scraped(client)
        per_series = 17  # buckets, sum and count
        assert len(scraped(client)) <= before + 4 * per_series

    def test_no_counter_goes_back_whichever_replica_answers(self, replica: Callable[..., FastAPI]) -> None:
        with TestClient(replica(metrics_flush_s=3600)) as first, TestClient(replica(metrics_flush_s=3600)) as second:
            before: dict[Any, float] = {}
            for turn in range(6):
                for client in (first, second, second):
                    client.get("/health")
                    series = scraped(client)
                    smaller = {key: value for key, value in before.items() if series.get(key, -1.0) < value}
                    assert smaller == {}, f"turn {turn}"
                    before = series
            assert requests_to(scraped(second), "/health") == 18.0
            assert requests_to(scraped(first), "/health") == 18.0

    def test_batch_that_was_lost_on_the_way_is_not_lost(
        self, replica: Callable[..., FastAPI], tracker: InProcessTracker
    ) -> None:
        with TestClient(replica(metrics_flush_s=3600)) as client:
            client.get("/health")
            tracker.fail_with(CapacityError("away"))
            assert client.get(SCRAPE).status_code == 503
            client.get("/health")
            tracker.fail_with(None)
            scraped(client)  # sends what was lost; the request after it waits for the next
            assert requests_to(scraped(client), "/health") == 2.0

    def test_batches_are_sent_without_scrapes_and_when_the_replica_ends(
        self, replica: Callable[..., FastAPI], tracker: InProcessTracker
    ) -> None:
        with TestClient(replica(metrics_flush_s=0.01)) as client:
            client.get("/health")
            wait_for(lambda: "add_metrics" in tracker.calls)
        with TestClient(replica(metrics_flush_s=3600)) as client:
            client.get("/health")
            client.get("/health")
        with TestClient(replica()) as client:
            assert requests_to(scraped(client), "/health") == 3.0

    def test_failing_flush_breaks_no_request_and_goes_on(
        self, replica: Callable[..., FastAPI], tracker: InProcessTracker, caplog: pytest.LogCaptureFixture
    ) -> None:
        tracker.fail_with(RuntimeError("no database"))
        with caplog.at_level(logging.WARNING), TestClient(replica(metrics_flush_s=0.01)) as client:
            client.get("/health")
            wait_for(lambda: tracker.calls.count("add_metrics") > 5)
            assert client.get("/health").status_code == 200
            tracker.fail_with(None)
            wait_for(lambda: requests_to(scraped(client), "/health") == 2.0)
        assert len(re.findall("metrics couldn't be sent", caplog.text)) == 1


class TestFlusher:
    def test_flushes_at_the_same_time_send_a_batch_once(self) -> None:
        recorder, sent = Recorder(), []

        async def send(batch: MetricBatch) -> None:
            await asyncio.sleep(0)
            sent.append(batch.number)

        async def run() -> None:
            flusher = Flusher(recorder, send, interval_s=3600)
            recorder.inc(TRAINING_TOKENS_TOTAL)
            await asyncio.gather(*(flusher.flush() for _ in range(10)))

        asyncio.run(run())
        assert sent == [1]
