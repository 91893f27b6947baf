from __future__ import annotations

from typing import Any

import pytest

from sienn_ray.errors import FailureReason, TransitionError
from sienn_ray.jobs.schema import JobEvent, JobPhase, JobStatus
from sienn_ray.jobs.store import job_events
from sienn_ray.jobs.store.job_events import MAX_EVENTS, EventKind
from sienn_ray.jobs.store.store import Store
from sienn_ray.training.reporting import Phase, Progress
from tests.support.fakes_jobs import Clock, job_record


@pytest.fixture
def running(store: Store) -> Store:
    """`job-1` runs its first attempt."""
    store.jobs.add(job_record())
    store.jobs.update("job-1", status=JobStatus.RUNNING, attempt=1, phase=JobPhase.STARTING)
    store.jobs.note_start("job-1", 1, "sienn-job-1-1")
    return store


def events(store: Store, job_id: str = "job-1", after: int = 0, limit: int = 1000) -> list[JobEvent]:
    return store.jobs.events(job_id, after, limit)


def kinds(store: Store, job_id: str = "job-1") -> list[str]:
    return [event.kind for event in events(store, job_id)]


def report(store: Store, phase: Phase, **fields: Any) -> None:
    store.jobs.report("job-1", 1, Progress(phase, f"it is {phase.value}", 10, **fields))


def test_life_of_a_job(running: Store, clock: Clock) -> None:
    for phase in (Phase.LOADING_DATA, Phase.LOADING_MODEL, Phase.TRAINING, Phase.TRAINING, Phase.EVALUATING):
        clock.advance(1)
        report(running, phase)
    report(running, Phase.EVALUATING, eval_loss=0.75, current_step=12, current_epoch=1)
    running.jobs.update("job-1", status=JobStatus.COMPLETED, message="done")
    told = events(running)
    assert [(event.kind, event.message) for event in told] == [
        ("created", "Fine-tuning job submitted successfully"),
        ("started", "Attempt 1 started as Ray job sienn-job-1-1"),
        ("phase", "it is loading_data"),
        ("phase", "it is loading_model"),
        ("phase", "it is training"),
        ("phase", "it is evaluating"),
        ("evaluated", "it is evaluating"),
        ("completed", "done"),
    ]
    assert told[1].data == {"attempt": 1, "ray_submission_id": "sienn-job-1-1"}
    assert told[2].data == {"phase": "loading_data", "attempt": 1}
    assert told[6].data == {"eval_loss": 0.75, "epoch": 1, "step": 12}
    assert told[-1].created_at == clock.now
    assert [event.seq for event in told] == sorted({event.seq for event in told})


def test_failure_has_its_reason(running: Store) -> None:
    reason = FailureReason.OUT_OF_MEMORY
    running.jobs.update("job-1", status=JobStatus.FAILED, failure_reason=reason, message="no memory left")
    last = events(running)[-1]
    assert (last.kind, last.message, last.data) == ("failed", "no memory left", {"failure_reason": "out_of_memory"})


def test_lost_run(running: Store) -> None:
    running.jobs.requeue("job-1", 1, "worker process was killed")
    interrupted, queued = events(running)[-2:]
    assert (interrupted.kind, queued.kind) == ("interrupted", "queued")
    assert interrupted.message == "Attempt 1 was lost: worker process was killed"
    assert queued.message == running.jobs.get("job-1").message
    assert running.jobs.requeue("job-1", 1, "again").status is JobStatus.PENDING
    assert len(events(running)) == 4, "a repeat tells nothing"


def test_job_started_by_hand_is_created_and_started(store: Store) -> None:
    store.jobs.add(job_record(status=JobStatus.RUNNING, attempt=1, submission_id="raysubmit_1"))
    assert kinds(store) == ["created", "started"]
    job = store.jobs.get("job-1")
    assert job.started_at == job.created_at


def test_refused_change_tells_nothing(running: Store) -> None:
    running.jobs.update("job-1", status=JobStatus.COMPLETED)
    before = events(running)
    with pytest.raises(TransitionError):
        running.jobs.update("job-1", status=JobStatus.FAILED)
    running.jobs.add(job_record())
    assert events(running) == before


def test_events_are_read_on_from_where_one_was(running: Store) -> None:
    report(running, Phase.LOADING_DATA)
    every = events(running)
    assert events(running, after=every[0].seq) == every[1:]
    assert events(running, after=every[-1].seq) == []
    assert events(running, limit=2) == every[:2]
    assert events(running, limit=0) == events(running, limit=-1) == []
    assert events(running, after=-5) == every
    assert events(running, after=2**200) == []


def test_each_job_has_its_own(running: Store) -> None:
    running.jobs.add(job_record("job-2"))
    report(running, Phase.LOADING_DATA)
    assert kinds(running, "job-2") == ["created"]
    assert kinds(running) == ["created", "started", "phase"]


def test_number_of_events_is_bounded(running: Store, clock: Clock) -> None:
    with running.database.writing() as connection:
        for number in range(MAX_EVENTS + 50):
            kind = (EventKind.PHASE, EventKind.EVALUATED)[number % 2]
            job_events.add(connection, "job-1", kind, str(number), clock.now)
    kept = events(running)
    assert len(kept) == MAX_EVENTS
    assert [event.kind for event in kept[:2]] == ["created", "started"]
    assert [event.message for event in kept[2:]] == [str(number) for number in range(52, MAX_EVENTS + 50)]


def test_events_that_last_go_when_nothing_else_is_left(running: Store, clock: Clock) -> None:
    with running.database.writing() as connection:
        job_events.add(connection, "job-1", EventKind.PHASE, "first to go", clock.now)
        for number in range(MAX_EVENTS):
            job_events.add(connection, "job-1", EventKind.INTERRUPTED, str(number), clock.now)
    assert [event.message for event in events(running)] == [str(number) for number in range(MAX_EVENTS)]


@pytest.mark.parametrize("message", ["a\0b", "\ud800", "⛴ größer", "x" * 100_000])
def test_any_message_is_told(running: Store, message: str) -> None:
    running.jobs.report("job-1", 1, Progress(Phase.LOADING_DATA, message, 1))
    events(running)[-1].model_dump_json()
    assert len(events(running)[-1].message) == min(len(message), 600)


def test_a_warning_is_an_event_and_the_counts_are_facts(running: Store) -> None:
    report(running, Phase.TRAINING, warning="22 of 48 rows are too long", num_long_rows=22, num_cut_tokens=900)
    assert [event.message for event in events(running) if event.kind == "warning"] == ["22 of 48 rows are too long"]
    assert running.jobs.get("job-1").run.num_long_rows == 22


def test_an_evaluation_is_one_event(running: Store) -> None:
    """Also where no report of its batches came before."""
    report(running, Phase.TRAINING, current_step=10)
    report(running, Phase.EVALUATING, eval_loss=0.75, epoch_loss=0.8, current_step=10, current_epoch=2)
    told = [event for event in events(running) if event.message == "it is evaluating"]
    assert [(event.kind, event.data) for event in told] == [
        ("evaluated", {"eval_loss": 0.75, "train_loss": 0.8, "epoch": 2, "step": 10})
    ]


def test_the_end_of_an_epoch_is_an_event_with_its_loss(running: Store) -> None:
    report(running, Phase.TRAINING, current_step=6, current_epoch=1)
    report(running, Phase.TRAINING, epoch_loss=1.5)
    assert [(event.kind, event.data) for event in events(running)][-1] == ("epoch", {"train_loss": 1.5, "epoch": 1})
