"""Ids as users send them: looked up as they are, and not found if they can't be ids.

A type from here goes into a route's signature or a body. What isn't of the form of an id ends as a 404 like any unknown
id, and reaches neither database nor storage nor Ray.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import Path
from pydantic import AfterValidator

from sienn_ray.api.schemas.api_keys import KEY_ID
from sienn_ray.api.schemas.common import DATASET_ID, JOB_ID
from sienn_ray.api.schemas.exports import EXPORT_ID
from sienn_ray.api.schemas.webhooks import DELIVERY_ID, WEBHOOK_ID
from sienn_ray.jobs.ids import check_id


def dataset_id(value: str) -> str:
    """The id, if it can be one; raises `NotFoundError`."""
    check_id("Dataset", value)
    return value


def job_id(value: str) -> str:
    """The id, if it can be one; raises `NotFoundError`."""
    check_id("Job", value)
    return value


def export_id(value: str) -> str:
    """The id, if it can be one; raises `NotFoundError`."""
    check_id("Export", value)
    return value


def key_id(value: str) -> str:
    """The id, if it can be one; raises `NotFoundError`."""
    check_id("Key", value)
    return value


def webhook_id(value: str) -> str:
    """The id, if it can be one; raises `NotFoundError`."""
    check_id("Webhook", value)
    return value


def delivery_id(value: str) -> str:
    """The id, if it can be one; raises `NotFoundError`."""
    check_id("Delivery", value)
    return value


DatasetId = Annotated[str, AfterValidator(dataset_id)]
JobId = Annotated[str, AfterValidator(job_id)]
DatasetIdPath = Annotated[DatasetId, Path(description="The dataset's UUID.", examples=[DATASET_ID])]
JobIdPath = Annotated[JobId, Path(description="The job's UUID.", examples=[JOB_ID])]
ExportIdPath = Annotated[str, AfterValidator(export_id), Path(description="The export's id.", examples=[EXPORT_ID])]
WebhookIdPath = Annotated[str, AfterValidator(webhook_id), Path(description="The webhook's id.", examples=[WEBHOOK_ID])]
DeliveryIdPath = Annotated[
    str, AfterValidator(delivery_id), Path(description="The delivery's id.", examples=[DELIVERY_ID])
]
KeyIdPath = Annotated[str, AfterValidator(key_id), Path(description="The key's id.", examples=[KEY_ID])]
