"""A service as others run it: records in PostgreSQL, artifacts in S3, requests with keys; ended and started again."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx2
from moto.server import ThreadedMotoServer

from tests.integration.service import (
    MANY_ROWS,
    PROMPT,
    REQUEST_TIMEOUT_S,
    Service,
    free_port,
    is_past_first_checkpoint,
    running_service,
)

CPUS_OF_A_NODE = 2
BUCKET = "artifacts"


@dataclass(frozen=True)
class Restarted:
    """The service after its restart, and what it had before.

    Args:
        service: The second one over the same records and artifacts.
        s3_port: Where its S3 server listens.
        listed_datasets: Ids of all datasets, as the second one listed them at first.
        listed_jobs: The same of jobs.
        dataset_id: What all jobs train on.
        finished: A job that had completed.
        answer: Of that job's adapter, to `PROMPT`.
        interrupted: A job that was in its second epoch or later.
        waiting: A job that hadn't begun.
    """

    service: Service
    s3_port: int
    listed_datasets: list[str]
    listed_jobs: list[str]
    dataset_id: str
    finished: str
    answer: str
    interrupted: str
    waiting: str


@contextlib.contextmanager
def s3_server() -> Iterator[tuple[int, dict[str, str]]]:
    """An S3 server with a bucket; gives its port, and the variables by which programs find it."""
    port = free_port()
    server = ThreadedMotoServer("127.0.0.1", port)
    server.start()
    try:
        httpx2.put(
            f"http://127.0.0.1:{port}/{BUCKET}", headers={"Authorization": "AWS tests:tests"}, timeout=REQUEST_TIMEOUT_S
        ).raise_for_status()
        yield (
            port,
            {
                "AWS_ACCESS_KEY_ID": "tests",
                "AWS_SECRET_ACCESS_KEY": "tests",
                "AWS_DEFAULT_REGION": "us-east-1",
                "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            },
        )
    finally:
        server.stop()


@contextlib.contextmanager
def restarted_service(home: Path, hub_home: Path, database_url: str) -> Iterator[Restarted]:
    """Start it, leave it in the middle of a run, and start it again."""
    with s3_server() as (s3_port, access):
        settings = {
            **access,
            "SIENN_DATABASE_URL": database_url,
            "SIENN_STORAGE_URL": f"s3://{BUCKET}/sienn",
            "SIENN_AUTH": "on",
            "SIENN_ADMIN_KEY": "an-admin-s-key-for-tests-0123456789",
            # Tests look more often than people do.
            "SIENN_RATE_LIMITS": "6000/minute;100000/hour",
            # Each worker takes a node of its own, so that what is lost with a node is a worker.
            "SIENN_TRAINING_CPUS_PER_WORKER": str(CPUS_OF_A_NODE),
            # By default Ray takes half a minute to see that a node is gone.
            "RAY_health_check_period_ms": "500",
            # Another node joins, so this one listens on the machine's address.
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1",
        }
        with running_service(home, hub_home, **settings) as first:
            before = _interrupted(first)
        with running_service(home, hub_home, **settings) as second:
            datasets = [dataset["id"] for dataset in second.get("/api/datasets")["datasets"]]
            jobs = [job["job_id"] for job in second.get("/api/jobs")["jobs"]]
            yield Restarted(second, s3_port, datasets, jobs, **before)


def _interrupted(service: Service) -> dict[str, str]:
    dataset_id = service.upload(MANY_ROWS)
    finished = service.start(dataset_id, num_epochs=1, batch_size=16)
    service.wait_for_end(finished)
    answer = service.ask(finished, PROMPT)["generated_text"]
    interrupted = service.start(dataset_id, num_epochs=4, batch_size=1)
    waiting = service.start(dataset_id, num_epochs=1, batch_size=16)
    service.wait_until(interrupted, is_past_first_checkpoint, "the second epoch")
    return {
        "dataset_id": dataset_id,
        "finished": finished,
        "answer": answer,
        "interrupted": interrupted,
        "waiting": waiting,
    }
