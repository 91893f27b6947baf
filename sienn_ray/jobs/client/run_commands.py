"""Commands to a run, read from the answers to its reports, for which it doesn't wait."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import ray
from ray.exceptions import RayActorError

from sienn_ray.jobs.client.tracker_handle import TRACKER
from sienn_ray.training.reporting import RunCommand

logger = logging.getLogger(__name__)

# Of a tracker that is away for long; more would only say the same later.
_MAX_ANSWERS = 8


def _arrived(answers: list[Any]) -> list[Any]:
    return ray.wait(answers, num_returns=len(answers), timeout=0)[0]  # type: ignore[no-any-return]


def _value(answer: Any) -> Any:
    try:
        return ray.get(answer)
    except RayActorError:
        TRACKER.forget()
        raise


class NewestCommand:
    """The newest command among the answers that have arrived. It pickles, without the answers that are under way.

    Args:
        arrived: Which of these answers can be had at once, in any order.
        read: Gives an answer's value; may raise what the other side raised.
    """

    def __init__(
        self, arrived: Callable[[list[Any]], list[Any]] = _arrived, read: Callable[[Any], Any] = _value
    ) -> None:
        self._arrived = arrived
        self._read = read
        self._answers: list[Any] = []
        self._command = RunCommand.GO_ON

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_answers": []}

    def expect(self, answer: Any) -> None:
        """Take a report's answer to come. Of too many the last ones go, since the first ones will be there sooner."""
        del self._answers[_MAX_ANSWERS - 1 :]
        self._answers.append(answer)

    def now(self) -> RunCommand:
        """The command as far as it is known; never waits, never raises."""
        try:
            self._take_newest()
        except Exception:  # a run must not end because of what it is told
            logger.warning("what is wanted of the run can't be looked up", exc_info=True)
        return self._command

    def _take_newest(self) -> None:
        arrived = self._arrived(list(self._answers)) if self._answers else []
        places = [place for place, answer in enumerate(self._answers) if answer in arrived]
        if not places:
            return
        newest_first = [self._answers[place] for place in reversed(places)]
        # What was sent before the newest that has arrived would say what was wanted earlier.
        del self._answers[: places[-1] + 1]
        for answer in newest_first:
            try:
                self._command = RunCommand(self._read(answer))
            except Exception as error:  # a report that got lost has no answer
                logger.info("a report has no answer: %s", type(error).__name__)
            else:
                return
