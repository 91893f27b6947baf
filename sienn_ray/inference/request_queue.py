"""Requests that wait for a place in the batch: one adapter after the other, so that none waits for another's many."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Generic, TypeVar

_Request = TypeVar("_Request")


class FairQueue(Generic[_Request]):
    """First in, first out within a group; groups take turns. For one thread."""

    def __init__(self) -> None:
        self._groups: OrderedDict[str | None, deque[_Request]] = OrderedDict()

    def __len__(self) -> int:
        return sum(map(len, self._groups.values()))

    def put(self, group: str | None, request: _Request) -> None:
        """Add to a group; a new one comes last."""
        self._groups.setdefault(group, deque()).append(request)

    def peek(self) -> _Request | None:
        """Whose turn it is."""
        for requests in self._groups.values():
            return requests[0]
        return None

    def pop(self) -> _Request:
        """Take the one whose turn it is; its group's next turn comes when all others have had theirs."""
        group, requests = next(iter(self._groups.items()))
        request = requests.popleft()
        del self._groups[group]
        if requests:
            self._groups[group] = requests
        return request

    def remove_if(self, is_over: Callable[[_Request], bool]) -> list[_Request]:
        """Take out those that needn't wait any more."""
        removed: list[_Request] = []
        for group, requests in list(self._groups.items()):
            removed += filter(is_over, requests)
            kept = deque(request for request in requests if not is_over(request))
            if kept:
                self._groups[group] = kept
            else:
                del self._groups[group]
        return removed
