"""Usage: what was used, by day, API key and model, and the batches in which it travels to the tracker."""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass, fields
from datetime import UTC, date, datetime
from enum import StrEnum
from typing import ClassVar

from sienn_ray.access.principals import Principal

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class UsageKey:
    """Key that usage is added up by; an empty text is none.

    Args:
        day: Day in UTC.
        owner: Whose requests or jobs they were.
        key_id: The API key that they came with.
        base_model: Hub id of the base model that was asked or trained.
        adapter_id: Job id of the adapter that was asked or trained.
    """

    day: date
    owner: str
    key_id: str = ""
    base_model: str = ""
    adapter_id: str = ""


@dataclass(frozen=True, kw_only=True)
class UsageCounts:
    """Amounts that were used.

    Args:
        num_requests: Requests to the API.
        num_answers: Answers of models; a request may be for several.
        prompt_tokens: Tokens of prompts, once for each answer.
        completion_tokens: Tokens that were generated.
        engine_s: Seconds that answers were in an engine's batch, which they shared with others.
        training_cpu_s: Seconds of training times the CPUs that the run had reserved.
        training_gpu_s: Seconds of training times the GPUs that it had.
        uploaded_bytes: Bytes of request bodies.
        downloaded_bytes: Bytes of response bodies.
    """

    num_requests: int = 0
    num_answers: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    engine_s: float = 0.0
    training_cpu_s: float = 0.0
    training_gpu_s: float = 0.0
    uploaded_bytes: int = 0
    downloaded_bytes: int = 0

    NAMES: ClassVar[tuple[str, ...]]

    def __add__(self, other: UsageCounts) -> UsageCounts:
        return UsageCounts(**{name: getattr(self, name) + getattr(other, name) for name in self.NAMES})


UsageCounts.NAMES = tuple(field.name for field in fields(UsageCounts))


@dataclass(frozen=True)
class UsageBatch:
    """Everything that one process counted since its last batch.

    Args:
        source: Id of the process, new at each start.
        number: 1, 2, 3, ...; a batch that is sent again has the same number and is added once.
        rows: What was used.
    """

    source: str
    number: int
    rows: tuple[tuple[UsageKey, UsageCounts], ...]


class UsageGroup(StrEnum):
    """Groups of a report on usage."""

    DAY = "day"
    OWNER = "owner"
    KEY = "key"
    MODEL = "model"
    ADAPTER = "adapter"


@dataclass(frozen=True)
class UsageQuery:
    """A report on usage; None is any.

    Args:
        first_day: The first day of it.
        last_day: The last day of it.
        owner: Whose usage.
        key_id: The API key.
        model: A base model's hub id or an adapter's job id.
        group_by: What its rows are of.
        limit: Rows at the most.
        offset: Rows to pass over.
    """

    first_day: date | None = None
    last_day: date | None = None
    owner: str | None = None
    key_id: str | None = None
    model: str | None = None
    group_by: tuple[UsageGroup, ...] = (UsageGroup.DAY,)
    limit: int = 100
    offset: int = 0


@dataclass(frozen=True)
class UsageRow:
    """Usage of one group; what isn't grouped by is None."""

    counts: UsageCounts
    day: date | None = None
    owner: str | None = None
    key_id: str | None = None
    base_model: str | None = None
    adapter_id: str | None = None


@dataclass(frozen=True)
class UsageReport:
    """Some groups of a report.

    Args:
        rows: This page; the newest days first, then by name.
        count: Groups on all pages.
        total: Usage of all groups together.
    """

    rows: tuple[UsageRow, ...]
    count: int
    total: UsageCounts


class UsageRecorder:
    """Counts usage for one process, in memory until a batch is taken; safe to use from several threads.

    A batch that wasn't confirmed is taken again under its own number, as metrics are (`metrics.Recorder`).

    Args:
        clock: The time.
        max_rows: Rows kept between two batches; usage of further ones is dropped and logged, so that memory is bounded.
    """

    def __init__(self, clock: Callable[[], datetime] = lambda: datetime.now(UTC), *, max_rows: int = 20_000) -> None:
        self._source = uuid.uuid4().hex
        self._clock = clock
        self._max_rows = max_rows
        self._lock = threading.Lock()
        self._rows: dict[UsageKey, UsageCounts] = {}
        self._unconfirmed: UsageBatch | None = None
        self._number = 0

    def add(self, principal: Principal, counts: UsageCounts, base_model: str = "", adapter_id: str = "") -> None:
        """Count what a caller has used; callers who aren't known are nobody's."""
        if not principal.owner:
            return
        key = UsageKey(self._clock().date(), principal.owner, principal.key_id or "", base_model, adapter_id)
        with self._lock:
            known = self._rows.get(key)
            if known is not None:
                self._rows[key] = known + counts
            elif len(self._rows) < self._max_rows:
                self._rows[key] = counts
            else:
                logger.error("%d rows of usage wait to be sent; that of %s is dropped", len(self._rows), key)

    def take(self) -> UsageBatch | None:
        """Return the batch to be sent next, or None if there is nothing."""
        with self._lock:
            if self._unconfirmed is None and self._rows:
                self._number += 1
                self._unconfirmed = UsageBatch(self._source, self._number, tuple(self._rows.items()))
                self._rows = {}
            return self._unconfirmed

    def confirm(self, batch: UsageBatch) -> None:
        """Note that the tracker has a batch, so it is not sent again."""
        with self._lock:
            if self._unconfirmed is not None and self._unconfirmed.number == batch.number:
                self._unconfirmed = None
