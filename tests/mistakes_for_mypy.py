"""Mistakes that mypy has to find, so that they never get as far as a test.

`make check` fails here where one of them is no error any more: mypy takes a `type: ignore` that isn't needed for one.
Nothing calls these functions.
"""

from __future__ import annotations

from typing import assert_never

from sienn_ray.export.options import ExportFormat
from sienn_ray.export.targets import ExportTarget
from sienn_ray.jobs.schema import JobPhase, JobRecord, JobStatus
from sienn_ray.jobs.tracker_protocol import Tracker
from sienn_ray.training.methods import Method
from sienn_ray.training.reporting import RunProgress
from sienn_ray.training.summary import RunSummary


def misspelt_phase() -> JobPhase:
    return JobPhase.TRANING  # type: ignore[attr-defined, no-any-return]


def misspelt_fact(job: JobRecord) -> object:
    return job.run.eval_los  # type: ignore[attr-defined]


def fact_of_another_type() -> RunProgress:
    return RunProgress(current_step="ten")  # type: ignore[arg-type]


def fact_that_nobody_has() -> RunSummary:
    return RunSummary(adaptor_sha256="0")  # type: ignore[call-arg]


def call_that_the_tracker_has_not(tracker: Tracker) -> object:
    return tracker.canccel("job")  # type: ignore[attr-defined]


def status_that_is_forgotten(status: JobStatus) -> str:
    match status:
        case JobStatus.PENDING | JobStatus.RUNNING | JobStatus.PAUSED | JobStatus.COMPLETED | JobStatus.FAILED:
            return "known"
        case _:
            assert_never(status)  # type: ignore[arg-type]


def format_that_is_forgotten(chosen: ExportFormat) -> str:
    match chosen:
        case ExportFormat.GGUF:
            return "known"
        case _:
            assert_never(chosen)  # type: ignore[arg-type]


def loss_that_is_forgotten(method: Method) -> str:
    match method:
        case Method.SFT:
            return "known"
        case _:
            assert_never(method)  # type: ignore[arg-type]


def target_without_its_fields() -> ExportTarget:
    return ExportTarget(format=ExportFormat.GGUF)  # type: ignore[call-arg]
