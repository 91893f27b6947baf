"""Starts the cluster's job tracker, and replaces one of other code or settings; only the start of the service does."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any, Protocol

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayTaskError

from sienn_ray.errors import MAX_FIRST_LINE_CHARS, CapacityError, ConflictError, first_line
from sienn_ray.jobs.client.tracker_handle import NAMESPACE, TRACKER_NAME, find_tracker
from sienn_ray.jobs.deployment import Deployment, Standing

logger = logging.getLogger(__name__)

# Ray gives every head node one of these.
_HEAD_NODE_RESOURCE = "node:__internal_head__"
_START_TIMEOUT_S = 60.0
# A tracker that hasn't said within this whose it is hangs; a new one's process takes seconds to start.
_MAX_SILENCE_S = 30.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 5.0


class TrackerAwayError(Exception):
    """A tracker doesn't answer, or not any more; the message says how that shows."""


class TrackerActors(Protocol):
    """Ray's registry of actors, as far as it has trackers."""

    def find(self) -> Any | None:
        """The tracker's handle, if there is one."""
        ...

    def create(self, deployment: Deployment) -> Any:
        """Handle of a new tracker, or of one that somebody else has created at this moment."""
        ...

    def kill(self, tracker: Any) -> None:
        """End a tracker for good; a dead one stays dead."""
        ...

    def standing(self, tracker: Any, deployment: Deployment, timeout_s: float) -> Standing:
        """Ask a tracker how it stands to a deployment.

        Raises:
            TrackerAwayError: It didn't answer in time, or is dead.
        """
        ...


class RayTrackerActors:
    """`TrackerActors` of the cluster that this process has joined."""

    def find(self) -> Any | None:
        """See `TrackerActors.find`."""
        try:
            return find_tracker()
        except CapacityError:
            return None

    def create(self, deployment: Deployment) -> Any:
        """See `TrackerActors.create`."""
        # Imported here: it brings the database along, which whoever finds one needn't have.
        from sienn_ray.jobs.tracker import JobTracker

        return (
            ray.remote(JobTracker)
            .options(
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
            )
            .remote(deployment.settings, deployed_at=deployment.deployed_at)
        )

    def kill(self, tracker: Any) -> None:
        """See `TrackerActors.kill`."""
        ray.kill(tracker, no_restart=True)

    def standing(self, tracker: Any, deployment: Deployment, timeout_s: float) -> Standing:
        """See `TrackerActors.standing`."""
        try:
            return Standing(ray.get(tracker.stand.remote(deployment), timeout=timeout_s))
        except (AttributeError, RayTaskError) as error:  # its code is older, and can't be asked or can't read this
            logger.info("the job tracker can't be compared: %s", first_line(error))
            return Standing.OTHER
        except GetTimeoutError:
            raise TrackerAwayError(f"it hasn't answered for {timeout_s:.0f} s") from None
        except RayActorError as error:
            # The last line of a traceback is the error that ended it.
            words = [line.strip() for line in str(error).splitlines() if line.strip()][-1:]
            raise TrackerAwayError("".join(words)[:MAX_FIRST_LINE_CHARS]) from error


def start_tracker(
    deployment: Deployment,
    actors: TrackerActors | None = None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Any:
    """Return the cluster's tracker, which has this deployment's code and settings; others are replaced until it does.

    Replacing is safe, since everything it knows is in the database. Only a replica that starts does it, and not with
    the tracker of a later deployment: so of two that start at once the later one's stays.

    Args:
        deployment: What it has to be like.
        actors: Ray's registry of actors.
        clock: Seconds, of which the time to give up is counted.
        sleep: Waits for so many seconds.

    Raises:
        ConflictError: There is one of a later deployment.
        CapacityError: It couldn't be done in time; the message says why.
    """
    actors = actors or RayTrackerActors()
    give_up_at = clock() + _START_TIMEOUT_S
    pause_s, death = _FIRST_PAUSE_S, ""
    while True:
        tracker = actors.find() or actors.create(deployment)
        try:
            timeout_s = max(0.1, min(_MAX_SILENCE_S, give_up_at - clock()))
            standing = actors.standing(tracker, deployment, timeout_s)
            trouble = "another one with other settings or code is created again and again"
        except TrackerAwayError as error:
            standing = Standing.OTHER
            # At the end, too little time is left for an answer; why the one before died says more.
            is_cut_short = timeout_s < _MAX_SILENCE_S
            trouble = death = death if death and is_cut_short else str(error)
        if standing is Standing.SAME:
            return tracker
        if standing is Standing.NEWER:
            raise ConflictError("the job tracker is that of a later deployment; this replica's deployment is over")
        if clock() >= give_up_at:
            raise CapacityError(
                f"the job tracker couldn't be started with this deployment's settings within {_START_TIMEOUT_S:g} s: "
                f"{trouble}"
            )
        logger.info("replacing the job tracker, which isn't that of this deployment, or is away")
        actors.kill(tracker)
        sleep(pause_s)
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
