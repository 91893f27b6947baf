from __future__ import annotations

import itertools

import pytest

from sienn_ray.errors import TransitionError
from sienn_ray.jobs.export_schema import ExportStatus
from sienn_ray.jobs.schema import JobStatus
from sienn_ray.jobs.transitions import (
    EXPORT_TRANSITIONS,
    JOB_TRANSITIONS,
    check_export_transition,
    check_job_transition,
)

JOBS = {
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
    if (current, new) in JOBS:
        check_job_transition("job-1", current, new)
        return
    with pytest.raises(TransitionError, match=f"job job-1 is '{current}' and can't become '{new}'"):
        check_job_transition("job-1", current, new)


def test_refusal_says_what_is_allowed() -> None:
    with pytest.raises(TransitionError, match=r"it can become: cancelled, failed, paused, running$"):
        check_job_transition("job-1", JobStatus.PENDING, JobStatus.COMPLETED)
    with pytest.raises(TransitionError, match=r"nothing, it is final$"):
        check_job_transition("job-1", JobStatus.COMPLETED, JobStatus.RUNNING)


def test_every_status_has_its_row() -> None:
    assert set(JOB_TRANSITIONS) == set(JobStatus)
    assert {status for status in JobStatus if not JOB_TRANSITIONS[status]} == {JobStatus.COMPLETED}
    assert set(EXPORT_TRANSITIONS) == set(ExportStatus)


EXPORTS = {
    (ExportStatus.PENDING, ExportStatus.RUNNING),
    (ExportStatus.PENDING, ExportStatus.CANCELLED),
    (ExportStatus.RUNNING, ExportStatus.PENDING),
    (ExportStatus.RUNNING, ExportStatus.COMPLETED),
    (ExportStatus.RUNNING, ExportStatus.FAILED),
    (ExportStatus.RUNNING, ExportStatus.CANCELLED),
    (ExportStatus.COMPLETED, ExportStatus.PENDING),
    (ExportStatus.FAILED, ExportStatus.PENDING),
    (ExportStatus.CANCELLED, ExportStatus.PENDING),
}


@pytest.mark.parametrize(("current", "new"), list(itertools.product(ExportStatus, repeat=2)))
def test_transitions_of_exports(current: ExportStatus, new: ExportStatus) -> None:
    if (current, new) in EXPORTS:
        check_export_transition("e-1", current, new)
        return
    with pytest.raises(TransitionError, match=f"export e-1 is '{current}' and can't become '{new}'"):
        check_export_transition("e-1", current, new)
