"""Deliveries to webhooks, written in the transaction of what they tell; at most so many of each webhook."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from sienn_ray import metrics
from sienn_ray.jobs.export_schema import ExportRecord, ExportStatus
from sienn_ray.jobs.schema import JobRecord, JobStatus
from sienn_ray.jobs.store import metric_sums
from sienn_ray.jobs.store.tables import jobs, webhook_deliveries, webhooks
from sienn_ray.jobs.webhook_payloads import data_of_export, data_of_job, payload
from sienn_ray.jobs.webhook_schema import DeliveryRecord, DeliveryStatus, WebhookEvent
from sienn_ray.metrics import Sample

# Of one webhook, ended ones included.
MAX_DELIVERIES = 1000
_OF_JOB = {
    JobStatus.COMPLETED: WebhookEvent.JOB_COMPLETED,
    JobStatus.FAILED: WebhookEvent.JOB_FAILED,
    JobStatus.PAUSED: WebhookEvent.JOB_PAUSED,
    JobStatus.CANCELLED: WebhookEvent.JOB_CANCELLED,
}
_OF_EXPORT = {
    ExportStatus.COMPLETED: WebhookEvent.EXPORT_COMPLETED,
    ExportStatus.FAILED: WebhookEvent.EXPORT_FAILED,
}


def tell_of_job(connection: sa.Connection, job: JobRecord, moment: datetime) -> None:
    """Tell its owner's webhooks of the status that a job has just come to."""
    if event := _OF_JOB.get(job.status):
        _tell(connection, event, job.owner, lambda: data_of_job(job), moment)


def tell_of_export(connection: sa.Connection, export: ExportRecord, moment: datetime) -> None:
    """Tell its owner's webhooks of the status that an export has just come to."""
    if event := _OF_EXPORT.get(export.status):
        owner = connection.scalar(sa.select(jobs.c.owner).where(jobs.c.id == export.job_id))
        _tell(connection, event, owner or "", lambda: data_of_export(export), moment)


def _tell(
    connection: sa.Connection, event: WebhookEvent, owner: str, data: Callable[[], dict[str, Any]], moment: datetime
) -> None:
    hearing = sa.select(webhooks.c.id, webhooks.c.events).where(webhooks.c.owner == owner, webhooks.c.is_active)
    for webhook_id, events in connection.execute(hearing).all():
        if event.value in events:
            add(connection, webhook_id, event, data(), moment)


def add(
    connection: sa.Connection, webhook_id: str, event: WebhookEvent, data: dict[str, Any], moment: datetime
) -> DeliveryRecord:
    """Have something be delivered to a webhook."""
    _drop_surplus(connection, webhook_id)
    record = DeliveryRecord(
        id=f"msg_{uuid.uuid4().hex}", webhook_id=webhook_id, event=event, created_at=moment, due_at=moment
    )
    # Dates stay dates, and enums become text.
    values = {**dict(record), "event": event.value, "status": record.status.value}
    values |= {"body": payload(event, moment, data), "num_tries": 0}
    connection.execute(sa.insert(webhook_deliveries).values(**values))
    return record


def _drop_surplus(connection: sa.Connection, webhook_id: str) -> None:
    """Make room for one more: the oldest that has ended goes, or else the oldest."""
    deliveries = webhook_deliveries.c
    of_webhook = deliveries.webhook_id == webhook_id
    number = connection.scalar(sa.select(sa.func.count()).select_from(webhook_deliveries).where(of_webhook)) or 0
    if number < MAX_DELIVERIES:
        return
    is_waiting = sa.case((deliveries.status == DeliveryStatus.PENDING.value, 1), else_=0)
    oldest = (
        sa.select(deliveries.seq, is_waiting.label("is_waiting"))
        .where(of_webhook)
        .order_by(is_waiting, deliveries.seq)
        .limit(number - MAX_DELIVERIES + 1)
    )
    dropped = connection.execute(oldest).all()
    connection.execute(sa.delete(webhook_deliveries).where(deliveries.seq.in_([each.seq for each in dropped])))
    count(connection, "dropped", sum(each.is_waiting for each in dropped))


def give_up(connection: sa.Connection, webhook_id: str, moment: datetime, words: str) -> None:
    """End the deliveries that wait, since their webhook has ended."""
    deliveries = webhook_deliveries.c
    waiting = (deliveries.webhook_id == webhook_id, deliveries.status == DeliveryStatus.PENDING.value)
    values = {"status": DeliveryStatus.FAILED.value, "due_at": None, "ended_at": moment, "error": words}
    given_up = connection.execute(sa.update(webhook_deliveries).where(*waiting).values(**values)).rowcount
    count(connection, "given_up", given_up)


def count(connection: sa.Connection, result: str, number: int = 1) -> None:
    """Count attempts and deliveries by how they went."""
    name = metrics.WEBHOOK_DELIVERIES_TOTAL.name
    metric_sums.add_up(connection, [Sample(name, (("result", result),), float(number))] if number else [])
