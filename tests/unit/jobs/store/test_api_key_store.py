from __future__ import annotations

from datetime import timedelta

import pytest

from sienn_ray.access.api_keys import ApiKey, ApiKeyRecord
from sienn_ray.access.principals import ADMIN_OWNER, Scope
from sienn_ray.errors import ConflictError, InvalidInputError, NotFoundError
from sienn_ray.jobs.schema import JobQuery, JobStatus
from sienn_ray.jobs.store.store import Store
from tests.support.fakes_api import dataset_record
from tests.support.fakes_jobs import Clock, job_record


def key_record(clock: Clock, key_id: str = "key-1", **fields: object) -> ApiKeyRecord:
    key = ApiKey.random()
    values = {"name": "laptop", "owner": "ada", "scopes": {Scope.READ, Scope.TRAIN}, "created_at": clock(), **fields}
    return ApiKeyRecord.model_validate({"id": key_id, "prefix": key.prefix, "sha256": key.sha256, **values})


def test_a_key_is_found_by_its_prefix(store: Store, clock: Clock) -> None:
    record = key_record(clock, expires_at=clock() + timedelta(days=1))
    assert store.api_keys.add(record) == record
    assert store.api_keys.add(record) == record  # a repeat
    assert store.api_keys.of_prefix(record.prefix) == record
    assert store.api_keys.of_prefix("other") is None
    assert store.api_keys.page().records == [record]


def test_a_key_is_revoked_once(store: Store, clock: Clock) -> None:
    record = store.api_keys.add(key_record(clock))
    clock.advance(5)
    revoked = store.api_keys.revoke(record.id)
    assert revoked.revoked_at == clock()
    clock.advance(5)
    assert store.api_keys.revoke(record.id) == revoked
    assert store.api_keys.of_prefix(record.prefix) == revoked
    for other in ("key-2", "no id"):
        with pytest.raises(NotFoundError, match=f"Key {other} not found"):
            store.api_keys.revoke(other)


def test_a_rotated_key_is_valid_beside_its_successor_for_a_while(store: Store, clock: Clock) -> None:
    old = store.api_keys.add(key_record(clock))
    clock.advance(5)
    successor = key_record(clock, "key-2", name="", owner="nobody", scopes={Scope.ADMIN})
    added = store.api_keys.rotate(old.id, successor, grace_s=60)
    assert (added.name, added.owner, added.scopes) == (old.name, old.owner, old.scopes)
    assert (added.id, added.prefix, added.sha256) == (successor.id, successor.prefix, successor.sha256)
    known = store.api_keys.of_prefix(old.prefix)
    assert known is not None
    assert known.expires_at == clock() + timedelta(seconds=60)
    assert store.api_keys.rotate(old.id, successor, grace_s=60) == added  # a repeat
    assert len(store.api_keys.page().records) == 2


def test_rotation_lets_no_key_live_longer(store: Store, clock: Clock) -> None:
    soon = clock() + timedelta(seconds=10)
    old = store.api_keys.add(key_record(clock, expires_at=soon))
    store.api_keys.rotate(old.id, key_record(clock, "key-2"), grace_s=60)
    known = store.api_keys.of_prefix(old.prefix)
    assert known is not None
    assert known.expires_at == soon


def test_an_ended_key_has_no_successor(store: Store, clock: Clock) -> None:
    store.api_keys.add(key_record(clock))
    store.api_keys.revoke("key-1")
    with pytest.raises(ConflictError, match="key key-1 has been revoked"):
        store.api_keys.rotate("key-1", key_record(clock, "key-2"), grace_s=60)
    assert len(store.api_keys.page().records) == 1


class TestOwners:
    def test_lists_and_numbers_are_of_one_owner(self, store: Store) -> None:
        store.datasets.add(dataset_record(id="ada-1", owner="ada", sha256="a"))
        store.jobs.add(job_record("of-admin"))
        store.jobs.add(job_record("of-ada", owner="ada"))
        store.jobs.update("of-ada", status=JobStatus.RUNNING, attempt=1)
        store.jobs.update("of-ada", status=JobStatus.FAILED)
        assert [job.id for job in store.jobs.page(JobQuery(owner="ada")).jobs] == ["of-ada"]
        assert store.jobs.page(JobQuery(owner="ada")).count == 1
        assert store.jobs.page(JobQuery()).count == 2
        assert [dataset.id for dataset in store.datasets.page("ada").records] == ["ada-1"]
        assert len(store.datasets.page().records) == 2
        numbers = store.overview("ada")
        assert (numbers.num_datasets, sum(numbers.num_jobs.values()), numbers.num_failed_24h) == (1, 1, 1)
        store.jobs.delete("of-ada")
        assert (store.overview("ada").num_failed_24h, store.overview(ADMIN_OWNER).num_failed_24h) == (1, 0)
        assert store.overview().num_failed_24h == 1

    def test_two_owners_may_come_with_one_idempotency_key(self, store: Store) -> None:
        first = store.jobs.add(job_record("one", owner="ada", idempotency_key="key", request_hash="a"))
        second = store.jobs.add(job_record("two", owner="bob", idempotency_key="key", request_hash="b"))
        assert (first.id, second.id) == ("one", "two")
        assert [job and job.id for job in (store.jobs.of_key("key", owner) for owner in ("ada", "bob", "eve"))] == [
            "one",
            "two",
            None,
        ]

    def test_nobody_is_told_that_another_has_the_same_bytes(self, store: Store) -> None:
        store.datasets.add(dataset_record(id="ada-1", owner="ada", sha256="a"))
        assert store.datasets.add(dataset_record(id="bob-1", owner="bob", sha256="a")).duplicate_of is None
        assert store.datasets.add(dataset_record(id="ada-2", owner="ada", sha256="a")).duplicate_of == "ada-1"


def test_pages_of_keys(store: Store, clock: Clock) -> None:
    for number in range(5):
        made_at = clock() + timedelta(hours=number // 2)  # some were made at the same moment
        store.api_keys.add(key_record(clock, f"key-{number}", created_at=made_at))
    whole = store.api_keys.page()
    assert [key.id for key in whole.records] == ["key-4", "key-2", "key-3", "key-0", "key-1"]
    found: list[ApiKeyRecord] = []
    cursor = None
    for _ in range(3):
        page = store.api_keys.page(2, cursor)
        found += page.records
        cursor = page.next_cursor
        assert page.count == 5
    assert (found, cursor) == (whole.records, None)
    with pytest.raises(InvalidInputError, match="isn't the `next_cursor` of a page"):
        store.api_keys.page(2, "none")
