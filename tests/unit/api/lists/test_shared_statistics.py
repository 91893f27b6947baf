from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from sienn_ray.api.lists import shared_statistics
from sienn_ray.api.lists.shared_statistics import SharedStatistics
from sienn_ray.datasets.schema import RowKind
from sienn_ray.datasets.statistics_schema import StatisticsRequest
from sienn_ray.errors import CapacityError, InvalidDatasetError, TooManyRequestsError
from sienn_ray.storage import Storage
from tests.support.fakes_statistics import FakeStatistics, statistics_of

REQUEST = StatisticsRequest("dataset-1", "owner/model", max_length=512, row_kind=RowKind.CONVERSATION, num_columns=2)


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(f"file://{tmp_path}")


@pytest.fixture
def fake(storage: Storage) -> FakeStatistics:
    return FakeStatistics(storage)


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, 30))


def other(**changes: Any) -> StatisticsRequest:
    return StatisticsRequest(**{**vars(REQUEST), **changes})


def test_result_is_kept_by_model_and_length(storage: Storage, fake: FakeStatistics) -> None:
    async def test() -> None:
        shared = SharedStatistics(fake, storage, timeout_s=10)
        assert await shared.kept(REQUEST) is None
        assert await shared.of(REQUEST) == statistics_of(REQUEST)
        assert await shared.kept(REQUEST) == statistics_of(REQUEST)
        for request in (other(max_length=128), other(base_model="owner/other"), other(dataset_id="dataset-2")):
            assert await shared.kept(request) is None

    run(test())


def test_kept_result_that_cannot_be_read_is_computed_anew(storage: Storage, fake: FakeStatistics) -> None:
    async def test() -> None:
        shared = SharedStatistics(fake, storage, timeout_s=10)
        for content in (b"", b"{}", b"\xff"):
            storage.write_bytes(REQUEST.key, content)
            assert await shared.kept(REQUEST) is None
        assert await shared.of(REQUEST) == await shared.kept(REQUEST)

    run(test())


def test_key_is_below_the_datasets_folder_whatever_the_model_is_called() -> None:
    keys = {other(base_model=name).key for name in ("../../x", "a\nb", "é", "", "owner/model\n512", "x" * 10_000)}
    assert len(keys) == 6
    assert all(key.startswith("datasets/dataset-1/statistics/") and len(key) < 100 for key in keys)


def test_those_who_ask_at_once_share_one_computation(storage: Storage, fake: FakeStatistics) -> None:
    async def test() -> None:
        shared = SharedStatistics(fake, storage, timeout_s=10)
        fake.hold()
        tasks = [asyncio.create_task(shared.of(REQUEST)) for _ in range(5)]
        await asyncio.sleep(0.02)
        assert fake.release is not None
        fake.release.set()
        assert await asyncio.gather(*tasks) == [statistics_of(REQUEST)] * 5
        assert len(fake.asked) == 1

    run(test())


def test_client_that_leaves_cancels_nothing(storage: Storage, fake: FakeStatistics) -> None:
    async def test() -> None:
        shared = SharedStatistics(fake, storage, timeout_s=10)
        fake.hold()
        leaving, staying = (asyncio.create_task(shared.of(REQUEST)) for _ in range(2))
        await asyncio.sleep(0.02)
        leaving.cancel()
        assert fake.release is not None
        fake.release.set()
        assert await staying == statistics_of(REQUEST)

    run(test())


def test_wait_ends_but_the_computation_goes_on(storage: Storage, fake: FakeStatistics) -> None:
    async def test() -> None:
        shared = SharedStatistics(fake, storage, timeout_s=0.02)
        fake.hold()
        for _ in range(2):
            with pytest.raises(CapacityError, match=r"after 0 s \(SIENN_STATISTICS_TIMEOUT_S\)") as error:
                await shared.of(REQUEST)
            assert error.value.retry_after_s > 0
        assert len(fake.asked) == 1
        assert fake.release is not None
        fake.release.set()
        deadline = time.monotonic() + 20
        while await shared.kept(REQUEST) is None:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.005)

    run(test())


def test_error_reaches_all_and_the_next_one_tries_again(
    storage: Storage, fake: FakeStatistics, caplog: pytest.LogCaptureFixture
) -> None:
    async def test() -> None:
        shared = SharedStatistics(fake, storage, timeout_s=10)
        fake.error = InvalidDatasetError("the template refuses")
        results = await asyncio.gather(shared.of(REQUEST), shared.of(REQUEST), return_exceptions=True)
        assert [str(result) for result in results] == ["the template refuses"] * 2
        fake.error = None
        assert await shared.of(REQUEST) == statistics_of(REQUEST)
        assert len(fake.asked) == 2

    with caplog.at_level(logging.WARNING):
        run(test())
    assert "dataset-1: the template refuses" in caplog.text


class Places:
    """Places that are given, one for each computation, until there are none left."""

    def __init__(self, number: int) -> None:
        self.num_left = number
        self.num_asked = 0

    @asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        self.num_asked += 1
        await asyncio.sleep(0)
        if self.num_left == 0:
            raise TooManyRequestsError("no place is left", retry_after_s=1)
        self.num_left -= 1
        try:
            yield
        finally:
            self.num_left += 1


def test_those_who_ask_at_once_need_one_place(storage: Storage, fake: FakeStatistics) -> None:
    async def test() -> None:
        shared, places = SharedStatistics(fake, storage, timeout_s=10), Places(1)
        found = await asyncio.gather(*(shared.of(REQUEST, places.one) for _ in range(5)))
        assert found == [statistics_of(REQUEST)] * 5
        assert (places.num_asked, places.num_left) == (1, 1)

    run(test())


def test_a_place_comes_back_however_it_ends(storage: Storage, fake: FakeStatistics) -> None:
    async def test() -> None:
        shared, places = SharedStatistics(fake, storage, timeout_s=10), Places(1)
        fake.error = InvalidDatasetError("the template refuses")
        with pytest.raises(InvalidDatasetError):
            await shared.of(REQUEST, places.one)
        assert places.num_left == 1

    run(test())


def test_without_a_place_nothing_is_computed(
    storage: Storage, fake: FakeStatistics, caplog: pytest.LogCaptureFixture
) -> None:
    async def test() -> None:
        shared, places = SharedStatistics(fake, storage, timeout_s=10), Places(0)
        found = await asyncio.gather(*(shared.of(REQUEST, places.one) for _ in range(2)), return_exceptions=True)
        assert [str(each) for each in found] == ["no place is left"] * 2
        assert fake.asked == []
        places.num_left = 1
        assert await shared.of(REQUEST, places.one) == statistics_of(REQUEST)

    run(test())
    assert not caplog.records


def test_so_many_are_begun_and_no_more(storage: Storage, fake: FakeStatistics, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_statistics, "MAX_BEGUN", 3)

    async def test() -> None:
        shared = SharedStatistics(fake, storage, timeout_s=10)
        fake.hold()
        tasks = [asyncio.create_task(shared.of(other(max_length=length))) for length in (128, 256, 512)]
        await asyncio.sleep(0)
        with pytest.raises(CapacityError, match="3 computations of statistics begun") as refused:
            await shared.of(other(max_length=1024))
        assert refused.value.retry_after_s > 0
        tasks.append(asyncio.create_task(shared.of(other(max_length=512))))  # is under way
        await asyncio.sleep(0)
        assert fake.release is not None
        fake.release.set()
        await asyncio.gather(*tasks)
        assert await shared.of(other(max_length=1024)) == statistics_of(other(max_length=1024))

    run(test())


def test_no_more_than_two_run_at_once(storage: Storage, fake: FakeStatistics) -> None:
    async def test() -> None:
        shared = SharedStatistics(fake, storage, timeout_s=10)
        fake.hold()
        tasks = [asyncio.create_task(shared.of(other(dataset_id=f"dataset-{n}"))) for n in range(6)]
        await asyncio.sleep(0.02)
        assert fake.num_running == 2
        assert fake.release is not None
        fake.release.set()
        await asyncio.gather(*tasks)
        assert (fake.max_running, len(fake.asked)) == (2, 6)

    run(test())
