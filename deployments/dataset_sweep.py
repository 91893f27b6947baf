"""Orphan sweep: deletes, once at the start, what uploads left in storage when a server was killed."""

from __future__ import annotations

import logging
import threading
from datetime import timedelta

from sienn_ray.datasets.leftovers import sweep
from sienn_ray.jobs.client.tracker_client import ask
from sienn_ray.jobs.schema import utc_now
from sienn_ray.jobs.tracker_protocol import Tracker
from sienn_ray.settings import Settings
from sienn_ray.storage import Storage

logger = logging.getLogger(__name__)

_AGE = timedelta(hours=24)


def start_sweep(settings: Settings) -> None:
    """Begin in the background; nobody waits for it."""
    threading.Thread(target=_sweep, args=(settings,), name="dataset-sweep", daemon=True).start()


def _sweep(settings: Settings) -> None:
    try:
        known_ids = {record.id for record in ask(Tracker.datasets).records}
        deleted = sweep(Storage(settings.storage_url), known_ids, utc_now() - _AGE)
    except Exception:  # the service works without it
        logger.warning("leftovers of uploads couldn't be cleared away", exc_info=True)
    else:
        logger.info("cleared away what %d uploads left behind", len(deleted))
