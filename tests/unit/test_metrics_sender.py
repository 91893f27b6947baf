from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from deployments.metrics_sender import MetricsSender
from sienn_ray.metrics import METRICS, QUEUE_LENGTH, TRAINING_TOKENS_TOTAL, MetricBatch, Recorder, Sample
from sienn_ray.ray_metrics import RayMirror, mirror_samples

NEVER_S = 3600.0


class Inbox:
    """Takes batches, or fails as long as `error` is set."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.batches: list[MetricBatch] = []
        self.num_tries = 0

    def send(self, batch: MetricBatch) -> None:
        self.num_tries += 1
        if self.error is not None:
            raise self.error
        self.batches.append(batch)

    @property
    def tokens(self) -> float:
        return sum(sample.value for batch in self.batches for sample in batch.increments)


def wait_for(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_batches_are_sent_regularly_with_fresh_gauges() -> None:
    recorder, inbox = Recorder(), Inbox()
    sender = MetricsSender(recorder, inbox.send, interval_s=0.01, before=lambda: recorder.set(QUEUE_LENGTH, 2))
    recorder.inc(TRAINING_TOKENS_TOTAL, 5)
    wait_for(lambda: len(inbox.batches) > 2)
    sender.stop()
    assert inbox.tokens == 5
    assert all(batch.gauges[0].value == 2 for batch in inbox.batches)
    assert [batch.number for batch in inbox.batches] == list(range(1, len(inbox.batches) + 1))


def test_what_is_left_is_sent_at_the_end() -> None:
    recorder, inbox = Recorder(), Inbox()
    sender = MetricsSender(recorder, inbox.send, interval_s=NEVER_S)
    recorder.inc(TRAINING_TOKENS_TOTAL, 5)
    sender.stop()
    sender.stop()
    assert inbox.tokens == 5
    assert not [thread for thread in threading.enumerate() if thread.name == "metrics"]


def test_failures_lose_nothing_and_end_nothing() -> None:
    recorder, inbox = Recorder(), Inbox()
    inbox.error = ConnectionError("the tracker is away")
    sender = MetricsSender(recorder, inbox.send, interval_s=0.01)
    recorder.inc(TRAINING_TOKENS_TOTAL, 5)
    wait_for(lambda: inbox.num_tries > 3)
    recorder.inc(TRAINING_TOKENS_TOTAL, 6)
    inbox.error = None
    wait_for(lambda: inbox.tokens == 11)
    sender.stop()
    assert inbox.tokens == 11


def test_gauges_that_cannot_be_set_do_not_end_the_thread() -> None:
    recorder, inbox, calls = Recorder(), Inbox(), []

    def before() -> None:
        calls.append(1)
        if len(calls) < 3:
            raise RuntimeError

    recorder.inc(TRAINING_TOKENS_TOTAL, 5)
    sender = MetricsSender(recorder, inbox.send, interval_s=0.01, before=before)
    wait_for(lambda: inbox.tokens == 5)
    sender.stop()


def test_rays_own_metrics_take_everything_that_is_measured() -> None:
    mirror = RayMirror()
    for metric in METRICS:
        labels = dict.fromkeys(metric.labels, "a")
        record: Any = {"counter": mirror.inc, "gauge": mirror.set, "histogram": mirror.observe}[metric.kind]
        for _ in range(2):
            record(metric, 1.0, **labels)
    mirror_samples([Sample("sienn_queue_wait_seconds_sum", (), 3.0), Sample("sienn_unknown_total", (), 3.0)])
