"""The clients of the job tracker: one for asynchronous code (the ingress), functions for programs and threads."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

import ray
from ray.exceptions import ActorDiedError, GetTimeoutError, RayActorError, RayError, RayTaskError

from sienn_ray.errors import CapacityError, SiennError
from sienn_ray.jobs.change_requests import CALL_TIMEOUT_S, ChangeRequest, current_request, repeating
from sienn_ray.jobs.client.tracker_handle import TRACKER, TrackerHandle, find_tracker
from sienn_ray.jobs.tracker_protocol import READING, Tracker, TrackerCalls, check_arguments

logger = logging.getLogger(__name__)

_CONNECT_THREADS = 8
# A look costs as much as a call. A tracker that a redeploy has replaced is dead, which is noticed at once.
_HANDLE_LIFETIME_S = 1.0
_RETRY_S = 2.0
# What is told in passing waits in Ray's queue while the tracker is away, and is worth something for long.
_SENT_LIFETIME_S = 600.0

P = ParamSpec("P")
R = TypeVar("R")
# A method of `Tracker`, named as `Tracker.job` is: its arguments and its answer are checked by that.
Call = Callable[Concatenate[Tracker, P], Coroutine[Any, Any, R]]


def tracker_client(connect: Callable[[], Any] = find_tracker, timeout_s: float = CALL_TIMEOUT_S) -> Tracker:
    """A client for asynchronous code.

    Every method raises what the tracker raised, and `CapacityError` while the tracker is away or too slow. What it asks
    to change doesn't begin to happen once it has given up.

    Args:
        connect: Gives the tracker's handle.
        timeout_s: Longest wait for an answer.
    """
    return cast(Tracker, _ActorCalls(connect, timeout_s))


class _ActorCalls(TrackerCalls):
    def __init__(self, connect: Callable[[], Any], timeout_s: float) -> None:
        self._handle = TrackerHandle(connect, lifetime_s=_HANDLE_LIFETIME_S)
        self._timeout_s = timeout_s
        # Threads of their own: while Ray's GCS is away they hang, and others must not wait for them.
        self._threads = ThreadPoolExecutor(_CONNECT_THREADS, thread_name_prefix="tracker-lookup")

    async def send(self, method: str, *args: Any) -> Any:
        request = current_request(self._timeout_s)
        try:
            async with asyncio.timeout(self._timeout_s):
                try:
                    return await self._send_once(request, method, args)
                except ActorDiedError:  # replaced in a redeploy
                    self._handle.forget()
                    return await self._send_once(request, method, args)
        except TimeoutError:
            raise CapacityError(
                f"the job tracker hasn't answered within {self._timeout_s:g} s; try again in a moment"
            ) from None
        except RayTaskError as error:
            raise _cause(error) from None
        except RayError as error:
            raise CapacityError("the job tracker is restarting; try again in a moment") from error

    async def _send_once(self, request: ChangeRequest, method: str, args: tuple[Any, ...]) -> Any:
        tracker = self._handle.known()
        if tracker is None:
            tracker = await asyncio.get_running_loop().run_in_executor(self._threads, self._handle.get)
        return await _remote(tracker, request, method, args)


def _remote(tracker: Any, request: ChangeRequest, method: str, args: tuple[Any, ...]) -> Any:
    """Send a call, with the request if it changes something; gives Ray's reference to the answer."""
    if method in READING:
        return getattr(tracker, method).remote(*args)
    return tracker.carry_out.remote(request.for_caller(method), method, args)


def send(call: Call[P, R], *args: P.args, **kwargs: P.kwargs) -> Any:
    """Send a call without waiting for the answer, which Ray's returned reference stands for.

    Raises:
        CapacityError: There is no tracker.
    """
    method = call.__name__
    return _remote(TRACKER.get(), current_request(_SENT_LIFETIME_S), method, check_arguments(method, *args, **kwargs))


def ask(call: Call[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Ask the tracker from synchronous code; raises what the tracker raised.

    Example:
        `job = ask(Tracker.job, job_id)`
    """
    return ask_within(CALL_TIMEOUT_S, call, *args, **kwargs)


def ask_within(timeout_s: float, call: Call[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Ask as `ask` does, and wait no longer than `timeout_s` for the answer."""
    with repeating(current_request(timeout_s)):
        try:
            return cast(R, _answer(send(call, *args, **kwargs), timeout_s))
        except ActorDiedError:  # the cached handle is that of a tracker which was replaced
            TRACKER.forget()
            return cast(R, _answer(send(call, *args, **kwargs), timeout_s))


def ask_patiently(patience_s: float, call: Call[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Ask as `ask` does, again and again while the tracker or its database is away; a change happens once.

    Args:
        patience_s: Seconds after which what was raised last is raised.
        call: The call.
        *args: Its arguments.
        **kwargs: Its arguments by name.
    """
    request = current_request(CALL_TIMEOUT_S)
    deadline = time.monotonic() + patience_s
    while True:
        try:
            with repeating(request.renewed(CALL_TIMEOUT_S)):
                return ask(call, *args, **kwargs)
        except (RayActorError, GetTimeoutError, CapacityError) as error:
            if time.monotonic() > deadline:
                raise
            logger.warning("the tracker or its database is away (%s); trying again", type(error).__name__)
            time.sleep(_RETRY_S)


def _answer(reference: Any, timeout_s: float) -> Any:
    try:
        return ray.get(reference, timeout=timeout_s)
    except RayTaskError as error:
        raise _cause(error) from None


def _cause(error: RayTaskError) -> BaseException:
    """The tracker's own error instead of Ray's wrapping of it."""
    cause = getattr(error, "cause", None)
    return cause if isinstance(cause, SiennError) else error
