"""News of jobs: events, points of curves and changed jobs since a listener's last look."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sienn_ray.jobs.schema import JobEvent, JobRecord, MetricPoint

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, order=True)
class NewsCursor:
    """A place in the news. The tracker writes one change after the other, so whatever comes later stands behind it.

    Args:
        seq: Of the last event.
        point_us: When the last point changed, in microseconds since the epoch.
    """

    seq: int = 0
    point_us: int = 0

    @property
    def point_at(self) -> datetime:
        """The moment of the last point's change."""
        return _EPOCH + self.point_us * _MICROSECOND

    def behind(self, *, seq: int = 0, point_at: datetime | None = None) -> NewsCursor:
        """Return the place behind an event, or a point's change, if it isn't before this one anyway."""
        point_us = 0 if point_at is None else (point_at - _EPOCH) // _MICROSECOND
        return NewsCursor(max(self.seq, seq), max(self.point_us, point_us))


@dataclass(frozen=True)
class EventNews:
    """An event, with its job.

    Args:
        job_id: The job.
        owner: Whose it is.
        event: The event.
    """

    job_id: str
    owner: str
    event: JobEvent


@dataclass(frozen=True)
class PointNews:
    """A point of a curve that is new, or that knows more than before.

    Args:
        job_id: The job.
        point: The point; `created_at` is when it changed.
    """

    job_id: str
    point: MetricPoint


@dataclass(frozen=True)
class News:
    """Events, points and changed jobs behind a place.

    Args:
        events: Events of all jobs, or of the watched one, in order.
        points: Points of watched jobs, in order of their changes.
        jobs: Watched jobs that have changed.
        gone: Ids of watched jobs that aren't there.
        cursor: The place behind the events and points.
        changed_at: When the last of the changed jobs changed; None where none did.
    """

    events: tuple[EventNews, ...] = ()
    points: tuple[PointNews, ...] = ()
    jobs: tuple[JobRecord, ...] = ()
    gone: tuple[str, ...] = ()
    cursor: NewsCursor = NewsCursor()
    changed_at: datetime | None = None


@dataclass(frozen=True)
class NewsQuery:
    """A question for news.

    Args:
        after: The place of the last answer; None asks for the place where news begins now, and for no news.
        job_ids: Watched jobs.
        changed_after: `News.changed_at` of the last answer that had one; None gives all watched jobs.
        only_watched: Leave out events of other jobs.
        owner: Leave out events of other owners' jobs; None takes everybody's.
    """

    after: NewsCursor | None
    job_ids: tuple[str, ...] = ()
    changed_after: datetime | None = None
    only_watched: bool = False
    owner: str | None = None
