"""Registration of an uploaded dataset while the tracker is away: its record and its files come to be, or neither."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sienn_ray.api.registrations import Registrations
from sienn_ray.datasets import dataset_keys
from sienn_ray.errors import CapacityError, NotFoundError, RedeployedError
from sienn_ray.settings import Settings
from sienn_ray.storage import Storage
from tests.support.fakes_api import dataset_record
from tests.support.in_process_tracker import InProcessTracker

AWAY = CapacityError("the job tracker hasn't answered within 30 s; try again in a moment")
RECORD = dataset_record()


@pytest.fixture
def tracker(tmp_path: Path) -> InProcessTracker:
    return InProcessTracker(Settings(env="test", home=tmp_path))


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    """Storage with the files of a dataset that isn't registered yet."""
    storage = Storage(f"file://{tmp_path}/storage")
    for key in (dataset_keys.file_key, dataset_keys.rows_key):
        storage.write_bytes(key(RECORD.id), b"x")
    return storage


def files(storage: Storage) -> set[str]:
    folder = Path(storage.path(dataset_keys.folder_key(RECORD.id)))
    return {path.name for path in folder.iterdir()} if folder.exists() else set()


async def forget(storage: Storage, dataset_id: str) -> None:
    storage.delete(dataset_keys.folder_key(dataset_id))


def register(
    tracker: InProcessTracker, storage: Storage, *, timeout_s: float, meanwhile: Callable[[int], None]
) -> None:
    """Register while the tracker doesn't answer, and wait until it is known what became of that.

    Args:
        tracker: The tracker.
        storage: The files.
        timeout_s: Time until the deadline; negative for one that is over when the tracker gets to it.
        meanwhile: Called with a number in place of each pause.
    """
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        meanwhile(len(pauses))
        await asyncio.sleep(0)

    async def run() -> None:
        registrations = Registrations(tracker, storage, forget, timeout_s, sleep)
        with pytest.raises(CapacityError, match="hasn't answered"):
            await registrations.register(RECORD)
        assert files(storage) == {"file", "rows.parquet", "unregistered"}
        (task,) = registrations._open
        await asyncio.wait_for(task, 30.0)
        assert not registrations._open

    asyncio.run(run())


def lose_answer(tracker: InProcessTracker) -> None:
    """Have the tracker do what it is asked, once, without an answer."""
    send = tracker.send

    async def send_and_lose(method: str, *args: Any) -> Any:
        tracker.send = send  # type: ignore[method-assign]
        await send(method, *args)
        raise AWAY

    tracker.send = send_and_lose  # type: ignore[method-assign]


def test_answer(tracker: InProcessTracker, storage: Storage) -> None:
    record = asyncio.run(Registrations(tracker, storage, forget).register(RECORD))
    assert record.id == RECORD.id
    assert files(storage) == {"file", "rows.parquet"}


def test_record_that_was_written_without_an_answer_keeps_its_files(tracker: InProcessTracker, storage: Storage) -> None:
    lose_answer(tracker)
    register(tracker, storage, timeout_s=30.0, meanwhile=lambda _: None)
    assert files(storage) == {"file", "rows.parquet"}
    assert tracker.actor.dataset(RECORD.id).id == RECORD.id


def test_record_that_will_not_be_written_any_more_leaves_no_files(tracker: InProcessTracker, storage: Storage) -> None:
    tracker.fail_with(AWAY, num_calls=1)
    register(tracker, storage, timeout_s=-1.0, meanwhile=lambda _: None)
    assert files(storage) == set()
    with pytest.raises(NotFoundError):
        tracker.actor.dataset(RECORD.id)


def test_files_stay_while_nothing_is_known(tracker: InProcessTracker, storage: Storage) -> None:
    seen: list[set[str]] = []

    def look(number: int) -> None:
        seen.append(files(storage))
        if number == 4:
            tracker.fail_with(None)

    tracker.fail_with(AWAY)
    register(tracker, storage, timeout_s=-1.0, meanwhile=look)
    assert seen == [{"file", "rows.parquet", "unregistered"}] * 4
    assert files(storage) == set()


def test_tracker_that_comes_to_it_too_late_leaves_no_files(tracker: InProcessTracker, storage: Storage) -> None:
    with pytest.raises(CapacityError, match="nothing was changed"):
        asyncio.run(Registrations(tracker, storage, forget, timeout_s=-1.0).register(RECORD))
    assert files(storage) == set()


def test_fault_of_the_tracker_leaves_no_files(tracker: InProcessTracker, storage: Storage) -> None:
    tracker.fail_with(ZeroDivisionError(), num_calls=1)
    with pytest.raises(ZeroDivisionError):
        asyncio.run(Registrations(tracker, storage, forget).register(RECORD))
    assert files(storage) == set()


def test_redeploy_with_another_storage_leaves_no_files(tracker: InProcessTracker, tmp_path: Path) -> None:
    """A replica of before still drains, and has written where the tracker of now doesn't look."""
    old = Storage(f"file://{tmp_path}/storage-of-before")
    old.write_bytes(dataset_keys.file_key(RECORD.id), b"x")
    with pytest.raises(RedeployedError, match="upload the file again"):
        asyncio.run(Registrations(tracker, old, forget).register(RECORD))
    assert files(old) == set()
    with pytest.raises(NotFoundError):
        tracker.actor.dataset(RECORD.id)


def test_redeploy_while_the_answer_is_awaited_leaves_no_files(tracker: InProcessTracker, tmp_path: Path) -> None:
    old = Storage(f"file://{tmp_path}/storage-of-before")
    for key in (dataset_keys.file_key, dataset_keys.rows_key):
        old.write_bytes(key(RECORD.id), b"x")
    tracker.fail_with(AWAY, num_calls=1)
    register(tracker, old, timeout_s=30.0, meanwhile=lambda _: None)
    assert files(old) == set()
