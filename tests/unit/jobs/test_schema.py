from __future__ import annotations

import itertools
from datetime import timedelta

import pytest
from pydantic import ValidationError

from sienn_ray.errors import TransitionError
from sienn_ray.jobs.schema import TRANSITIONS, JobRecord, JobStatus, check_transition, utc_now
from tests.fakes_jobs import job_record

ALLOWED = {
    (JobStatus.PENDING, JobStatus.RUNNING),
    (JobStatus.PENDING, JobStatus.FAILED),
    (JobStatus.RUNNING, JobStatus.PENDING),
    (JobStatus.RUNNING, JobStatus.COMPLETED),
    (JobStatus.RUNNING, JobStatus.FAILED),
    (JobStatus.PENDING, JobStatus.CANCELLED),
    (JobStatus.RUNNING, JobStatus.CANCELLED),
    (JobStatus.PENDING, JobStatus.PAUSED),
    (JobStatus.RUNNING, JobStatus.PAUSED),
    (JobStatus.PAUSED, JobStatus.PENDING),
    (JobStatus.PAUSED, JobStatus.CANCELLED),
    (JobStatus.FAILED, JobStatus.PENDING),
    (JobStatus.CANCELLED, JobStatus.PENDING),
}


@pytest.mark.parametrize(("current", "new"), list(itertools.product(JobStatus, repeat=2)))
def test_transitions(current: JobStatus, new: JobStatus) -> None:
    if (current, new) in ALLOWED:
        check_transition("job-1", current, new)
        return
    with pytest.raises(TransitionError, match=f"job job-1 is '{current}' and can't become '{new}'"):
        check_transition("job-1", current, new)


def test_refusal_says_what_is_allowed() -> None:
    with pytest.raises(TransitionError, match=r"it can become: cancelled, failed, paused, running$"):
        check_transition("job-1", JobStatus.PENDING, JobStatus.COMPLETED)
    with pytest.raises(TransitionError, match=r"nothing, it is final$"):
        check_transition("job-1", JobStatus.COMPLETED, JobStatus.RUNNING)


def test_every_status_has_its_row() -> None:
    assert set(TRANSITIONS) == set(JobStatus)
    assert {status for status in JobStatus if not TRANSITIONS[status]} == {JobStatus.COMPLETED}


@pytest.mark.parametrize("status", JobStatus)
def test_final_statuses(status: JobStatus) -> None:
    assert status.is_final == (status not in {JobStatus.PENDING, JobStatus.RUNNING, JobStatus.PAUSED})
    assert status.is_at_rest == (status not in {JobStatus.PENDING, JobStatus.RUNNING})


def test_now_is_in_utc() -> None:
    assert utc_now().utcoffset() == timedelta(0)


def test_new_job_waits() -> None:
    job = job_record()
    assert (job.status, job.progress, job.attempt, job.submission_id) == (JobStatus.PENDING, 0, 0, None)
    assert job.failure_reason is None
    assert job.adapter_key == "adapters/job-1"


def test_records_are_frozen_and_do_not_share_facts() -> None:
    first, second = job_record("job-1"), job_record("job-2")
    with pytest.raises(ValidationError, match="frozen"):
        first.status = JobStatus.RUNNING  # type: ignore[misc]
    first.facts["phase"] = "training"
    assert second.facts == {}


def test_job_survives_json() -> None:
    job = job_record(facts={"current_loss": 0.5}, status=JobStatus.RUNNING)
    assert JobRecord.model_validate_json(job.model_dump_json()) == job
