"""Lists of jobs, in pages or whole."""

from __future__ import annotations

from dataclasses import replace

from sienn_ray.api.lists.paging import MAX_LIMIT
from sienn_ray.jobs.ids import is_id
from sienn_ray.jobs.schema import JobPage, JobQuery
from sienn_ray.jobs.tracker_protocol import Tracker


async def job_page(query: JobQuery, tracker: Tracker) -> JobPage:
    """One page, or everything if there is no limit."""
    if query.dataset_id is not None and not is_id(query.dataset_id):
        return JobPage(jobs=[], count=0, next_cursor=None)
    if query.limit is not None:
        return await tracker.jobs(query)
    page = await tracker.jobs(replace(query, limit=MAX_LIMIT))
    jobs, count = list(page.jobs), page.count
    while page.next_cursor is not None:
        page = await tracker.jobs(replace(query, limit=MAX_LIMIT, cursor=page.next_cursor))
        jobs += page.jobs
    # Some may have gone while the pages were read.
    return JobPage(jobs=jobs, count=count if query.cursor else len(jobs), next_cursor=None)
