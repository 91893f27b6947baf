"""Retries with back-off while the model hub or an object store is out of reach."""

from __future__ import annotations

import errno
import logging
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception, wait_exponential, wait_random

from sienn_ray.errors import InvalidBaseModelError, OutOfReachError

logger = logging.getLogger(__name__)

_FIRST_WAIT_S, _LONGEST_WAIT_S = 1.0, 30.0
_TOO_MANY, _TIMED_OUT, _FIRST_SERVER_ERROR = 429, 408, 500
_ERRNOS = frozenset(
    {
        errno.ECONNREFUSED,
        errno.ECONNRESET,
        errno.ECONNABORTED,
        errno.EPIPE,
        errno.ETIMEDOUT,
        errno.EHOSTUNREACH,
        errno.ENETUNREACH,
        errno.ENETDOWN,
        # What s3fs makes of SlowDown, ServiceUnavailable and InternalError.
        errno.EBUSY,
        getattr(errno, "EREMOTEIO", errno.EIO),
    }
)
# By name, since only those that are used are imported: of the hub's client, of S3's and of Google's.
_CLASSES = frozenset(
    {
        "httpx2.TransportError",
        "botocore.HTTPClientError",
        "botocore.ConnectionError",
        "aiohttp.ClientConnectionError",
        "aiohttp.ClientPayloadError",
        "google.TransportError",
        "requests.ConnectionError",
        "requests.Timeout",
        "fsspec.FSTimeoutError",
    }
)

_Result = TypeVar("_Result")


def is_out_of_reach(error: BaseException) -> bool:
    """Return whether hub or store couldn't be reached, or were overloaded: refusals and missing objects are final."""
    return any(_is_transient(cause) for cause in _chain(error))


def while_out_of_reach(
    action: Callable[[], _Result], *, longest_s: float, what: str, sleep: Callable[[float], None] = time.sleep
) -> _Result:
    """Do something, again with back-off while hub or store are out of reach.

    Args:
        action: What to do; it may be done several times.
        longest_s: Longest time to go on trying.
        what: What is out of reach, for messages.
        sleep: Waits.

    Raises:
        OutOfReachError: It lasts.
    """

    def is_over(state: RetryCallState) -> bool:
        return max(state.idle_for, state.seconds_since_start or 0.0) + state.upcoming_sleep > longest_s

    def tell(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        logger.warning(
            "%s can't be reached (%s); trying again in %.0f s", what, type(error).__name__, state.upcoming_sleep
        )

    retrying = Retrying(
        retry=retry_if_exception(is_out_of_reach),
        wait=wait_exponential(_FIRST_WAIT_S, max=_LONGEST_WAIT_S) + wait_random(0, _FIRST_WAIT_S),
        stop=is_over,
        before_sleep=tell,
        sleep=sleep,
        reraise=True,
    )
    try:
        return retrying(action)
    except OutOfReachError:
        raise
    except Exception as error:
        if not is_out_of_reach(error):
            raise
        raise OutOfReachError.of(what, error) from error


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    cause: BaseException | None = error
    # A refusal of a base model is final, also where it is because the hub mustn't be asked.
    while cause is not None and id(cause) not in seen and not isinstance(cause, InvalidBaseModelError):
        yield cause
        seen.add(id(cause))
        cause = cause.__cause__


def _is_transient(error: BaseException) -> bool:
    module = type(error).__module__
    # Ray's own are about processes of the cluster; some of them are timeouts too.
    if module.startswith("ray."):
        return False
    # Of the hub's client in offline mode, though it calls that an error of the connection.
    if type(error).__name__ == "OfflineModeIsEnabled":
        return False
    if isinstance(error, OutOfReachError | ConnectionError | TimeoutError | socket.gaierror):
        return True
    if isinstance(error, OSError) and error.errno in _ERRNOS:
        return True
    if any(f"{kind.__module__.partition('.')[0]}.{kind.__name__}" in _CLASSES for kind in type(error).__mro__):
        return True
    status = _status_of(error)
    return status is not None and (status in {_TOO_MANY, _TIMED_OUT} or status >= _FIRST_SERVER_ERROR)


def _status_of(error: BaseException) -> int | None:
    """The HTTP status behind an error of the hub's client, of botocore or of gcsfs."""
    response: Any = getattr(error, "response", None)
    if isinstance(response, dict):
        response = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    status = getattr(response, "status_code", response)
    return status if isinstance(status, int) else None
