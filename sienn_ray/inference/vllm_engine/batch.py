"""Requests that vLLM computes, and those that wait in front of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

from sienn_ray.inference.batching.fair_queue import FairQueue
from sienn_ray.inference.engine import GenerationDelta, GenerationRequest
from sienn_ray.inference.requests.answer import Answer
from sienn_ray.inference.requests.open_requests import queue_timeout
from sienn_ray.settings import Settings


class VllmAnswer(Answer):
    """An answer that tells at once when its caller cancels it.

    Args:
        request: What to generate.
        listener: Gets deltas.
        on_cancel: Called by the thread that cancels.
    """

    #: Content hash of the adapter, or None for the base model itself.
    adapter_hash: str | None = None

    def __init__(
        self, request: GenerationRequest, listener: Callable[[GenerationDelta], None], on_cancel: Callable[[], None]
    ) -> None:
        super().__init__(request, listener)
        self._on_cancel = on_cancel

    def cancel(self) -> None:
        """See `Generation.cancel`."""
        super().cancel()
        self._on_cancel()

    def note_cached(self, num_tokens: int) -> None:
        """Note how many of the prompt's tokens were in the prefix cache, which the first output tells."""
        self._num_cached_tokens = num_tokens


class Batch:
    """Hands requests to vLLM, no more than it computes at a time; others wait in fair order over adapters.

    vLLM's own queue is first in, first out, and knows no time limit. Everything but `num_running` and `silent_s` is for
    the loop's thread.

    Args:
        settings: Limits of batch and queue.
        compute: Computes one answer until its last delta is out.
    """

    def __init__(self, settings: Settings, compute: Callable[[VllmAnswer], Coroutine[Any, Any, None]]) -> None:
        self._max_running = settings.engine_max_batch
        self._queue_timeout_s = settings.engine_queue_timeout_s
        self._compute = compute
        self._waiting: FairQueue[VllmAnswer] = FairQueue()
        self._running: dict[asyncio.Task[None], VllmAnswer] = {}
        # Tasks that tidy up; cancelled once more, they would leave something behind.
        self._cancelled: set[asyncio.Task[None]] = set()
        self._last_output_at = 0.0

    @property
    def num_running(self) -> int:
        """Requests that vLLM computes."""
        return len(self._running)

    @property
    def silent_s(self) -> float:
        """Seconds since the last token of any request; 0 while none runs."""
        return time.monotonic() - self._last_output_at if self._running else 0.0

    def note_output(self) -> None:
        """Note that vLLM has given tokens."""
        self._last_output_at = time.monotonic()

    def add(self, answer: VllmAnswer) -> None:
        """Queue a prepared request."""
        self._waiting.put(answer.request.adapter_id, answer)
        asyncio.get_running_loop().call_later(answer.arrived_at + self._queue_timeout_s - time.monotonic(), self.look)
        self.look()

    def look(self) -> None:
        """End requests that are cancelled or have waited too long, and hand others to vLLM while there are places."""
        latest = time.monotonic() - self._queue_timeout_s
        for answer in self._waiting.remove_if(
            lambda each: each.is_over or each.is_cancelled or each.arrived_at <= latest
        ):
            if answer.is_cancelled:
                answer.drop()
            else:
                answer.fail(queue_timeout(self._queue_timeout_s))
        for task, answer in self._running.items():
            if answer.is_cancelled:
                self._cancel(task)
        while len(self._waiting) and len(self._running) < self._max_running:
            self._begin(self._waiting.pop())

    async def stop(self) -> None:
        """Abort all requests; return once vLLM knows."""
        self._max_running = 0
        tasks = list(self._running)
        for task in tasks:
            self._cancel(task)
        await asyncio.gather(*tasks, return_exceptions=True)

    def _begin(self, answer: VllmAnswer) -> None:
        if not self._running:
            self.note_output()
        task = asyncio.get_running_loop().create_task(self._compute(answer))
        self._running[task] = answer
        task.add_done_callback(self._ended)

    def _cancel(self, task: asyncio.Task[None]) -> None:
        if task not in self._cancelled:
            self._cancelled.add(task)
            task.cancel()

    def _ended(self, task: asyncio.Task[None]) -> None:
        answer = self._running.pop(task)
        self._cancelled.discard(task)
        if answer.is_cancelled and not answer.is_over:
            answer.drop()
        self.look()
