"""The whole service in one process: the real tracker over SQLite, with Ray and the engines faked."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp

from sienn_ray.api.app import create_app
from sienn_ray.export.archive import ARCHIVE_FILES
from sienn_ray.jobs.schema import JobRecord, JobStatus
from sienn_ray.jobs.tracker import JobTracker
from sienn_ray.settings import Settings
from sienn_ray.storage import Storage
from sienn_ray.training.reporting import Phase, Progress
from tests.support.fakes_api import FakeEngines, FakeJobLogs
from tests.support.fakes_backends import fake_backends
from tests.support.fakes_exports import FakeExportRuns
from tests.support.fakes_jobs import FakeRayJobs, FakeRayLogs, no_mirror, run_summary
from tests.support.in_process_tracker import InProcessTracker

_DEADLINE_S = 20.0


@dataclass(frozen=True)
class Service:
    """An application with real records behind it, and hands to move its jobs."""

    app: FastAPI
    tracker: JobTracker
    ray_jobs: FakeRayJobs
    export_runs: FakeExportRuns
    engines: FakeEngines
    job_logs: FakeJobLogs
    storage: Storage
    folder: Path

    def wait_until(self, job_id: str, status: JobStatus) -> JobRecord:
        """Wait until a job has come to a status."""
        deadline = time.monotonic() + _DEADLINE_S
        while (job := self.tracker.job(job_id)).status is not status:
            assert time.monotonic() < deadline, f"the job is '{job.status}' and not '{status}'"
            time.sleep(0.01)
        return job

    def train(self, job: JobRecord) -> None:
        """Let a running job come half way through the second of its epochs, with its log and its curves."""
        self.job_logs.chunks[job.submission_id or ""] = [b"loading\n", b"step 1\n", b"step 2\n"]
        for step in (1, 2, 3):
            self.tracker.report(job.id, job.attempt, _progress(step, job.config.num_epochs))

    def complete(self, job: JobRecord) -> None:
        """Let a running job end well, with an adapter in storage."""
        adapter = self.folder / f"adapter-{job.id}-{job.attempt}"
        adapter.mkdir()
        for name in ARCHIVE_FILES:
            (adapter / name).write_text(f'{{"file": "{name}"}}')
        self.storage.publish(adapter, job.adapter_key)
        self.tracker.complete(job.id, job.attempt, run_summary(num_tokens=3000))


def _progress(step: int, num_epochs: int) -> Progress:
    return Progress(
        Phase.TRAINING,
        message=f"Training in progress: Epoch 2/{num_epochs}",
        percent=30 + 5 * step,
        current_epoch=2,
        total_epochs=num_epochs,
        current_step=step,
        total_steps=6,
        current_loss=0.523 + 1 / step,
        eval_loss=0.6,
        learning_rate=1e-4,
        tokens_per_s=1200.0,
        time_left_s=30.0,
        num_tokens=1000 * step,
        train_seconds=float(step),
    )


@contextmanager
def running_service(folder: Path, **settings: Any) -> Iterator[Service]:
    """A service with its state under a folder; `settings` change what it is set to."""
    chosen = Settings(**{"env": "test", "home": folder / "home", "job_poll_s": 0.02, **settings})
    ray_jobs, engines, job_logs, storage = FakeRayJobs(), FakeEngines(), FakeJobLogs(), Storage(chosen.storage_url)
    export_runs = FakeExportRuns(storage)
    tracker = JobTracker(chosen, ray_jobs, mirror=no_mirror, export_runs=export_runs, ray_logs=FakeRayLogs())
    backends = fake_backends(
        chosen, tracker=InProcessTracker(chosen, tracker), engines=engines, storage=storage, job_logs=job_logs
    )
    try:
        yield Service(create_app(backends), tracker, ray_jobs, export_runs, engines, job_logs, storage, folder)
    finally:
        tracker.close()


@contextmanager
def served(app: ASGIApp) -> Iterator[str]:
    """An application behind a real HTTP server on a free port; gives its URL."""
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        deadline = time.monotonic() + _DEADLINE_S
        while not server.started:
            assert time.monotonic() < deadline, "the server didn't start"
            time.sleep(0.01)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
