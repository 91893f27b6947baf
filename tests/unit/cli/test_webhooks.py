"""Commands about webhooks, against a service."""

from __future__ import annotations

import re

import pytest

from tests.support.in_process_tracker import InProcessTracker
from tests.unit.cli.running import done, refused

pytestmark = pytest.mark.usefixtures("service")
URL = "https://93.184.216.34/in"


def created(*words: str) -> str:
    said = done("webhooks", "create", URL, *words)
    assert re.search(r"^secret: whsec_[A-Za-z0-9+/=]{40,}$", said, re.MULTILINE)
    match = re.search(r"^id: (\S+)$", said, re.MULTILINE)
    assert match
    return match[1]


def test_a_webhook_is_made_shown_changed_and_deleted() -> None:
    webhook_id = created("--event", "job.failed", "--event", "job.completed", "--description", "chat")
    listed = done("webhooks", "list")
    assert webhook_id in listed
    assert "job.completed,job.failed" in listed
    assert '"description": "chat"' in done("webhooks", "show", webhook_id)
    assert '"is_active": false' in done("webhooks", "change", webhook_id, "--inactive")
    changed = done("webhooks", "change", webhook_id, "--active", "--event", "export.failed")
    assert '"is_active": true' in changed
    assert '"export.failed"' in changed
    assert "secret: whsec_" in done("webhooks", "rotate", webhook_id, "--grace", "1h")
    assert done("webhooks", "delete", webhook_id) == f"deleted: {webhook_id}\n"
    assert "not found" in refused("webhooks", "show", webhook_id)


def test_deliveries_are_listed_and_repeated(tracker: InProcessTracker) -> None:
    webhook_id = created()
    said = done("webhooks", "test", webhook_id)
    delivery_id = said.split()[0]
    assert f"is pending; `sienn webhooks deliveries {webhook_id}`" in said
    done("webhooks", "test", webhook_id)
    listed = done("webhooks", "deliveries", webhook_id, "--limit", "1")
    assert "1 of 2; --limit shows more" in listed
    assert delivery_id in done("webhooks", "deliveries", webhook_id, "--status", "pending")
    assert delivery_id in done("webhooks", "redeliver", webhook_id, delivery_id)
    assert tracker.calls.count("ping_webhook") == 2


def test_what_is_wrong_is_said() -> None:
    webhook_id = created()
    assert "there is nothing to change" in refused("webhooks", "change", webhook_id)
    assert "is no public address" in refused("webhooks", "create", "https://127.0.0.1/")
    assert "--grace is 'long'" in refused("webhooks", "rotate", webhook_id, "--grace", "long")
    assert "job.started" in refused("webhooks", "create", URL, "--event", "job.started")
