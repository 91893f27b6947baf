"""The scheduler of continuous batching: requests join and leave the batch at every step."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection

from sienn_ray.inference.batching.fair_queue import FairQueue
from sienn_ray.inference.batching.generation import RunningGeneration
from sienn_ray.inference.batching.step_plan import plan
from sienn_ray.inference.model.kv_blocks import BlockPool
from sienn_ray.inference.model.runner import StepRow
from sienn_ray.inference.requests.open_requests import queue_timeout
from sienn_ray.settings import Settings


class Scheduler:
    """Admits waiting requests to the batch, plans steps, and frees the KV blocks of those that are over.

    A request gets KV blocks for its longest answer when it joins, so none is ever preempted. Everything but
    `num_running` is for the thread that computes.

    Args:
        pool: KV blocks.
        settings: Limits of batch and queue.
        step_tokens: Tokens of a step.
        have_room: Returns whether the adapters of these names can be in one step.
    """

    def __init__(
        self,
        pool: BlockPool,
        settings: Settings,
        step_tokens: int,
        have_room: Callable[[Collection[str]], bool] = lambda _: True,
    ) -> None:
        self._have_room = have_room
        self._pool = pool
        self._settings = settings
        self._step_tokens = step_tokens
        self._waiting: FairQueue[RunningGeneration] = FairQueue()
        self.running: list[RunningGeneration] = []

    @property
    def num_running(self) -> int:
        """Requests in the batch."""
        return len(self.running)

    @property
    def is_idle(self) -> bool:
        """True while no request runs or waits."""
        return not self.running and not len(self._waiting)

    def add(self, generation: RunningGeneration) -> None:
        """Queue a prepared request."""
        self._waiting.put(generation.request.adapter_id, generation)

    def drop_abandoned(self) -> None:
        """End requests that are cancelled, and those that have waited too long for a place in the batch."""
        latest = time.monotonic() - self._settings.engine_queue_timeout_s
        for generation in self._waiting.remove_if(lambda each: each.is_cancelled or each.arrived_at < latest):
            if generation.is_cancelled:
                generation.drop()
            else:
                generation.fail(queue_timeout(self._settings.engine_queue_timeout_s))
        for generation in [each for each in self.running if each.is_cancelled]:
            generation.drop()
        self.retire()

    def admit(self) -> None:
        """Have waiting requests join the batch while there are places, KV blocks, and room for their adapters."""
        while len(self.running) < self._settings.engine_max_batch:
            generation = self._waiting.peek()
            if generation is None or not self._has_room(generation):
                return
            table = self._pool.take(generation.adapter.identity, generation.prompt.input_ids, generation.num_max_tokens)
            if table is None:  # others have to leave first; requests behind this one wait too, or it might never fit
                return
            generation.join(table)
            self.running.append(self._waiting.pop())

    def _has_room(self, generation: RunningGeneration) -> bool:
        """Return whether a request's adapter has room beside those of the batch."""
        names = {each.adapter.name for each in self.running if each.adapter.name is not None}
        own = generation.adapter.name
        return own is None or own in names or self._have_room({*names, own})

    def plan(self) -> list[tuple[RunningGeneration, StepRow]]:
        """Return the rows of the next step; see `batch.plan`."""
        return plan(self.running, self._step_tokens)

    def note_prefilled(self, generation: RunningGeneration) -> None:
        """Add a prompt, all of which is computed, to the prefix cache."""
        if generation.table is not None:
            self._pool.note(generation.table, generation.tokens)

    def retire(self) -> None:
        """Take requests that are over out of the batch; what they computed stays in the prefix cache."""
        for generation in [each for each in self.running if each.is_over]:
            self.running.remove(generation)
            if generation.table is not None:
                self._pool.note(generation.table, generation.tokens[: generation.num_computed])
                self._pool.give_back(generation.table)
                generation.table = None
