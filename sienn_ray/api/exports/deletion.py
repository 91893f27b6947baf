"""Delete exports: one, or all of a job."""

from __future__ import annotations

import asyncio

from sienn_ray.api.deps import Backends
from sienn_ray.export.options import job_key
from sienn_ray.jobs.export_schema import ExportRecord, ExportStatus


async def delete_with_file(export: ExportRecord, backends: Backends) -> None:
    """Delete an export's record and its files. What a run is writing is deleted by the tracker, once that has ended.

    Raises:
        NotFoundError: It is gone already.
    """
    deleted = await backends.tracker.delete_export(export.id)
    if deleted.status is not ExportStatus.RUNNING:
        await asyncio.to_thread(backends.storage.delete, export.key)


async def delete_all_of(job_id: str, backends: Backends) -> None:
    """Delete a job's exports with their files, and the folder that had them."""
    exports = await backends.tracker.exports(job_id)
    for export in exports:
        await delete_with_file(export, backends)
    if all(export.status is not ExportStatus.RUNNING for export in exports):
        await asyncio.to_thread(backends.storage.delete, job_key(job_id))
