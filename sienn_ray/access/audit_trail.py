"""Trails of requests, for the audit log: what is found out on the way, and goes along with the request's task."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from sienn_ray.access.audit import AuditOrigin


@dataclass
class Trail:
    """A request on its way.

    Args:
        origin: Says who asks, as far as that is known by then.
        has_asked: Whether the tracker was asked for a change, which it writes down together with the change.
        hidden: Kind and id of what somebody else owns, which the caller is told isn't there.
    """

    origin: Callable[[], AuditOrigin]
    has_asked: bool = False
    hidden: tuple[str, str] | None = None


_followed: ContextVar[Trail | None] = ContextVar("trail", default=None)


@contextmanager
def followed(trail: Trail) -> Iterator[None]:
    """Have what is found out in the block be written on a trail."""
    token = _followed.set(trail)
    try:
        yield
    finally:
        _followed.reset(token)


def origin_of_change() -> AuditOrigin | None:
    """Return who asks for a change, and note that it is asked for; None outside of requests."""
    trail = _followed.get()
    if trail is None:
        return None
    trail.has_asked = True
    return trail.origin()


def note_hidden(kind: str, text: str) -> None:
    """Note that a request has named what somebody else owns."""
    if (trail := _followed.get()) is not None:
        trail.hidden = (kind, text)
