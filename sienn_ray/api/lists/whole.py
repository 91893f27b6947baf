"""Lists in pages or whole: a whole one is read page by page, so that no answer of the tracker is without a bound."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from sienn_ray.api.lists.paging import MAX_LIMIT
from sienn_ray.jobs.schema import Page

T = TypeVar("T")


async def listed(
    read: Callable[[int, str | None], Awaitable[Page[T]]], limit: int | None, cursor: str | None
) -> Page[T]:
    """Return one page, or all that follows if there is no limit.

    Args:
        read: Reads a page of so many, which begins at a cursor.
        limit: Records at the most.
        cursor: `next_cursor` of the page before.
    """
    if limit is not None:
        return await read(limit, cursor)
    page = await read(MAX_LIMIT, cursor)
    records = list(page.records)
    while page.next_cursor is not None:
        page = await read(MAX_LIMIT, page.next_cursor)
        records += page.records
    # Some may have gone while the pages were read.
    return Page(records, page.count if cursor else len(records), None)
