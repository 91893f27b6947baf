"""A listener's place in the news and the log of a job, as the ids of updates have it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from sienn_ray.api.live.log_lines import LinePlace
from sienn_ray.errors import InvalidInputError
from sienn_ray.jobs.news_schema import NewsCursor

_FORM = re.compile(r"([0-9]{1,18})\.([0-9]{1,17})(?:\.([0-9]{1,9})\.([0-9]{1,12}))?")


@dataclass(frozen=True)
class Place:
    """A place behind what a listener was told.

    Args:
        news: Behind events and points.
        lines: Behind lines of the log; None for one that has heard of none, and gets those that come.
    """

    news: NewsCursor
    lines: LinePlace | None = None

    @classmethod
    def parsed(cls, text: str) -> Place:
        """Return the place that a listener was told, as `Last-Event-ID` has it.

        Raises:
            InvalidInputError: Nobody was told this.
        """
        match = _FORM.fullmatch(text)
        if match is None:
            raise InvalidInputError("Last-Event-ID isn't the id of an event; leave it out to begin with what comes now")
        news = NewsCursor(int(match[1]), int(match[2]))
        return cls(news, None if match[3] is None else LinePlace(int(match[3]), int(match[4])))

    @property
    def text(self) -> str:
        """The place as a listener is told it."""
        lines = "" if self.lines is None else f".{self.lines.attempt}.{self.lines.line}"
        return f"{self.news.seq}.{self.news.point_us}{lines}"
