"""The body of an export's Ray task."""

from __future__ import annotations

import logging
import time

from sienn_ray.errors import ExportStoppedError
from sienn_ray.jobs.client.tracker_client import ask
from sienn_ray.jobs.export_schema import ExportRecord
from sienn_ray.jobs.tracker_protocol import Tracker
from sienn_ray.settings import Settings
from sienn_ray.storage import FileEntry, Storage
from sienn_ray.storage_keys import adapter_key

logger = logging.getLogger(__name__)

_REPORT_INTERVAL_S = 0.5


def run_export(record: ExportRecord, settings: Settings) -> FileEntry:
    """Make an export, telling the tracker of the progress.

    Raises:
        SiennError: Why it couldn't be made.
    """
    from sienn_ray.compute_threads import compute_here, usable_cpus
    from sienn_ray.export.make import ExportRequest, make_export

    compute_here(usable_cpus())
    request = ExportRequest(
        export_id=record.id,
        job_id=record.job_id,
        adapter_key=adapter_key(record.job_id),
        base_model=record.base_model,
        name=record.job_name,
        options=record.options,
    )
    return make_export(request, Storage(settings.storage_url), settings, _Reporter(record).report)


class _Reporter:
    """Tells the tracker of the progress, not too often, and ends what isn't wanted any more."""

    def __init__(self, record: ExportRecord) -> None:
        self._record = record
        self._told_at = float("-inf")

    def report(self, share: float, message: str) -> None:
        now = time.monotonic()
        if now - self._told_at < _REPORT_INTERVAL_S:
            return
        self._told_at = now
        try:
            percent = min(99, int(100 * share))  # 100 is what is published
            goes_on = ask(Tracker.report_export, self._record.id, self._record.attempt, percent, message)
        except Exception:  # while the tracker is away, the work goes on
            logger.warning("the progress of export %s couldn't be told", self._record.id, exc_info=True)
            return
        if not goes_on:
            raise ExportStoppedError(f"export {self._record.id} isn't wanted any more")
