"""Trackers of several deployments that start at once, on Ray itself: the later deployment's one stays."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.integration.service import Service, wait_for

# Two replicas start. Each one's creation of a tracker is held up until the other one has come to a certain point, which
# is the gap between "there is none" and "there is mine".
RACE = """
import json, threading, time
from sienn_ray.errors import ConflictError
from sienn_ray.jobs.deployment import Deployment
from sienn_ray.jobs.tracker_start import RayTrackerActors, start_tracker
from sienn_ray.settings import Settings

class Held(RayTrackerActors):
    def __init__(self, is_let_go):
        self.is_let_go, self.is_waiting = is_let_go, threading.Event()

    def create(self, deployment):
        self.is_waiting.set()
        assert self.is_let_go.wait(120)
        return super().create(deployment)

def deployment(number):
    return Deployment(Settings(max_pending_jobs=1000 + number), time.time() + number / 1000)

def start(number, actors):
    try:
        tracker = start_tracker(deployments[number], actors)
        outcomes[number] = ray.get(tracker.settings.remote(), timeout=60).max_pending_jobs
    except ConflictError:
        outcomes[number] = "over"

deployments, outcomes = {{number: deployment(number) for number in (1, 2)}}, {{}}
is_let_go = threading.Event()
held = threading.Thread(target=start, args=({held}, actors := Held(is_let_go)))
held.start()
assert actors.is_waiting.wait(120)  # it has ended the tracker of before, and found none
start({other}, RayTrackerActors())
is_let_go.set()
held.join()
print(json.dumps([outcomes[1], outcomes[2]]))
"""
NOW = """
from sienn_ray.jobs.client.tracker_handle import find_tracker
print(ray.get(find_tracker().settings.remote(), timeout=60).max_pending_jobs)
"""
AS_BEFORE = """
import time
from sienn_ray.jobs.deployment import Deployment
from sienn_ray.jobs.tracker_start import start_tracker
from sienn_ray.settings import Settings
start_tracker(Deployment(Settings(), time.time()))
"""


@pytest.fixture
def shared(service: Service) -> Iterator[Service]:
    """The service; afterwards it has the tracker of its own settings again."""
    yield service
    service.on_ray(AS_BEFORE)
    wait_for(lambda: service.get("/api/health/services")["status"] == "healthy", "a healthy service", 120.0)


def last_line(printed: str) -> str:
    """What a program printed last; Ray prints of what has failed because its actor was replaced."""
    return printed.splitlines()[-1]


@pytest.mark.parametrize(("held", "other"), [(1, 2), (2, 1)])
def test_later_deployment_s_tracker_stays(shared: Service, held: int, other: int) -> None:
    jobs = shared.get("/api/jobs")["count"]
    first, second = json.loads(last_line(shared.on_ray(RACE.format(held=held, other=other))))
    # The earlier deployment's replica may have had its tracker for a moment, if it came first.
    assert (first, second) == ("over" if held == 1 else 1001, 1002)
    assert int(last_line(shared.on_ray(NOW))) == 1002
    # The ingress, which runs on, asks that one, over the same database.
    assert shared.get("/api/jobs")["count"] == jobs
