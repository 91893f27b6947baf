from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from sienn_ray.errors import CapacityError, EngineError
from sienn_ray.inference.engine import GenerationDelta, GenerationRequest
from sienn_ray.inference.vllm_engine.batch import Batch, VllmAnswer
from sienn_ray.settings import Settings

WAIT_S = 60.0


class Computing:
    """Stands for vLLM: computes until it is told that an answer is ready."""

    def __init__(self) -> None:
        self.begun: list[VllmAnswer] = []
        self.aborted: list[VllmAnswer] = []
        self.tidied: list[VllmAnswer] = []
        self.may_tidy = asyncio.Event()
        self.may_tidy.set()
        self._ready: dict[VllmAnswer, asyncio.Event] = {}

    async def __call__(self, answer: VllmAnswer) -> None:
        self.begun.append(answer)
        self._ready[answer] = asyncio.Event()
        try:
            await self._ready[answer].wait()
        except asyncio.CancelledError:
            self.aborted.append(answer)
            await self.may_tidy.wait()
            self.tidied.append(answer)
            raise
        answer.fail(EngineError("computed"))

    def finish(self, answer: VllmAnswer) -> None:
        self._ready[answer].set()


class Asked:
    """A batch, and what its listeners have got."""

    def __init__(self, **changes: Any) -> None:
        self.computing = Computing()
        self.batch = Batch(Settings(**changes), self.computing)
        self.errors: dict[VllmAnswer, Exception] = {}

    def add(self, adapter_id: str | None = None) -> VllmAnswer:
        def listen(delta: GenerationDelta) -> None:
            assert delta.error is not None
            self.errors[answer] = delta.error

        loop = asyncio.get_running_loop()
        request = GenerationRequest.ask("?", adapter_id=adapter_id)
        answer = VllmAnswer(request, listen, partial(_call, loop, self.batch.look))
        self.batch.add(answer)
        return answer


def _call(loop: asyncio.AbstractEventLoop, look: Callable[[], None]) -> None:
    loop.call_soon_threadsafe(look)


async def until(is_so: Callable[[], bool]) -> None:
    async def wait() -> None:
        while not is_so():  # noqa: ASYNC110 # of other tasks of this loop
            await asyncio.sleep(0)

    await asyncio.wait_for(wait(), WAIT_S)


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await test()

    asyncio.run(main())


def test_no_more_are_computed_than_fit_and_adapters_take_turns() -> None:
    async def test() -> None:
        asked = Asked(engine_max_batch=2)
        first = [asked.add("a") for _ in range(4)]
        late = asked.add("b")
        await until(lambda: len(asked.computing.begun) == 2)
        assert asked.batch.num_running == 2
        asked.computing.finish(first[0])
        await until(lambda: len(asked.computing.begun) == 3)
        asked.computing.finish(first[1])
        await until(lambda: len(asked.computing.begun) == 4)
        assert late in asked.computing.begun
        await asked.batch.stop()

    run(test)


def test_one_that_waits_for_too_long_is_told() -> None:
    async def test() -> None:
        asked = Asked(engine_max_batch=1, engine_queue_timeout_s=0.05)
        running, waiting = asked.add(), asked.add()
        await until(lambda: waiting in asked.errors)
        assert isinstance(asked.errors[waiting], CapacityError)
        assert (running.is_over, asked.computing.begun) == (False, [running])
        await asked.batch.stop()

    run(test)


def test_one_that_is_cancelled_leaves_its_place() -> None:
    async def test() -> None:
        asked = Asked(engine_max_batch=1)
        running, waiting, next_one = asked.add(), asked.add(), asked.add()
        await until(lambda: asked.computing.begun == [running])
        waiting.cancel()
        await until(lambda: waiting in asked.errors)
        running.cancel()
        await until(lambda: asked.computing.begun == [running, next_one])
        assert asked.computing.aborted == [running]
        assert running.is_over
        await asked.batch.stop()

    run(test)


def test_one_that_is_cancelled_before_it_has_begun_ends_too() -> None:
    async def test() -> None:
        asked = Asked()
        answer = asked.add()
        answer.cancel()
        await until(lambda: answer in asked.errors)
        assert asked.batch.num_running == 0

    run(test)


def test_it_is_silent_only_while_something_runs() -> None:
    async def test() -> None:
        asked = Asked()
        assert asked.batch.silent_s == 0.0
        answer = asked.add()
        await until(lambda: asked.computing.begun == [answer])
        before = asked.batch.silent_s
        assert asked.batch.silent_s > before > 0
        asked.computing.finish(answer)
        await until(lambda: asked.batch.num_running == 0)
        assert asked.batch.silent_s == 0.0

    run(test)


def test_stopping_aborts_what_runs_and_begins_nothing_else() -> None:
    async def test() -> None:
        asked = Asked(engine_max_batch=1)
        running, _ = asked.add(), asked.add()
        await until(lambda: asked.computing.begun == [running])
        await asked.batch.stop()
        assert asked.computing.aborted == [running]
        assert asked.computing.begun == [running]

    run(test)


def test_one_that_is_cancelled_tidies_up_undisturbed() -> None:
    async def test() -> None:
        asked = Asked()
        running = asked.add()
        await until(lambda: asked.computing.begun == [running])
        asked.computing.may_tidy.clear()
        running.cancel()
        await until(lambda: asked.computing.aborted == [running])
        asked.batch.look()
        stopping = asyncio.create_task(asked.batch.stop())
        for _ in range(3):
            await asyncio.sleep(0)
        asked.computing.may_tidy.set()
        await stopping
        assert asked.computing.tidied == [running]

    run(test)
