from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from sienn_ray.storage import Storage
from tests.support.s3 import forget_connections, s3_storage_url


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """An S3 server for the tests of this file."""
    with s3_storage_url() as url:
        yield url


def two_processes(url: str) -> tuple[Storage, Storage]:
    first = Storage(url)
    forget_connections()
    return first, Storage(url)


def test_what_another_process_has_written_is_deleted(url: str) -> None:
    first, second = two_processes(url)
    first.write_bytes("datasets/old/file", b"x")
    assert first.names("datasets") == ["old"]
    assert first.changes("datasets")
    assert not first.exists("datasets/new")
    second.write_bytes("datasets/new/file", b"x")
    second.write_bytes("datasets/newer/file", b"x")
    first.delete("datasets/new")
    assert second.names("datasets") == ["newer", "old"]
    first.delete("datasets")
    assert second.names("datasets") == []


def test_what_is_not_there_is_deleted_silently(url: str) -> None:
    storage = Storage(url)
    storage.delete("nothing")
    storage.delete("nothing/at/all")


def test_a_list_says_when_objects_were_written(url: str) -> None:
    storage = Storage(url)
    storage.write_bytes("exports/job/a/file", b"x")
    [(key, moment)] = storage.changes("exports/job")
    assert key == "exports/job/a/file"
    assert abs(datetime.now(UTC) - moment) < timedelta(minutes=5)
    assert storage.changes("exports/other") == []
    storage.delete("exports")
