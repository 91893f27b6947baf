"""Calls shared by all who ask the same at a time (request coalescing, "single flight")."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

Question = TypeVar("Question", bound=Hashable)
Answer = TypeVar("Answer")


@dataclass
class _Calls(Generic[Answer]):
    """The calls for one question.

    Args:
        running: The one that is under way; who asks now may want what it read too early.
        following: The one that begins behind it, for all who have asked meanwhile.
    """

    running: asyncio.Task[Answer]
    following: asyncio.Task[Answer] | None = None


class SharedCalls(Generic[Question, Answer]):
    """Answers all who ask the same by one call, which begins after they have asked.

    However many ask at a time, two calls answer them: the one that the first of them begins, and one behind it.

    Args:
        call: Answers a question.
    """

    def __init__(self, call: Callable[[Question], Awaitable[Answer]]) -> None:
        self._call = call
        self._calls: dict[Question, _Calls[Answer]] = {}

    async def ask(self, question: Question) -> Answer:
        """Return an answer that is no older than the question, or raise what the call raised."""
        calls = self._calls.get(question)
        if calls is None:
            task = asyncio.create_task(self._answer(question, None))
            self._calls[question] = _Calls(task)
        else:
            if calls.following is None:
                calls.following = asyncio.create_task(self._answer(question, calls.running))
            task = calls.following
        await asyncio.wait({task})  # who leaves meanwhile doesn't end it for others
        return task.result()

    async def _answer(self, question: Question, before: asyncio.Task[Answer] | None) -> Answer:
        if before is not None:
            await asyncio.wait({before})
        try:
            return await self._call(question)
        finally:
            calls = self._calls[question]
            if calls.following is None:
                del self._calls[question]
            else:
                self._calls[question] = _Calls(calls.following)
