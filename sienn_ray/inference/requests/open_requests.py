"""Requests that an engine has accepted and not yet answered, the same for every engine."""

from __future__ import annotations

import logging
import threading
from functools import partial

from sienn_ray.errors import CapacityError, QueueFullError
from sienn_ray.inference.requests.answer import Answer

logger = logging.getLogger(__name__)

# Another replica has to be noticed as missing and to load the base model.
_REPLACED_RETRY_AFTER_S = 15


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
        self._failure: str | None = None

    @property
    def is_closed(self) -> bool:
        """True once no further request is accepted."""
        return self._is_closed

    @property
    def failure(self) -> str | None:
        """Reason given to `fail`, or None."""
        return self._failure

    def add(self, answer: Answer, num_running: int) -> None:
        """Accept a request.

        Args:
            answer: Of the request.
            num_running: Requests that the engine computes at the moment.

        Raises:
            QueueFullError: As many requests wait as may.
            CapacityError: The engine is closed, or has failed.
        """
        with self._lock:
            if self._failure is not None:
                raise self._failed()
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

    def fail(self, reason: str) -> None:
        """Accept no further request and end every answer, because the engine can't go on; the first reason stays.

        Args:
            reason: What has happened, for the log and for `Engine.failure`.
        """
        with self._lock:
            if self._is_closed:
                return
            self._is_closed, self._failure = True, reason
        logger.critical("the engine of %s has failed: %s", self._base_model, reason)
        self.fail_all()

    def fail_all(self) -> None:
        """End every answer with an error, once the engine computes no more."""
        with self._lock:
            answers = list(self._answers)
        stopped = CapacityError(f"the engine of {self._base_model} has stopped; try again in a moment")
        for answer in answers:
            answer.fail(stopped if self._failure is None else self._failed())

    def _failed(self) -> CapacityError:
        return CapacityError(
            f"the engine of {self._base_model} has failed and is being replaced; ask again in a moment",
            retry_after_s=_REPLACED_RETRY_AFTER_S,
        )

    def _discard(self, answer: Answer) -> None:
        with self._lock:
            self._answers.discard(answer)


def queue_timeout(timeout_s: float) -> CapacityError:
    """The error of a request that has waited for its turn for too long."""
    return CapacityError(f"no place within {timeout_s:g} s (SIENN_ENGINE_QUEUE_TIMEOUT_S); try again later")
