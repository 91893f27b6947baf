"""What one owner sees of the tracker, over a real one."""

from __future__ import annotations

import asyncio
from datetime import date
from typing import Any

import pytest

from sienn_ray.access.quotas import Quotas
from sienn_ray.access.usage import UsageBatch, UsageCounts, UsageKey, UsageQuery
from sienn_ray.api.access import owned_tracker
from sienn_ray.api.access.owned_tracker import NOT_FOR_OWNERS, OwnedTracker
from sienn_ray.datasets.weights import WeightedDataset
from sienn_ray.errors import ForbiddenError, NotFoundError
from sienn_ray.jobs.schema import JobPriority, JobQuery, JobStatus
from sienn_ray.jobs.tracker_protocol import METHODS, ids_among
from tests.support.fakes_api import dataset_record, job_record
from tests.support.fakes_exports import export_record
from tests.support.fakes_webhooks import SECRET, webhook_record
from tests.support.in_process_tracker import InProcessTracker

ADA = {
    "dataset_id": "ada-data",
    "job_id": "ada-job",
    "export_id": "ada-export",
    "webhook_id": "ada-hook",
    "delivery_id": "ada-delivery",
}


@pytest.fixture
def tracker(tracker: InProcessTracker) -> InProcessTracker:
    """Ada has a dataset, a completed job and an export; Bob has a dataset."""
    tracker.put(dataset_record(id="ada-data", owner="ada"), dataset_record(id="bob-data", owner="bob"))
    tracker.put(job_record(id="ada-job", owner="ada", dataset_id="ada-data", status=JobStatus.COMPLETED))
    tracker.put_export(export_record("ada-job", id="ada-export"))
    tracker.actor.add_webhook(webhook_record("ada-hook", owner="ada"), SECRET)
    return tracker


def of(dataset_id: str) -> WeightedDataset:
    return WeightedDataset(dataset_id=dataset_id)


def run(tracker: InProcessTracker, owner: str, method: str, *args: Any) -> Any:
    return asyncio.run(getattr(OwnedTracker(tracker, owner), method)(*args))


def test_every_call_is_for_owners_in_a_known_way_or_not_for_them() -> None:
    with_ids = {name for name in METHODS if ids_among(name, tuple(METHODS[name].parameters)[1:])}
    known = owned_tracker._LISTS | owned_tracker._QUERIES | owned_tracker._WITH_RECORDS | {"job_of_key"}
    assert METHODS.keys() - with_ids - known - NOT_FOR_OWNERS == set()
    assert known & NOT_FOR_OWNERS == set()


@pytest.mark.parametrize("method", sorted(NOT_FOR_OWNERS))
def test_calls_of_programs_and_admins_are_refused(tracker: InProcessTracker, method: str) -> None:
    with pytest.raises(PermissionError):
        asyncio.run(OwnedTracker(tracker, "ada").send(method))
    assert tracker.calls == []


@pytest.mark.parametrize("method", sorted(METHODS.keys() - NOT_FOR_OWNERS))
def test_what_another_owns_is_not_there(tracker: InProcessTracker, method: str) -> None:
    names = list(METHODS[method].parameters)[1:]
    args = tuple(ADA.get(name, 1) for name in names)
    kinds = ids_among(method, args)
    if not kinds:
        return  # below
    kind, text = kinds[0]
    before = tracker.num_records
    with pytest.raises(NotFoundError, match=f"^{kind} {text} not found$"):
        run(tracker, "bob", method, *args)
    assert method in {"dataset", "job", "export", "webhook"} or method not in tracker.calls
    assert tracker.num_records == before


def test_the_owner_sees_and_changes_what_is_theirs(tracker: InProcessTracker) -> None:
    assert run(tracker, "ada", "job", "ada-job").id == "ada-job"
    assert run(tracker, "ada", "export", "ada-export").id == "ada-export"
    assert [each.id for each in run(tracker, "ada", "exports", "ada-job").records] == ["ada-export"]
    assert run(tracker, "ada", "delete_job", "ada-job").id == "ada-job"
    assert run(tracker, "ada", "delete_dataset", "ada-data").id == "ada-data"


def test_lists_and_numbers_have_what_is_the_owner_s(tracker: InProcessTracker) -> None:
    assert [each.id for each in run(tracker, "bob", "datasets").records] == ["bob-data"]
    assert run(tracker, "bob", "datasets", "ada") == run(tracker, "bob", "datasets")
    assert run(tracker, "bob", "jobs", JobQuery(owner="ada")).count == 0
    assert run(tracker, "ada", "jobs", JobQuery()).count == 1
    assert run(tracker, "bob", "overview").num_datasets == 1
    assert sum(run(tracker, "bob", "overview").num_jobs.values()) == 0


def test_what_is_added_becomes_the_owner_s(tracker: InProcessTracker) -> None:
    assert run(tracker, "bob", "add_dataset", dataset_record(id="new", owner="ada")).owner == "bob"
    job = run(tracker, "bob", "add_job", job_record(id="new", owner="ada", dataset_id="bob-data", idempotency_key="k"))
    assert job.owner == "bob"
    assert run(tracker, "bob", "job_of_key", "k", "ada").id == "new"
    assert run(tracker, "ada", "job_of_key", "k", "bob") is None


@pytest.mark.parametrize(
    "fields",
    [
        {"dataset_id": "ada-data"},
        {"dataset_id": "bob-data", "validation_dataset_id": "ada-data"},
        {"dataset_id": "bob-data", "datasets": (of("bob-data"), of("ada-data"))},
    ],
)
def test_no_job_trains_on_what_another_owns(tracker: InProcessTracker, fields: dict[str, Any]) -> None:
    with pytest.raises(NotFoundError, match=r"^Dataset ada-data not found$"):
        run(tracker, "bob", "add_job", job_record(id="new", **fields))
    assert "add_job" not in tracker.calls


def test_no_job_starts_from_what_another_owns(tracker: InProcessTracker) -> None:
    with pytest.raises(NotFoundError, match=r"^Job ada-job not found$"):
        run(tracker, "bob", "add_job", job_record(id="new", dataset_id="bob-data", from_job="ada-job"))
    assert "add_job" not in tracker.calls


def test_nobody_makes_a_version_of_what_another_owns(tracker: InProcessTracker) -> None:
    with pytest.raises(NotFoundError, match=r"^Dataset ada-data not found$"):
        run(tracker, "bob", "add_dataset", dataset_record(id="new", version_of="ada-data"))
    assert tracker.num_records == 3


def test_nobody_exports_what_another_owns(tracker: InProcessTracker) -> None:
    with pytest.raises(NotFoundError, match=r"^Job ada-job not found$"):
        run(tracker, "bob", "request_export", export_record("ada-job", id="new"))
    assert "request_export" not in tracker.calls


def test_urgent_is_for_admins(tracker: InProcessTracker) -> None:
    with pytest.raises(ForbiddenError, match="'high' goes ahead of your own"):
        run(tracker, "bob", "add_job", job_record(id="new", dataset_id="bob-data", priority=JobPriority.URGENT))
    assert "add_job" not in tracker.calls
    job = run(tracker, "bob", "add_job", job_record(id="new", dataset_id="bob-data", priority=JobPriority.HIGH))
    assert job.priority is JobPriority.HIGH


def test_usage_is_the_owner_s(tracker: InProcessTracker) -> None:
    for number, owner in enumerate(["ada", "bob"], start=1):
        row = (UsageKey(date(2026, 11, 29), owner), UsageCounts(num_requests=number))
        tracker.actor.add_usage(UsageBatch(owner, 1, (row,)))
    assert run(tracker, "bob", "usage", UsageQuery(owner="ada")).total.num_requests == 2


def test_quotas_are_the_owner_s(tracker: InProcessTracker) -> None:
    assert run(tracker, "bob", "quota_state", "ada").owner == "bob"
    with pytest.raises(PermissionError):
        run(tracker, "bob", "set_owner_quotas", "bob", Quotas())
