"""Starts the cluster's job tracker, and replaces one of other code or settings."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import Any

import ray
from ray.exceptions import RayTaskError

import sienn_ray
from sienn_ray.jobs.client.tracker_client import NAMESPACE, TRACKER_NAME, find_tracker
from sienn_ray.settings import Settings

logger = logging.getLogger(__name__)

# Ray gives every head node one of these.
_HEAD_NODE_RESOURCE = "node:__internal_head__"


def start_tracker(settings: Settings) -> Any:
    """Return the cluster's tracker, working; one with other code or other settings than these is replaced.

    Replacing is safe, since everything it knows is in the database.
    """
    tracker = get_or_create_tracker(settings)
    if not _is_like(tracker, settings):
        logger.info("replacing the job tracker, since code or settings have changed")
        ray.kill(tracker, no_restart=True)
        tracker = get_or_create_tracker(settings)
        ray.get(tracker.is_like.remote(sienn_ray.__version__, settings))
    return tracker


def _is_like(tracker: Any, settings: Settings) -> bool:
    try:
        return bool(ray.get(tracker.is_like.remote(sienn_ray.__version__, settings)))
    except RayTaskError as error:  # its code knows fewer settings and can't read these
        logger.info("the job tracker can't read the settings: %s", error.cause)
        return False


def get_or_create_tracker(settings: Settings) -> Any:
    """Handle of the cluster's tracker as it is, or of a new one with these settings."""
    with suppress(ValueError):  # there is none; the class, and its database, is imported only to start one
        return find_tracker()
    from sienn_ray.jobs.tracker import JobTracker

    actor_class = ray.remote(JobTracker)
    return actor_class.options(
        name=TRACKER_NAME,
        namespace=NAMESPACE,
        lifetime="detached",
        get_if_exists=True,
        max_restarts=-1,
        max_task_retries=-1,
        max_concurrency=16,
        num_cpus=0,
        # A SQLite file is on one node's disk, so the tracker always runs on the same node.
        resources={_HEAD_NODE_RESOURCE: 0.001},
    ).remote(settings)
