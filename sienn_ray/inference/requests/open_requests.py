"""Requests that an engine has accepted and not yet answered, the same for every engine."""

from __future__ import annotations

import threading
from functools import partial

from sienn_ray.errors import CapacityError, QueueFullError
from sienn_ray.inference.requests.answer import Answer


class OpenRequests:
    """A bounded set of answers, each in it from its request's arrival to its last delta. For any thread.

    Args:
        base_model: Hub id, for messages.
        max_queue: Requests that may wait beside those that the engine computes.
    """

    def __init__(self, base_model: str, max_queue: int) -> None:
        self._base_model = base_model
        self._max_queue = max_queue
        self._answers: set[Answer] = set()
        self._lock = threading.Lock()
        self._is_closed = False

    @property
    def is_closed(self) -> bool:
        """True once no further request is accepted."""
        return self._is_closed

    def add(self, answer: Answer, num_running: int) -> None:
        """Accept a request.

        Args:
            answer: Of the request.
            num_running: Requests that the engine computes at the moment.

        Raises:
            QueueFullError: As many requests wait as may.
            CapacityError: The engine is closed.
        """
        with self._lock:
            if self._is_closed:
                raise CapacityError(f"the engine of {self._base_model} is stopping; try again in a moment")
            if len(self._answers) - num_running >= self._max_queue:
                raise QueueFullError.of(self._base_model, self._max_queue)
            self._answers.add(answer)
        answer.at_end(partial(self._discard, answer))

    def close(self) -> None:
        """Accept no further request; a repeat changes nothing."""
        with self._lock:
            self._is_closed = True

    def fail_all(self) -> None:
        """End every answer with an error, once the engine computes no more."""
        with self._lock:
            answers = list(self._answers)
        for answer in answers:
            answer.fail(CapacityError(f"the engine of {self._base_model} has stopped; try again in a moment"))

    def _discard(self, answer: Answer) -> None:
        with self._lock:
            self._answers.discard(answer)


def queue_timeout(timeout_s: float) -> CapacityError:
    """The error of a request that has waited for its turn for too long."""
    return CapacityError(f"no place within {timeout_s:g} s (SIENN_ENGINE_QUEUE_TIMEOUT_S); try again later")
