"""Pages of the list of datasets."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import dropwhile, islice

from sienn_ray.errors import InvalidInputError
from sienn_ray.jobs.schema import DatasetRecord


@dataclass(frozen=True)
class DatasetPage:
    """Some datasets; `next_cursor` is None after the last of them."""

    records: list[DatasetRecord]
    next_cursor: str | None


def page_of(records: Sequence[DatasetRecord], limit: int | None, cursor: str | None) -> DatasetPage:
    """One page.

    Args:
        records: All datasets, the newest first.
        limit: Datasets at the most; None gives all that follow.
        cursor: `next_cursor` of the page before.

    Raises:
        InvalidInputError: The cursor isn't one.
    """
    following = list(islice(_behind(records, cursor), None if limit is None else limit + 1))
    page = following[:limit]
    return DatasetPage(page, _cursor(page[-1]) if len(following) > len(page) else None)


def _behind(records: Sequence[DatasetRecord], cursor: str | None) -> Sequence[DatasetRecord]:
    if cursor is None:
        return records
    created_at, dataset_id = _parsed(cursor)
    for index, record in enumerate(records):
        if record.id == dataset_id:
            return records[index + 1 :]
    # It was deleted meanwhile.
    return list(dropwhile(lambda record: record.created_at >= created_at, records))


def _cursor(record: DatasetRecord) -> str:
    return base64.urlsafe_b64encode(json.dumps([record.created_at.isoformat(), record.id]).encode()).decode()


def _parsed(cursor: str) -> tuple[datetime, str]:
    try:
        moment, dataset_id = json.loads(base64.b64decode(cursor.encode(), altchars=b"-_", validate=True))
        created_at = datetime.fromisoformat(moment)
    except (binascii.Error, ValueError, TypeError, RecursionError) as error:
        raise InvalidInputError("cursor is not the next_cursor of a page; leave it out for the first page") from error
    if created_at.tzinfo is None:
        raise InvalidInputError("cursor is not the next_cursor of a page; leave it out for the first page")
    return created_at, str(dataset_id)
