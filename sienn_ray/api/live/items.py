"""Items of news with their JSON, which is written once for all listeners of a replica."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime

from sienn_ray.api.deps import Backends
from sienn_ray.api.lists.job_status import status_of
from sienn_ray.api.live.log_lines import LinePlace, LogLines
from sienn_ray.api.schemas.job_history import JobEventBody, MetricPointBody
from sienn_ray.jobs.news_schema import EventNews, PointNews
from sienn_ray.jobs.schema import JobRecord


@dataclass(frozen=True)
class EventItem:
    """An event of a job.

    Args:
        job_id: The job.
        owner: Whose it is.
        seq: The event's number.
        data: Its JSON.
    """

    job_id: str
    owner: str
    seq: int
    data: str

    @classmethod
    def of(cls, news: EventNews) -> EventItem:
        """Write an event."""
        body = JobEventBody(**news.event.model_dump()).model_dump(mode="json")
        return cls(news.job_id, news.owner, news.event.seq, json.dumps({"job_id": news.job_id, **body}))


@dataclass(frozen=True)
class PointItem:
    """A point of a curve.

    Args:
        job_id: The job.
        changed_at: When it changed.
        data: Its JSON.
    """

    job_id: str
    changed_at: datetime
    data: str

    @classmethod
    def of(cls, news: PointNews) -> PointItem:
        """Write a point."""
        body = MetricPointBody(**news.point.model_dump()).model_dump(mode="json")
        return cls(news.job_id, news.point.created_at, json.dumps({"job_id": news.job_id, **body}))


@dataclass(frozen=True)
class StatusItem:
    """A job that has changed.

    Args:
        job_id: The job.
        changed_at: When it changed.
        is_at_rest: Whether nothing more happens to it by itself.
        status: Its status.
        data: Its JSON.
    """

    job_id: str
    changed_at: datetime
    is_at_rest: bool
    status: str
    data: str

    @classmethod
    def of(cls, job: JobRecord, backends: Backends) -> StatusItem:
        """Write a job as it is now."""
        data = status_of(job, backends).model_dump_json()
        return cls(job.id, job.updated_at, job.status.is_at_rest, job.status.value, data)


@dataclass(frozen=True)
class LinesItem:
    """Lines of a job's log.

    Args:
        job_id: The job.
        lines: The lines with their numbers.
        data: Their JSON.
    """

    job_id: str
    lines: LogLines
    data: str

    @classmethod
    def of(cls, job_id: str, lines: LogLines) -> LinesItem:
        """Write lines."""
        return cls(job_id, lines, lines.as_json(job_id))

    def behind(self, place: LinePlace) -> LinesItem | None:
        """Return what of it comes behind a place; None where nothing does."""
        rest = self.lines.behind(place)
        if rest is self.lines:
            return self
        return None if rest is None else LinesItem.of(self.job_id, rest)


@dataclass(frozen=True)
class CaughtUpItem:
    """The place from which on lines of a job's log are new to one who has just come.

    Args:
        job_id: The job.
        place: The place.
    """

    job_id: str
    place: LinePlace


@dataclass(frozen=True)
class LogEndItem:
    """The end of a job's log.

    Args:
        job_id: The job.
    """

    job_id: str


@dataclass(frozen=True)
class GoneItem:
    """A watched job that isn't there any more.

    Args:
        job_id: The job.
    """

    job_id: str


LogItem = LinesItem | CaughtUpItem | LogEndItem
Item = EventItem | PointItem | StatusItem | GoneItem | LogItem
