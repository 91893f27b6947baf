"""Payloads of webhooks: what the REST API says of a job or an export, under the same names."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from typing import Any

from sienn_ray.jobs.export_schema import ExportRecord
from sienn_ray.jobs.schema import JobRecord
from sienn_ray.jobs.webhook_schema import WebhookEvent


def payload(event: WebhookEvent, moment: datetime, data: dict[str, Any]) -> str:
    """Return what is sent, as JSON in ASCII, so that it is signed and sent byte by byte as it is kept.

    Args:
        event: What has happened.
        moment: When.
        data: To what.
    """
    body = {"type": event.value, "timestamp": _shown(moment), "data": data}
    return json.dumps(body, separators=(",", ":"), allow_nan=False)


def data_of_job(job: JobRecord) -> dict[str, Any]:
    """Return a job as a list of jobs shows it, and why it failed or what its adapter has come to."""
    summary = job.summary
    return {
        "job_id": job.id,
        "dataset_id": job.dataset_id,
        "status": job.status.value,
        "progress": job.progress,
        "message": job.message,
        "created_at": _shown(job.created_at),
        "updated_at": _shown(job.updated_at),
        "name": job.name,
        "labels": job.labels,
        "model_name": job.config.base_model,
        "priority": job.priority.name.lower(),
        "started_at": _shown(job.started_at),
        "ended_at": _shown(job.ended_at),
        "failure_reason": job.failure_reason,
        "train_loss": _finite(summary.train_loss) if summary else None,
        "eval_loss": _finite(summary.eval_loss) if summary else None,
    }


def data_of_export(export: ExportRecord) -> dict[str, Any]:
    """Return an export as the API shows it, without a link: that works for a while, and for whoever has it."""
    return {
        "job_id": export.job_id,
        "export_id": export.id,
        "format": export.options.format,
        "status": export.status.value,
        "message": export.message,
        "progress": export.progress,
        "file_name": export.file_name,
        "file_size_bytes": export.size_bytes,
        "sha256": export.sha256,
        "failure_reason": export.failure_reason,
        "created_at": _shown(export.created_at),
        "expires_at": _shown(export.expires_at),
    }


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _shown(moment: datetime | None) -> str | None:
    if moment is None:
        return None
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
