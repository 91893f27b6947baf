"""A thread that sends a process's metrics to the tracker."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from sienn_ray.jobs.client.tracker_client import ask_within
from sienn_ray.jobs.tracker_protocol import Tracker
from sienn_ray.metrics import MetricBatch, Recorder

logger = logging.getLogger(__name__)

_SEND_TIMEOUT_S = 5.0


class MetricsSender:
    """Sends a recorder's batches every few seconds, for processes without an event loop of their own.

    Args:
        recorder: What has been counted.
        send: Sends one batch; raises when that fails.
        interval_s: Seconds between two batches.
        before: Called before each batch is taken, to set gauges.
    """

    def __init__(
        self,
        recorder: Recorder,
        send: Callable[[MetricBatch], None],
        *,
        interval_s: float,
        before: Callable[[], None] = lambda: None,
    ) -> None:
        self._recorder = recorder
        self._send = send
        self._interval_s = interval_s
        self._before = before
        self._is_failing = False
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="metrics", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Send what is left, and end; may be called again."""
        if not self._stopped.is_set():
            self._stopped.set()
            self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(self._interval_s):
            self._flush()
        self._flush()

    def _flush(self) -> None:
        try:
            self._before()
            batch = self._recorder.take()
            if batch is not None:
                self._send(batch)
                self._recorder.confirm(batch)
        except Exception as error:  # metrics must never end what they measure; the batch is sent again
            if not self._is_failing:
                logger.warning("metrics couldn't be sent (%s: %s); they wait", type(error).__name__, error)
            self._is_failing = True
        else:
            self._is_failing = False


def send_to_tracker(batch: MetricBatch) -> None:
    """Send one batch, and wait until the tracker has it."""
    ask_within(_SEND_TIMEOUT_S, Tracker.add_metrics, batch)
