"""A deadline for a function that blocks and takes no timeout."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar, cast

T = TypeVar("T")


class DeadlineThread:
    """Runs a blocking function in a daemon thread that its caller may give up.

    While a call that was given up goes on, further callers wait for that one, each up to its own deadline: a function
    that hangs holds one thread, however often it is called.

    Args:
        name: Name of the thread.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._under_way: Future[Any] | None = None

    def run(self, function: Callable[[], T], timeout_s: float) -> T:
        """Return what the function returns, or raise what it raises.

        Raises:
            TimeoutError: It takes longer than the deadline.
        """
        future = self._started(function)
        try:
            result = future.result(timeout_s)
        except TimeoutError as error:
            if future.done():  # raised by the function
                raise
            raise TimeoutError(f"no answer within {timeout_s:g} s") from error
        return cast(T, result)

    def _started(self, function: Callable[[], T]) -> Future[Any]:
        with self._lock:
            if self._under_way is None or self._under_way.done():
                self._under_way = Future()
                work = (function, self._under_way)
                threading.Thread(target=_run, args=work, name=self._name, daemon=True).start()
            return self._under_way


def _run(function: Callable[[], Any], future: Future[Any]) -> None:
    try:
        future.set_result(function())
    except BaseException as error:
        future.set_exception(error)
