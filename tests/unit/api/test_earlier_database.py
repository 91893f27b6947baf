"""A database that version 0.2.0 wrote: it opens, is answered as that version answered, and goes on.

`tests/data/database_0.2` has it as SQL, with jobs, exports and datasets in every status, and what the API said of it.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from starlette.testclient import TestClient

from sienn_ray.errors import FailureReason
from sienn_ray.jobs import job_facts
from sienn_ray.jobs.export_schema import ExportStatus
from sienn_ray.jobs.schema import JobPhase, JobQuery, JobStatus
from sienn_ray.jobs.store import tables
from sienn_ray.jobs.store.store import Store
from sienn_ray.settings import Settings
from sienn_ray.training.reporting import Phase, Progress, RunCommand, RunProgress
from tests.support.fakes_jobs import run_summary
from tests.support.in_process_tracker import InProcessTracker

FOLDER = Path(__file__).parents[2] / "data" / "database_0.2"
ANSWERS: dict[str, Any] = json.loads((FOLDER / "answers.json").read_text(encoding="utf-8"))
JOBS = [path.rpartition("/")[2] for path, answer in ANSWERS.items() if "meta" in answer]


# What later versions have added to answers; of what there was before it says nothing.
ADDED_TO_JOBS = ("log_tail",)
ADDED_TO_META: dict[str, Any] = {"model_revision": None, "from_job": None, "lineage": []}
ADDED_TO_A_DATASET: dict[str, Any] = {"guessed": {}, "ignored_columns": [], "notes": [], "reading_options": {}}
ADDED_TO_DATASETS: dict[str, Any] = {
    "version": 1,
    "version_of": None,
    "change": None,
    "appended_to": None,
    "source": None,
    "source_revision": None,
}
# Of the configuration of all jobs.
CONFIGURED = {"num_epochs", "batch_size", "learning_rate"}


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Those of other tests, but that ended exports are kept: the database's are months old."""
    return settings.model_copy(update={"export_lifetime_s": 100 * 365 * 86400.0})


@pytest.fixture(autouse=True)
def _written(settings: Settings) -> None:
    path = Path(sa.make_url(settings.database_url.get_secret_value()).database or "")
    path.parent.mkdir(parents=True)
    connection = sqlite3.connect(path)
    connection.executescript((FOLDER / "sienn.sql").read_text(encoding="utf-8"))
    connection.close()


@pytest.fixture
def store(settings: Settings) -> Iterator[Store]:
    store = Store(settings.database_url.get_secret_value())
    yield store
    store.close()


def facts(store: Store) -> dict[str, dict[str, Any]]:
    """By job, as the database has them."""
    with store.database.reading() as connection:
        return {row.id: row.facts for row in connection.execute(sa.select(tables.jobs.c.id, tables.jobs.c.facts))}


def test_it_has_every_status_and_all_of_it_is_read(store: Store) -> None:
    jobs = store.jobs.page(JobQuery()).jobs
    assert {job.status for job in jobs} == set(JobStatus)
    assert {job.phase for job in jobs} >= {phase for phase in JobPhase if phase.value not in set(Phase)}
    assert {export.status for job in jobs for export in store.exports.of_job(job.id).records} == set(ExportStatus)
    assert len(store.datasets.page().records) == 4
    assert {job.id for job in jobs} == set(JOBS)


@pytest.mark.parametrize("path", ANSWERS)
def test_answers_are_what_they_were(client: TestClient, settings: Settings, path: str) -> None:
    response = client.get(path)
    assert response.status_code == 200
    answer = json.loads(response.text.replace(str(settings.home), "HOME"))
    if "meta" in answer:
        meta, before = answer["meta"], ANSWERS[path]["meta"]
        configured = meta.pop("hyperparameters")
        assert {name: meta.pop(name) for name in CONFIGURED} == {name: configured[name] for name in CONFIGURED}
        if "current_learning_rate" in meta:  # its name was `learning_rate`
            meta["learning_rate"] = meta.pop("current_learning_rate")
        if "train_loss" not in before:
            assert meta.pop("train_loss") == before.get("epoch_loss", before["current_loss"])
        assert {name: meta.pop(name) for name in ADDED_TO_META} == ADDED_TO_META
        assert [each["dataset_id"] for each in meta.pop("datasets")] == [answer["dataset_id"]]
        assert [answer.pop(name) for name in ADDED_TO_JOBS] == [None] * len(ADDED_TO_JOBS)
    if "exports" in answer:
        assert answer.pop("next_cursor") is None
    for job in answer.get("jobs", [answer] if "meta" in answer else []):
        assert job.pop("priority") == "normal"
    for dataset in answer.get("datasets", [answer] if "filename" in answer else []):
        added = {name: dataset.pop(name) for name in [*ADDED_TO_DATASETS, *ADDED_TO_A_DATASET] if name in dataset}
        assert added == (ADDED_TO_DATASETS if "datasets" in answer else ADDED_TO_DATASETS | ADDED_TO_A_DATASET)
    for point in answer.get("points", []):
        rewards = [name for name in point if "rewards_" in name]
        assert len(rewards) == 8
        assert not any(point.pop(name) for name in rewards)
    for export in answer.get("exports", []):
        export.pop("timestamp")
        export["download_url"] = export["download_url"] and export["download_url"].partition("?")[0]
    assert answer == ANSWERS[path]


def test_facts_are_written_as_they_were_read(store: Store) -> None:
    before = facts(store)
    for job_id in before:
        store.jobs.update(job_id, message="looked at")
    assert facts(store) == before


def test_known_facts_have_their_types(store: Store) -> None:
    job = store.jobs.get("completed-sft")
    assert (job.phase, job.run.total_epochs, job.other_facts) == (JobPhase.COMPLETED, 3, {})
    assert job.summary is not None
    assert (job.summary.run_method, job.summary.loss_history[1].eval_loss) == ("sft", 0.65)
    pausing = store.jobs.get("running-pausing")
    assert (pausing.phase, pausing.is_pausing, pausing.is_stopping) == (JobPhase.PAUSING, True, False)
    assert pausing.pause_requested_at is not None
    stopping = [job.id for job in store.jobs.page(JobQuery()).jobs if job.is_stopping]
    assert stopping == ["cancelled-stopping", "running-overdue"]
    assert [job.id for job in store.jobs.stopping()] == ["cancelled-stopping"]


def test_facts_of_a_still_earlier_version_are_kept(store: Store) -> None:
    job = store.jobs.get("completed-earlier")
    assert job.summary is None
    assert job.other_facts == {
        "train_loss": 0.5,
        "loss_history": [{"epoch": 1}],
        "num_steps": 9,
        "note": "of an earlier version",
    }
    running = store.jobs.get("running-earlier")
    assert (running.phase, running.run) == (None, RunProgress(current_loss=0.25))
    unknown = {"history": [{"epoch": 1}], "note": "größer"}
    assert running.other_facts == {"phase": "tokenizing", "num_tokens": "many", **unknown}
    store.jobs.report("running-earlier", 1, Progress(Phase.TRAINING, "Training", 50, num_tokens=5))
    expected = {"phase": "training", "num_tokens": 5, "current_loss": 0.25, **unknown}
    assert facts(store)["running-earlier"] == expected


class TestGoingOn:
    """Each job takes the steps that its status allows, as one of today does."""

    @pytest.mark.parametrize("job_id", [job_id for job_id in JOBS if job_id.startswith("running-")])
    def test_running(self, tracker: InProcessTracker, job_id: str) -> None:
        actor, is_pausing = tracker.actor, tracker.actor.job(job_id).is_pausing
        progress = Progress(Phase.TRAINING, "Training", 70, current_step=9, num_tokens=900)
        assert actor.report(job_id, 1, progress) is (RunCommand.PAUSE if is_pausing else RunCommand.GO_ON)
        assert actor.job(job_id).run.current_step == 9
        actor.complete(job_id, 1, run_summary())
        job = actor.job(job_id)
        assert (job.status, job.phase, job.summary) == (JobStatus.COMPLETED, JobPhase.COMPLETED, run_summary())

    @pytest.mark.parametrize("job_id", [job_id for job_id in JOBS if job_id.startswith(("failed-", "cancelled-"))])
    def test_ended(self, tracker: InProcessTracker, job_id: str) -> None:
        actor, before = tracker.actor, tracker.actor.job(job_id)
        if before.is_stopping:
            tracker.step("jobs")
        assert actor.retry_job(job_id).status is JobStatus.PENDING
        lasting = {"num_tokens": before.run.num_tokens, "train_seconds": before.run.train_seconds}
        assert job_facts.to_flat(actor.job(job_id)) == {name: value for name, value in lasting.items() if value}
        actor.cancel_job(job_id)
        assert actor.delete_job(job_id).id == job_id

    @pytest.mark.parametrize("job_id", [job_id for job_id in JOBS if job_id.startswith("paused-")])
    def test_paused(self, tracker: InProcessTracker, job_id: str) -> None:
        assert tracker.actor.resume_job(job_id).phase is JobPhase.STARTING

    def test_pending(self, tracker: InProcessTracker) -> None:
        actor = tracker.actor
        for job in actor.jobs(JobQuery(status=JobStatus.RUNNING)).jobs:
            actor.fail(job.id, 1, FailureReason.INTERNAL, "gone")
        waiting = [job.id for job in reversed(actor.jobs(JobQuery(status=JobStatus.PENDING)).jobs)]
        assert waiting == ["pending-retried", "pending-lost", "pending-resumed", "pending-put-back", "pending-new"]
        for job_id in waiting:
            tracker.step("jobs")
            job = actor.job(job_id)
            assert (job.status, job.phase) == (JobStatus.RUNNING, JobPhase.STARTING)
            actor.complete(job_id, job.attempt, run_summary())

    def test_exports(self, tracker: InProcessTracker, client: TestClient) -> None:
        actor = tracker.actor
        for _ in range(2):  # two at a time
            tracker.make_exports()
        exports = {str(export.options.quantization): export for export in actor.exports("completed-sft").records}
        assert {quantization: export.status.value for quantization, export in exports.items()} == {
            "Q8_0": "completed",
            "Q6_K": "failed",
            "Q5_K_M": "cancelled",
            "F16": "completed",
            "Q4_K_M": "completed",
        }
        assert exports["F16"].attempt == 2
        assert actor.request_export(exports["Q6_K"]).status.value == "pending"
        assert actor.redo_export(exports["Q8_0"].id, "its file is gone").status.value == "pending"
        assert client.delete(f"/api/exports/completed-sft/{exports['Q5_K_M'].id}").status_code == 200
