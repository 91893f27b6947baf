from __future__ import annotations

from datetime import timedelta

import pytest
from pydantic import ValidationError

from sienn_ray.jobs.schema import JobPhase, JobRecord, JobStatus, utc_now
from sienn_ray.training.reporting import Phase, RunProgress
from tests.support.fakes_jobs import job_record


def test_every_phase_of_a_run_is_one_of_its_job() -> None:
    own = ["pausing", "paused", "stopping", "resuming", "cancelled", "completed", "failed"]
    assert [phase.value for phase in JobPhase] == [*(phase.value for phase in Phase), *own]


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
    first.other_facts["note"] = "of an earlier version"
    assert second.other_facts == {}


def test_job_survives_json() -> None:
    job = job_record(run=RunProgress(current_loss=0.5), phase=JobPhase.TRAINING, status=JobStatus.RUNNING)
    assert JobRecord.model_validate_json(job.model_dump_json()) == job
