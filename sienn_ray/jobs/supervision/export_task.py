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
    from sienn_ray.training.signs_of_life import signs_of_life

    compute_here(usable_cpus())
    job = ask(Tracker.job, record.job_id)
    request = ExportRequest(
        export_id=record.id,
        job_id=record.job_id,
        adapter_key=adapter_key(record.job_id),
        base_model=record.base_model,
        name=record.job_name,
        options=record.options,
        base_model_revision=job.config.base_model_revision,
    )
    storage = Storage(settings.storage_url, settings.outage_patience_s)
    reporter = ExportReporter(record)
    with signs_of_life(reporter.repeat):  # a large base model may take longer to come than an export may be silent
        return make_export(request, storage, settings, reporter.report)


class ExportReporter:
    """Tells the tracker of an export's progress, not too often, and ends what isn't wanted any more."""

    def __init__(self, record: ExportRecord) -> None:
        self._record = record
        self._told_at = float("-inf")
        self._latest = (0, "")

    def report(self, share: float, message: str) -> None:
        """Tell how far it is.

        Args:
            share: Of the work, 0 to 1.
            message: What is being done.

        Raises:
            ExportStoppedError: It isn't wanted any more.
        """
        self._latest = (min(99, int(100 * share)), message)  # 100 is what is published
        now = time.monotonic()
        if now - self._told_at < _REPORT_INTERVAL_S:
            return
        self._told_at = now
        if not self._tell():
            raise ExportStoppedError(f"export {self._record.id} isn't wanted any more")

    def repeat(self) -> None:
        """Tell the latest progress again, as a sign of life from another thread; the next report ends the export."""
        if self._latest[1]:
            self._tell()

    def _tell(self) -> bool:
        percent, message = self._latest
        try:
            return ask(Tracker.report_export, self._record.id, self._record.attempt, percent, message)
        except Exception:  # while the tracker is away, the work goes on
            logger.warning("the progress of export %s couldn't be told", self._record.id, exc_info=True)
            return True
