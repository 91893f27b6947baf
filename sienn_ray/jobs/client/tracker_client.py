"""The clients of the job tracker: one for asynchronous code (the ingress), functions for programs and threads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

import ray
from ray.exceptions import RayError, RayTaskError

from sienn_ray.errors import CapacityError, SiennError
from sienn_ray.jobs.tracker_protocol import Tracker, TrackerCalls

NAMESPACE = "sienn"
TRACKER_NAME = "job_tracker"
_CALL_TIMEOUT_S = 30.0
_CONNECT_THREADS = 8

P = ParamSpec("P")
R = TypeVar("R")
# A method of `Tracker`, named as `Tracker.job` is: its arguments and its answer are checked by that.
Call = Callable[Concatenate[Tracker, P], Coroutine[Any, Any, R]]


def find_tracker() -> Any:
    """Handle of the cluster's tracker.

    Raises:
        ValueError: There is none.
    """
    return ray.get_actor(TRACKER_NAME, namespace=NAMESPACE)


def tracker_client(connect: Callable[[], Any] = find_tracker, timeout_s: float = _CALL_TIMEOUT_S) -> Tracker:
    """A client for asynchronous code.

    Every method raises what the tracker raised, and `CapacityError` while the tracker is away or too slow.

    Args:
        connect: Gives the tracker's handle.
        timeout_s: Longest wait for an answer.
    """
    return cast(Tracker, _ActorCalls(connect, timeout_s))


class _ActorCalls(TrackerCalls):
    def __init__(self, connect: Callable[[], Any], timeout_s: float) -> None:
        self._connect = connect
        self._timeout_s = timeout_s
        # Threads of their own: while Ray's GCS is away they hang, and others must not wait for them.
        self._threads = ThreadPoolExecutor(_CONNECT_THREADS, thread_name_prefix="tracker-lookup")

    async def send(self, method: str, *args: Any) -> Any:
        try:
            async with asyncio.timeout(self._timeout_s):
                # Got by name each time: a redeploy may have replaced it, and one whose database was out of reach when
                # it started is dead for good.
                tracker = await asyncio.get_running_loop().run_in_executor(self._threads, self._connect)
                return await getattr(tracker, method).remote(*args)
        except TimeoutError:
            raise CapacityError(
                f"the job tracker hasn't answered within {self._timeout_s:g} s; try again in a moment"
            ) from None
        except RayTaskError as error:
            raise _cause(error) from None
        except RayError as error:
            raise CapacityError("the job tracker is restarting; try again in a moment") from error


def send(call: Call[P, R], *args: P.args, **kwargs: P.kwargs) -> Any:
    """Send a call without waiting for the answer, which Ray's returned reference stands for.

    Raises:
        ValueError: There is no tracker.
    """
    return getattr(find_tracker(), call.__name__).remote(*args, **kwargs)


def ask(call: Call[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Ask the tracker from synchronous code; raises what the tracker raised.

    Example:
        `job = ask(Tracker.job, job_id)`
    """
    return ask_within(_CALL_TIMEOUT_S, call, *args, **kwargs)


def ask_within(timeout_s: float, call: Call[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Ask as `ask` does, and wait no longer than `timeout_s` for the answer."""
    try:
        return cast(R, ray.get(send(call, *args, **kwargs), timeout=timeout_s))
    except RayTaskError as error:
        raise _cause(error) from None


def _cause(error: RayTaskError) -> BaseException:
    """The tracker's own error instead of Ray's wrapping of it."""
    cause = getattr(error, "cause", None)
    return cause if isinstance(cause, SiennError) else error
