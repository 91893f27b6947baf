"""Jobs as responses show them."""

from __future__ import annotations

from typing import Any

from sienn_ray.api.deps import Backends
from sienn_ray.api.schemas.hyperparameters import hyperparameters
from sienn_ray.api.schemas.jobs import JobDataset, JobMeta, JobSummary, TrainingStatus, name_of
from sienn_ray.jobs import job_facts
from sienn_ray.jobs.schema import JobRecord


def summary_of(job: JobRecord) -> JobSummary:
    """Return a job as a list shows it."""
    return JobSummary(
        job_id=job.id,
        dataset_id=job.dataset_id,
        status=job.status,
        progress=job.progress,
        message=job.message,
        created_at=job.created_at,
        updated_at=job.updated_at,
        name=job.name,
        labels=job.labels,
        model_name=job.config.base_model,
        started_at=job.started_at,
        ended_at=job.ended_at,
        priority=name_of(job.priority),
    )


def _facts(job: JobRecord) -> dict[str, Any]:
    waiting = {} if job.queue_position is None else {"queue_position": job.queue_position}
    return {**job_facts.to_flat(job), **waiting}


def _datasets_of(job: JobRecord) -> list[JobDataset]:
    per_epoch, seen = job.run.rows_per_epoch or {}, job.run.rows_seen or {}
    return [
        JobDataset(
            dataset_id=each.dataset_id,
            version=each.version,
            weight=each.weight,
            rows_per_epoch=per_epoch.get(each.dataset_id),
            rows_seen=seen.get(each.dataset_id),
        )
        for each in job.trained_on
    ]


def status_of(job: JobRecord, backends: Backends) -> TrainingStatus:
    """Return a job with all that is known of its run."""
    facts = _facts(job)
    for name in ("rows_per_epoch", "rows_seen"):  # in `datasets`
        facts.pop(name, None)
    reported_rate = facts.pop("learning_rate", None)
    if reported_rate is not None:
        facts["current_learning_rate"] = reported_rate
    known: dict[str, Any] = {
        "current_epoch": 0,
        "total_epochs": job.config.num_epochs,
        "current_loss": None,
        # Until the run has ended and says what its adapter has.
        "train_loss": facts.get("epoch_loss", facts.get("current_loss")),
    }
    run = {
        "model_name": job.config.base_model,
        "model_revision": job.config.base_model_revision,
        "model_path": backends.storage.location(job.adapter_key),
        "learning_rate": job.config.learning_rate,
        "num_epochs": job.config.num_epochs,
        "batch_size": job.config.batch_size,
        "attempt": job.attempt,
        "ray_submission_id": job.submission_id,
        "failure_reason": job.failure_reason,
        "datasets": _datasets_of(job),
        "validation_dataset_id": job.validation_dataset_id,
        "from_job": job.from_job,
        "lineage": list(job.lineage),
        "hyperparameters": hyperparameters(job.config),
    }
    meta = JobMeta(**{**known, **facts, **run})
    return TrainingStatus(**summary_of(job).model_dump(), log_tail=job.log_tail, meta=meta)
