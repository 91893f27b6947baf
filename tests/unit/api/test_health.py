from __future__ import annotations

import asyncio
import errno
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from sienn_ray import __version__
from sienn_ray.api.app import create_app
from sienn_ray.api.cluster import EngineState
from sienn_ray.api.deps import Backends
from sienn_ray.api.monitoring.check_runner import Outcome
from sienn_ray.api.monitoring.health_checks import disk_health, memory_health, probe
from sienn_ray.api.monitoring.machine import Disk, Memory
from sienn_ray.errors import ArtifactError, CapacityError
from sienn_ray.jobs.schema import Heartbeat
from sienn_ray.settings import Settings
from sienn_ray.storage import Storage
from tests.support.fakes_api import FakeEngines, FakeJobLogs
from tests.support.fakes_cluster import FakeCluster
from tests.support.fakes_object_store import fake_object_store_url
from tests.support.fakes_renderings import FakeRenderings
from tests.support.fakes_statistics import FakeStatistics
from tests.support.in_process_tracker import InProcessTracker

TIMEOUT_S = 0.5
QWEN = "Qwen/Qwen2.5-0.5B-Instruct"


class BrokenStorage(Storage):
    """Reads other bytes than were written."""

    def read_bytes(self, key: str) -> bytes:
        return super().read_bytes(key) + b"!"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(env="test", home=tmp_path / "home", health_check_timeout_s=TIMEOUT_S)


@pytest.fixture
def hanging_tracker(tracker: InProcessTracker) -> InProcessTracker:
    """Doesn't say how it is."""
    tracker.before["health"] = lambda: asyncio.sleep(60)
    return tracker


def has(tracker: InProcessTracker, **fields: Any) -> None:
    """Have the tracker say this of itself."""
    tracker.answers["health"] = replace(tracker.actor.health(), **fields)


def services(client: TestClient) -> dict[str, Any]:
    response = client.get("/api/health/services")
    assert response.status_code == 200
    body: dict[str, Any] = response.json()
    assert set(body) == {"status", "timestamp", "services"}
    return body


def detailed(client: TestClient) -> dict[str, Any]:
    response = client.get("/api/health/detailed")
    assert response.status_code == 200
    body: dict[str, Any] = response.json()
    assert set(body) == {"status", "timestamp", "components"}
    return body


def test_it_says_ok_and_the_environment(client: TestClient) -> None:
    response = client.get("/health")
    assert (response.status_code, response.json()) == (200, {"status": "ok", "env": "test"})


def test_it_answers_while_the_tracker_is_broken(client: TestClient, tracker: InProcessTracker) -> None:
    tracker.fail_with(RuntimeError("the database is gone"))
    assert client.get("/health").status_code == 200


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
def test_interactive_documentation_is_served(client: TestClient, path: str) -> None:
    response = client.get(path)
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/html")


def test_version_is_that_of_the_package(app: FastAPI) -> None:
    assert app.openapi()["info"]["version"] == __version__


class TestServices:
    def test_everything_healthy(self, client: TestClient, tracker: InProcessTracker, cluster: FakeCluster) -> None:
        has(tracker, database_response_s=0.0021)
        cluster.states = [EngineState(QWEN, "running", 2), EngineState("gpt2", "starting", 0)]
        body = services(client)
        found = body["services"]
        assert body["status"] == "healthy"
        assert list(found) == ["database", "redis", "minio", "celery", "tracker", "engines", "supervision"]
        assert {entry["status"] for entry in found.values()} == {"healthy"}
        assert {entry["detail"] for entry in found.values()} == {None}
        assert all(entry["response_time_ms"] >= 0 for entry in found.values())
        assert all(entry["role"] for entry in found.values())
        assert {name: entry["implementation"] for name, entry in found.items()} == {
            "database": "SQLite",
            "redis": "Ray GCS",
            "minio": "local files",
            "celery": "Ray cluster",
            "tracker": "Ray actor",
            "engines": "Ray Serve",
            "supervision": "threads of the job tracker",
        }
        assert found["supervision"]["heartbeat_age_s"] == dict.fromkeys(
            ("jobs", "exports", "deletions", "logs", "leftovers", "webhooks", "audit log"), 0.5
        )
        assert found["database"]["response_time_ms"] == 2.1
        workers = {name: found["celery"][name] for name in ("active_workers", "num_cpus", "num_gpus")}
        assert workers == {"active_workers": 2, "num_cpus": 16.0, "num_gpus": 1.0}
        assert found["engines"]["engines"] == [
            {"base_model": QWEN, "state": "running", "num_replicas": 2, "detail": None},
            {"base_model": "gpt2", "state": "starting", "num_replicas": 0, "detail": None},
        ]

    def test_probe_leaves_nothing_in_storage(self, client: TestClient, storage: Storage) -> None:
        services(client)
        assert list(Path(storage.root).rglob("*")) == []

    @pytest.mark.parametrize(
        ("method", "entry", "status"),
        [("ask_gcs", "redis", "unhealthy"), ("nodes", "celery", "unhealthy"), ("engines", "engines", "degraded")],
    )
    def test_failing_part_is_named_and_the_others_stay_healthy(
        self, client: TestClient, cluster: FakeCluster, method: str, entry: str, status: str
    ) -> None:
        cluster.errors[method] = OSError(errno.ECONNREFUSED, "Connection refused")
        body = services(client)
        assert body["status"] == status
        assert body["services"][entry]["status"] == status
        assert body["services"][entry]["detail"].startswith("ConnectionRefusedError: Connection refused; ")
        assert {found["status"] for name, found in body["services"].items() if name != entry} == {"healthy"}

    def test_failing_engine_degrades(self, client: TestClient, cluster: FakeCluster) -> None:
        cluster.states = [EngineState(QWEN, "failed", 0, "no memory"), EngineState("gpt2", "running", 1)]
        body = services(client)
        assert body["status"] == "degraded"
        engines = body["services"]["engines"]
        assert (engines["status"], engines["detail"]) == ("degraded", f"failed: {QWEN}")
        assert [engine["detail"] for engine in engines["engines"]] == ["no memory", None]

    def test_tracker_that_is_away_takes_the_database_with_it(
        self, client: TestClient, tracker: InProcessTracker
    ) -> None:
        tracker.fail_with(CapacityError("the job tracker is restarting"))
        body = services(client)
        assert body["status"] == "unhealthy"
        assert body["services"]["tracker"]["detail"] == "the job tracker is restarting"
        database = body["services"]["database"]
        assert (database["status"], database["implementation"]) == ("unhealthy", "unknown")
        assert "the job tracker is restarting" in database["detail"]
        assert body["services"]["redis"]["status"] == "healthy"

    def test_database_that_is_away_leaves_the_tracker_healthy(
        self, client: TestClient, tracker: InProcessTracker
    ) -> None:
        has(tracker, database="PostgreSQL", database_response_s=None, database_error="connection refused")
        body = services(client)
        assert body["status"] == "unhealthy"
        database = body["services"]["database"]
        assert (database["status"], database["implementation"], database["detail"]) == (
            "unhealthy",
            "PostgreSQL",
            "connection refused",
        )
        assert body["services"]["tracker"]["status"] == "healthy"

    def test_supervision_that_is_stuck_is_unhealthy(self, client: TestClient, tracker: InProcessTracker) -> None:
        has(tracker, heartbeats=(Heartbeat("jobs", age_s=250.2, limit_s=182.0), Heartbeat("exports", 1.0, 182.0)))
        words = (
            "nobody has looked after jobs for 250 s (limit 182 s); see the job tracker's log, and restart the service"
        )
        found = services(client)
        supervision = found["services"]["supervision"]
        assert (found["status"], supervision["status"], supervision["detail"]) == ("unhealthy", "unhealthy", words)
        assert supervision["heartbeat_age_s"] == {"jobs": 250.2, "exports": 1.0}
        components = detailed(client)
        assert components["status"] == "unhealthy"
        assert components["components"]["supervision"] == {"status": "unhealthy", "detail": words}

    def test_redis_behind_gcs_is_named(self, client: TestClient, tracker: InProcessTracker) -> None:
        has(tracker, gcs="Ray GCS with Redis")
        assert services(client)["services"]["redis"]["implementation"] == "Ray GCS with Redis"

    def test_everything_may_hang_at_once(
        self, settings: Settings, hanging_tracker: InProcessTracker, storage: Storage, cluster: FakeCluster
    ) -> None:
        cluster.hanging = {"ask_gcs", "nodes", "engines"}
        backends = Backends(
            settings,
            hanging_tracker,
            FakeEngines(),
            storage,
            FakeJobLogs(),
            cluster,
            FakeStatistics(),
            FakeRenderings(),
        )
        with TestClient(create_app(backends)) as client:
            took_s = []
            for _ in range(3):
                started = time.monotonic()
                body = services(client)
                took_s.append(time.monotonic() - started)
                assert client.get("/health").status_code == 200
        hanging = {name for name, entry in body["services"].items() if entry["status"] != "healthy"}
        assert hanging == {"database", "redis", "celery", "tracker", "engines", "supervision"}
        for name in hanging - {"database", "supervision"}:
            assert body["services"][name]["detail"].startswith("no answer for ")
            assert "SIENN_HEALTH_CHECK_TIMEOUT_S" in body["services"][name]["detail"]
            assert body["services"][name]["response_time_ms"] >= 1000 * TIMEOUT_S * 0.99
        assert took_s[0] < 10 * TIMEOUT_S  # side by side, not one after the other
        assert max(took_s[1:]) < TIMEOUT_S  # known to hang
        assert set(cluster.num_asked.values()) == {1}
        assert hanging_tracker.calls.count("health") == 1

    def test_what_hung_is_healthy_again_once_it_answers(self, client: TestClient, cluster: FakeCluster) -> None:
        cluster.hanging = {"nodes"}
        assert services(client)["services"]["celery"]["status"] == "unhealthy"
        cluster.hanging = set()
        cluster.release.set()
        deadline = time.monotonic() + 20
        while services(client)["status"] != "healthy":
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def test_many_requests_at_a_hanging_part_ask_it_once(self, app: FastAPI, cluster: FakeCluster) -> None:
        cluster.hanging = {"nodes"}
        with TestClient(app) as client, ThreadPoolExecutor(20) as pool:
            statuses = list(pool.map(lambda _: services(client)["status"], range(60)))
        assert set(statuses) == {"unhealthy"}
        assert cluster.num_asked["nodes"] == 1

    def test_storage_that_cannot_be_written(
        self, settings: Settings, tracker: InProcessTracker, cluster: FakeCluster, tmp_path: Path
    ) -> None:
        (tmp_path / "a-file").write_text("in the way")
        storage = Storage(f"file://{tmp_path}/a-file/storage")
        backends = Backends(
            settings, tracker, FakeEngines(), storage, FakeJobLogs(), cluster, FakeStatistics(), FakeRenderings()
        )
        with TestClient(create_app(backends)) as client:
            body = services(client)
        assert body["status"] == body["services"]["minio"]["status"] == "unhealthy"
        assert "NotADirectoryError" in body["services"]["minio"]["detail"]

    def test_object_store_is_named_by_its_kind_alone(
        self, settings: Settings, tracker: InProcessTracker, cluster: FakeCluster
    ) -> None:
        url = fake_object_store_url()
        storage = Storage(url)
        backends = Backends(
            settings, tracker, FakeEngines(), storage, FakeJobLogs(), cluster, FakeStatistics(), FakeRenderings()
        )
        with TestClient(create_app(backends)) as client:
            response = client.get("/api/health/services")
        minio = response.json()["services"]["minio"]
        assert (minio["status"], minio["implementation"]) == ("healthy", "fake-objects")
        assert url.split("/")[2] not in response.text
        assert storage.fs.find(storage.root) == []


def test_storage_that_alters_what_is_written_is_found_out(tmp_path: Path) -> None:
    storage = BrokenStorage(f"file://{tmp_path}")
    with pytest.raises(ArtifactError, match="altered"):
        probe(storage)
    assert list(tmp_path.iterdir()) == []


class TestDetailed:
    def test_everything_healthy(self, client: TestClient) -> None:
        components = detailed(client)["components"]
        assert list(components) == ["database", "disk", "memory", "supervision"]
        assert components["database"] == {"status": "healthy", "detail": None}
        assert 0 <= components["disk"]["free_percent"] <= 100
        assert 0 < components["memory"]["used_percent"] < 100

    def test_database_that_is_away(self, client: TestClient, tracker: InProcessTracker) -> None:
        has(tracker, database_response_s=None, database_error="disk I/O error")
        body = detailed(client)
        assert body["status"] == "unhealthy"
        assert body["components"]["database"] == {"status": "unhealthy", "detail": "disk I/O error"}

    def test_hanging_tracker_holds_nothing_up(
        self, settings: Settings, hanging_tracker: InProcessTracker, storage: Storage, cluster: FakeCluster
    ) -> None:
        backends = Backends(
            settings,
            hanging_tracker,
            FakeEngines(),
            storage,
            FakeJobLogs(),
            cluster,
            FakeStatistics(),
            FakeRenderings(),
        )
        with TestClient(create_app(backends)) as client:
            started = time.monotonic()
            body = detailed(client)
        assert time.monotonic() - started < 10 * TIMEOUT_S
        assert body["components"]["database"]["status"] == "unhealthy"
        assert isinstance(body["components"]["memory"]["used_percent"], float)

    @pytest.mark.parametrize(
        ("used_percent", "status"),
        [(0.0, "healthy"), (90.0, "healthy"), (90.1, "degraded"), (98.0, "degraded"), (98.1, "unhealthy")],
    )
    def test_limits_of_the_disk(self, used_percent: float, status: str) -> None:
        found = disk_health(Outcome(Disk(10**9, 10**8, used_percent), None, 0.0))
        assert found.status == status
        assert found.free_percent == pytest.approx(100 - used_percent)
        assert (found.detail is None) is (status == "healthy")

    @pytest.mark.parametrize(
        ("used_percent", "status"),
        [(0, "healthy"), (90, "healthy"), (91, "degraded"), (97, "degraded"), (98, "unhealthy"), (100, "unhealthy")],
    )
    def test_limits_of_the_memory(self, used_percent: int, status: str) -> None:
        found = memory_health(Outcome(Memory(10_000, 10_000 - 100 * used_percent), None, 0.0))
        assert found.status == status
        assert found.used_percent == pytest.approx(used_percent)
        assert (found.detail is None) is (status == "healthy")

    def test_disk_that_cannot_be_read(self) -> None:
        found = disk_health(Outcome(None, "no answer", 2.0))
        assert (found.status, found.free_percent, found.detail) == ("unhealthy", None, "no answer")
