"""Asks the API to start a fine-tune."""

from __future__ import annotations

from typing import Any

from starlette.testclient import TestClient

START = "/api/start-finetuning"


KEY = {"Idempotency-Key": "order 66/a"}


TIMESTAMP = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"


def start(client: TestClient, headers: dict[str, str] | None = None, **fields: Any) -> Any:
    return client.post(START, json={"dataset_id": "dataset-1", **fields}, headers=headers)
