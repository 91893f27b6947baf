"""Places for requests that take long, so that short ones always have room in a replica."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from enum import StrEnum
from typing import Any, cast

from fastapi import Depends
from fastapi.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from sienn_ray.api.access.callers import principal_of
from sienn_ray.errors import CapacityError, TooManyRequestsError
from sienn_ray.settings import Settings

_SCOPE_KEY = "sienn.places"
_RETRY_AFTER_S = 10
# Of the places of kinds that stay open for as long as their client likes, for all that one owner has.
OWNER_SHARE = 0.5


class Kind(StrEnum):
    """Kinds of requests that take long; the value is what a user reads."""

    UPLOAD = "uploads"
    DOWNLOAD = "downloads"
    ANSWER = "requests to models"
    FOLLOWER = "followed logs"
    WAIT = "requests that wait for an export or for statistics"
    LISTENER = "listeners to live updates"


_SHARED = frozenset({Kind.FOLLOWER, Kind.LISTENER})


class Places:
    """Counts the long requests of one process by kind, and refuses those beyond a kind's limit.

    Args:
        settings: See `Settings`.
    """

    def __init__(self, settings: Settings) -> None:
        self._limits: dict[Kind, tuple[int, str]] = {
            Kind.UPLOAD: (
                settings.max_concurrent_uploads + settings.max_waiting_uploads,
                "SIENN_MAX_CONCURRENT_UPLOADS and SIENN_MAX_WAITING_UPLOADS",
            ),
            Kind.DOWNLOAD: (settings.max_downloads, "SIENN_MAX_DOWNLOADS"),
            Kind.ANSWER: (settings.max_open_answers, "SIENN_MAX_OPEN_ANSWERS"),
            Kind.FOLLOWER: (settings.max_log_followers, "SIENN_MAX_LOG_FOLLOWERS"),
            Kind.LISTENER: (settings.max_listeners, "SIENN_MAX_LISTENERS"),
            Kind.WAIT: (settings.max_waiting_requests, "SIENN_MAX_WAITING_REQUESTS"),
        }
        self._num_taken: Counter[Kind] = Counter()
        self._num_taken_by: Counter[tuple[Kind, str]] = Counter()

    def take(self, kind: Kind, scope: Scope) -> None:
        """Take a place, which `PlacesGivenBack` gives back at the request's end.

        Raises:
            TooManyRequestsError: The caller's owner has taken its share of this kind.
            CapacityError: All places of this kind are taken.
        """
        limit, setting = self._limits[kind]
        principal = principal_of(scope)
        share = max(1, int(limit * OWNER_SHARE))
        if kind in _SHARED and not principal.is_admin and self._num_taken_by[kind, principal.owner] >= share:
            raise TooManyRequestsError(
                f"you have {share} {kind} open, as many of the {limit} that this server takes ({setting}) as one owner "
                "may have; close some of them first",
                retry_after_s=_RETRY_AFTER_S,
            )
        if self._num_taken[kind] >= limit:
            raise CapacityError(
                f"this server has {limit} {kind} open, as many as it takes ({setting}); try again in a moment",
                retry_after_s=_RETRY_AFTER_S,
            )
        self._num_taken[kind] += 1
        self._num_taken_by[kind, principal.owner] += 1
        scope[_SCOPE_KEY].append(lambda: self._give_back(kind, principal.owner))

    def num_taken(self, kind: Kind) -> int:
        """Return the number of open requests of a kind."""
        return self._num_taken[kind]

    def _give_back(self, kind: Kind, owner: str) -> None:
        self._num_taken[kind] -= 1
        self._num_taken_by[kind, owner] -= 1
        if not self._num_taken_by[kind, owner]:
            del self._num_taken_by[kind, owner]


class PlacesGivenBack:
    """ASGI middleware that gives back the places of a request once its response has ended, however it ended.

    Args:
        app: The application within.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        releases: list[Callable[[], None]] = []
        scope[_SCOPE_KEY] = releases
        try:
            await self._app(scope, receive, send)
        finally:
            for release in releases:
                release()


def take_place(connection: HTTPConnection, kind: Kind) -> None:
    """Take a place for a request until its response has ended.

    Raises:
        TooManyRequestsError: The caller's owner has taken its share of this kind.
        CapacityError: All places of this kind are taken.
    """
    cast(Places, connection.app.state.places).take(kind, connection.scope)


def takes_place(kind: Kind) -> Any:
    """Return the dependency of a route all of whose requests are of one kind."""

    async def take(connection: HTTPConnection) -> None:
        take_place(connection, kind)

    return Depends(take)
