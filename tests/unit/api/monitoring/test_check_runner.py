from __future__ import annotations

import asyncio
import threading
import time

import pytest

from sienn_ray.api.monitoring.check_runner import CheckRunner, in_own_thread, words_of
from sienn_ray.errors import CapacityError

TIMEOUT_S = 0.3

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class HangingCheck:
    """Hangs until it is released."""

    def __init__(self) -> None:
        self.release = asyncio.Event()
        self.num_started = 0

    async def __call__(self) -> str:
        self.num_started += 1
        await self.release.wait()
        return "done"


async def test_result_and_time() -> None:
    async def check() -> str:
        await asyncio.sleep(0.02)
        return "fine"

    outcome = await CheckRunner(TIMEOUT_S * 50).run("a", check)
    assert (outcome.value, outcome.error) == ("fine", None)
    assert outcome.took_s >= 0.02


async def test_error_is_told_and_not_raised() -> None:
    async def check() -> None:
        raise CapacityError("the tracker is restarting")

    outcome = await CheckRunner(TIMEOUT_S).run("a", check)
    assert (outcome.value, outcome.error) == (None, "the tracker is restarting")


async def test_failure_is_logged_when_it_begins(caplog: pytest.LogCaptureFixture) -> None:
    runner, errors = CheckRunner(TIMEOUT_S), [ValueError("a"), ValueError("a"), None, ValueError("b")]

    async def check() -> None:
        if (error := errors.pop(0)) is not None:
            raise error

    for _ in range(4):
        await runner.run("disk", check)
    assert [record.getMessage() for record in caplog.records] == ["the health check of disk failed"] * 2


async def test_hanging_check_ends_at_its_deadline() -> None:
    started = time.monotonic()
    outcome = await CheckRunner(TIMEOUT_S).run("a", HangingCheck())
    assert TIMEOUT_S * 0.99 <= time.monotonic() - started < 10
    assert outcome.error is not None
    assert outcome.error.startswith("no answer for 0.")
    assert outcome.took_s >= TIMEOUT_S * 0.99


async def test_check_that_hangs_still_is_not_started_again_and_answers_at_once() -> None:
    runner, check = CheckRunner(TIMEOUT_S), HangingCheck()
    await runner.run("a", check)
    waits = []
    for _ in range(3):
        started = time.monotonic()
        outcome = await runner.run("a", check)
        waits.append(time.monotonic() - started)
        assert outcome.error is not None
    assert check.num_started == 1
    assert max(waits) < TIMEOUT_S


async def test_it_says_for_how_long_it_has_been_hanging() -> None:
    runner, check = CheckRunner(TIMEOUT_S), HangingCheck()
    first = await runner.run("a", check)
    later = await runner.run("a", check)
    while later.took_s < first.took_s + 0.1:
        await asyncio.sleep(0.01)
        later = await runner.run("a", check)
    assert later.error != first.error


async def test_it_is_started_anew_once_it_has_ended() -> None:
    runner, check = CheckRunner(TIMEOUT_S), HangingCheck()
    await runner.run("a", check)
    check.release.set()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    outcome = await runner.run("a", check)
    assert (outcome.value, check.num_started) == ("done", 2)


async def test_requests_at_the_same_time_share_a_run() -> None:
    runner, check = CheckRunner(10.0), HangingCheck()
    waiting = [asyncio.create_task(runner.run("a", check)) for _ in range(50)]
    await asyncio.sleep(0)
    check.release.set()
    assert {outcome.value for outcome in await asyncio.gather(*waiting)} == {"done"}
    assert check.num_started == 1


async def test_client_that_goes_away_does_not_end_the_run_of_others() -> None:
    runner, check = CheckRunner(10.0), HangingCheck()
    first, second = (asyncio.create_task(runner.run("a", check)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)
    check.release.set()
    assert (await second).value == "done"


async def test_checks_of_different_names_do_not_wait_for_each_other() -> None:
    runner, hanging = CheckRunner(10.0), HangingCheck()
    task = asyncio.create_task(runner.run("a", hanging))

    async def check() -> str:
        return "fine"

    assert (await runner.run("b", check)).value == "fine"
    assert not task.done()
    task.cancel()


async def test_blocking_function_leaves_the_loop_and_the_default_pool_free() -> None:
    release = threading.Event()
    futures = [in_own_thread(lambda: release.wait(30)) for _ in range(100)]
    assert await asyncio.wait_for(asyncio.to_thread(lambda: "free"), 10) == "free"
    release.set()
    assert all(await asyncio.gather(*futures))


async def test_error_of_a_blocking_function_arrives() -> None:
    def fail() -> None:
        raise LookupError("nothing there")

    with pytest.raises(LookupError, match="nothing there"):
        await in_own_thread(fail)


async def test_threads_that_hang_do_not_keep_the_process_from_ending() -> None:
    release = threading.Event()
    in_own_thread(lambda: release.wait(30))
    assert all(thread.daemon for thread in threading.enumerate() if thread.name == "check")
    release.set()


def test_answer_after_the_loop_has_closed_harms_nobody() -> None:
    release = threading.Event()

    async def start() -> None:
        in_own_thread(lambda: release.wait(30))

    asyncio.run(start())
    (thread,) = [thread for thread in threading.enumerate() if thread.name == "check"]
    release.set()
    thread.join(10)
    assert not thread.is_alive()


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (CapacityError("too much"), "too much"),
        (OSError(28, "No space left on device"), "OSError: No space left on device; the server's log has the details"),
        (
            ValueError("s3://key:secret@bucket is wrong"),
            "ValueError; the server's log has the details",
        ),
    ],
)
def test_foreign_words_are_not_shown(error: Exception, words: str) -> None:
    assert words_of(error) == words
