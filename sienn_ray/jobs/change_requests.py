"""Request ids and deadlines of calls that change something, so that a repeat is told from a second wish."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace

from sienn_ray.access.audit import AuditOrigin
from sienn_ray.access.audit_trail import origin_of_change
from sienn_ray.jobs.tracker_protocol import AUDITED

# Longest wait of a caller for an answer, and so the time in which a change may begin.
CALL_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class ChangeRequest:
    """One wish for a change, however often it is sent.

    Args:
        id: The same for each repeat; the answer is remembered under it.
        deadline: The change doesn't begin after this moment, in seconds since the epoch. The clocks of a cluster's
            nodes have to agree on the second.
        origin: Who asks, for the audit log; None is the service itself, or a program on its cluster.
    """

    id: str
    deadline: float
    origin: AuditOrigin | None = None

    @classmethod
    def within(cls, timeout_s: float) -> ChangeRequest:
        """Make a new request that may be carried out for so long."""
        return cls(uuid.uuid4().hex, time.time() + timeout_s)

    def renewed(self, timeout_s: float) -> ChangeRequest:
        """Return the same request, which may be carried out for so long from now."""
        return replace(self, deadline=time.time() + timeout_s)

    def for_caller(self, method: str) -> ChangeRequest:
        """Return the same request with who asks for it: the caller of the request that is being answered.

        Args:
            method: The call; one that isn't audited is asked for by nobody.
        """
        return replace(self, origin=origin_of_change()) if method in AUDITED else self


_repeated: ContextVar[ChangeRequest | None] = ContextVar("repeated", default=None)


@contextmanager
def repeating(request: ChangeRequest) -> Iterator[None]:
    """Have the change that is asked for in the block be this request; for callers who repeat one.

    Example:
        ```python
        request = ChangeRequest.within(CALL_TIMEOUT_S)
        with repeating(request):
            await tracker.cancel_job(job_id)
        ```
    """
    token = _repeated.set(request)
    try:
        yield
    finally:
        _repeated.reset(token)


def current_request(timeout_s: float) -> ChangeRequest:
    """Return the request of the surrounding `repeating` block, or a new one."""
    return _repeated.get() or ChangeRequest.within(timeout_s)
