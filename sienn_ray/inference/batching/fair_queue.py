"""A fair queue of requests that wait for a place in the batch: round-robin over adapters."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Generic, TypeVar

_Request = TypeVar("_Request")


class FairQueue(Generic[_Request]):
    """First in, first out within a group, round-robin over groups: none waits for another's many. For one thread."""

    def __init__(self) -> None:
        self._groups: OrderedDict[str | None, deque[_Request]] = OrderedDict()

    def __len__(self) -> int:
        return sum(map(len, self._groups.values()))

    def put(self, group: str | None, request: _Request) -> None:
        """Append to a group; a new group comes last."""
        self._groups.setdefault(group, deque()).append(request)

    def peek(self) -> _Request | None:
        """Return the next request, or None."""
        for requests in self._groups.values():
            return requests[0]
        return None

    def pop(self) -> _Request:
        """Remove the next request; its group comes next when all others have had their turn."""
        group, requests = next(iter(self._groups.items()))
        request = requests.popleft()
        del self._groups[group]
        if requests:
            self._groups[group] = requests
        return request

    def remove_if(self, is_over: Callable[[_Request], bool]) -> list[_Request]:
        """Remove and return all requests for which `is_over` is true."""
        removed: list[_Request] = []
        for group, requests in list(self._groups.items()):
            removed += filter(is_over, requests)
            kept = deque(request for request in requests if not is_over(request))
            if kept:
                self._groups[group] = kept
            else:
                del self._groups[group]
        return removed
