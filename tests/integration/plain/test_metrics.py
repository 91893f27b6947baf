"""Health checks and metrics of a service that really runs."""

from __future__ import annotations

import re
import time
from typing import Any

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.integration.service import ROWS, RefusedError, Service, wait_for
from tests.support.tiny_model import TINY_ID

# Ray's processes report every ten seconds.
RAY_REPORT_TIMEOUT_S = 60.0
CHECK_TIMEOUT_S = 2.0

Series = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def scrape(url: str) -> Series:
    """Every series of a Prometheus endpoint."""
    response = httpx2.get(url, timeout=30.0)
    if response.is_error:
        raise RefusedError(response.text)
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }


def of_service(service: Service) -> Series:
    return scrape(service.url + "/api/metrics/prometheus")


def requests_to(series: Series, route: str) -> float:
    labels = (("method", "GET"), ("route", route), ("status", "200"))
    return series.get(("sienn_http_request_duration_seconds_count", labels), 0.0)


def of_base_model(series: Series, name: str) -> float:
    return series.get((name, (("base_model", TINY_ID),)), 0.0)


def health(service: Service) -> Any:
    return service.get("/api/health/services")


def test_every_service_is_healthy(service: Service) -> None:
    body = health(service)
    services = body["services"]
    assert body["status"] == "healthy", body
    assert {entry["status"] for entry in services.values()} == {"healthy"}
    assert {name: entry["implementation"] for name, entry in services.items()} == {
        "database": "SQLite",
        "redis": "Ray GCS",
        "minio": "local files",
        "celery": "Ray cluster",
        "tracker": "Ray actor",
        "engines": "Ray Serve",
        "supervision": "threads of the job tracker",
    }
    assert services["celery"]["active_workers"] == 1
    assert services["celery"]["num_cpus"] >= 1
    for entry in services.values():
        assert 0 <= entry["response_time_ms"] < 1000 * CHECK_TIMEOUT_S
    # There and back takes longer than the query within it.
    assert services["tracker"]["response_time_ms"] > services["database"]["response_time_ms"]


def test_components_are_those_of_this_machine(service: Service) -> None:
    components = service.get("/api/health/detailed")["components"]
    assert components["database"]["status"] == "healthy"
    assert 0 < components["disk"]["free_percent"] <= 100
    assert 0 < components["memory"]["used_percent"] < 100


def test_numbers_follow_what_happens(service: Service, completed_job: str) -> None:
    before = service.get("/api/metrics")["application"]
    service.upload(ROWS)
    after = service.get("/api/metrics")
    assert after["application"]["datasets"]["total"] == before["datasets"]["total"] + 1
    jobs = after["application"]["jobs"]
    assert jobs["by_status"]["completed"] >= 1
    assert jobs["completed_last_24h"] >= 1
    assert 0 < jobs["success_rate_24h"] <= 100
    assert jobs["total"] == sum(jobs["by_status"].values())
    # A loop of this test keeps one core busy, and is seen.
    wait_for(lambda: service.get("/api/metrics")["system"]["cpu_percent"] > 0, "CPU in use", 20.0)


def test_scrapes_count_every_request_once(service: Service) -> None:
    before = of_service(service)
    for _ in range(5):
        service.get("/health")
    after = of_service(service)
    assert requests_to(after, "/health") == requests_to(before, "/health") + 5
    counters = {key for key in before if key[0].endswith(("_total", "_count", "_bucket", "_sum"))}
    assert {key for key in counters if after.get(key, -1.0) < before[key]} == set()


def test_engines_and_training_are_measured(service: Service, completed_job: str) -> None:
    service.ask(completed_job, "What is the code word of room 1?")
    service.ask(completed_job, "What is the code word of room 2?")
    series = wait_for(
        lambda: series if of_base_model(series := of_service(service), "sienn_adapter_cache_hits_total") >= 1 else None,
        "the engine's numbers",
        30.0,
    )
    assert of_base_model(series, "sienn_adapter_cache_misses_total") >= 1
    assert of_base_model(series, "sienn_generation_tokens_total") >= 2
    assert of_base_model(series, "sienn_prompt_tokens_total") > 2
    assert of_base_model(series, "sienn_time_to_first_token_seconds_count") >= 2
    assert of_base_model(series, "sienn_adapters_loaded") >= 1
    assert series["sienn_jobs_total", (("status", "completed"),)] >= 1
    assert series["sienn_jobs_total", (("status", "pending"),)] >= series["sienn_jobs", (("status", "completed"),)]
    assert series["sienn_queue_wait_seconds_count", ()] >= 1
    assert series["sienn_training_tokens_total", ()] > 0
    assert series["sienn_training_seconds_total", ()] > 0
    (engine,) = [entry for entry in health(service)["services"]["engines"]["engines"] if entry["base_model"] == TINY_ID]
    assert (engine["state"], engine["num_replicas"]) == ("running", 1)


def test_rays_own_endpoint_has_the_metrics_too(service: Service, completed_job: str) -> None:
    service.ask(completed_job, "What is the code word of room 1?")
    node = service.on_ray("node = ray.nodes()[0]\nprint(node['NodeManagerAddress'], node['MetricsExportPort'])")
    address, port = node.split()
    url = f"http://{address}:{port}/metrics"

    def missing() -> set[str]:
        service.get("/health")
        names = set(re.findall(r"^ray_sienn_\w+", httpx2.get(url, timeout=30.0).text, re.MULTILINE))
        return {
            "ray_sienn_http_request_duration_seconds_bucket",
            "ray_sienn_generation_tokens_total",
            "ray_sienn_prompt_tokens_total",
            "ray_sienn_time_to_first_token_seconds_count",
            "ray_sienn_adapters_loaded",
        } - names

    deadline = time.monotonic() + RAY_REPORT_TIMEOUT_S
    while absent := missing():
        assert time.monotonic() < deadline, absent
        time.sleep(1.0)


def test_checks_answer_while_the_tracker_is_away_and_counters_survive_it(service: Service) -> None:
    service.get("/health")
    before = of_service(service)
    (tracker,) = service.processes("ray::JobTracker")
    tracker.suspend()  # a killed one is back within two seconds, too soon to be missed
    try:
        for _ in range(3):
            started = time.monotonic()
            body = health(service)
            assert time.monotonic() - started < CHECK_TIMEOUT_S + 3.0
            failing = {name for name, entry in body["services"].items() if entry["status"] != "healthy"}
            assert (body["status"], failing) == ("unhealthy", {"tracker", "database", "supervision"})
            assert service.get("/health")["status"] == "ok"
        assert body["services"]["tracker"]["detail"].startswith("no answer for ")
        assert service.get("/api/health/detailed")["components"]["database"]["status"] == "unhealthy"
        with pytest.raises(RefusedError, match="hasn't answered within 8 s"):
            of_service(service)
    finally:
        tracker.kill()
    wait_for(lambda: health(service)["status"] == "healthy", "a healthy tracker", 120.0)
    after = of_service(service)
    assert requests_to(after, "/health") == requests_to(before, "/health") + 3
    counters = {key for key in before if key[0].endswith(("_total", "_count", "_bucket"))}
    assert {key for key in counters if after.get(key, -1.0) < before[key]} == set()
