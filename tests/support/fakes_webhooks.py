"""Webhooks to store."""

from __future__ import annotations

from typing import Any

from sienn_ray.jobs.webhook_schema import WebhookRecord
from tests.support.fakes_jobs import MOMENT

SECRET = "whsec_" + "c2llbm4gc2llbm4gc2llbm4gc2llbm4gc2llbm4g"
OTHER_SECRET = "whsec_" + "b3RoZXIgb3RoZXIgb3RoZXIgb3RoZXIgb3RoZXIg"


def webhook_record(webhook_id: str = "hook-1", **fields: Any) -> WebhookRecord:
    """A webhook of the admin, which hears of everything."""
    defaults: dict[str, Any] = {"url": "https://hooks.example.org/in", "created_at": MOMENT, "updated_at": MOMENT}
    return WebhookRecord(id=webhook_id, **{**defaults, **fields})
