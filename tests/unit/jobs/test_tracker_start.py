"""The start of the tracker, with replicas of several deployments at once; Ray's registry of actors is a fake."""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from sienn_ray.errors import CapacityError, ConflictError
from sienn_ray.jobs.deployment import Deployment, Standing
from sienn_ray.jobs.tracker import JobTracker
from sienn_ray.jobs.tracker_start import TrackerAwayError, start_tracker
from sienn_ray.settings import Settings
from tests.support.fakes_jobs import FakeRayJobs, no_mirror

ROOT = Path(__file__).parents[3]
OLD = Deployment(Settings(env="test", max_pending_jobs=1), deployed_at=1.0)
NEW = Deployment(Settings(env="test", max_pending_jobs=2), deployed_at=2.0)


@dataclass
class FakeTracker:
    """An actor.

    Attributes:
        deployment: What it was created with; None for one of earlier code.
        is_silent: Whether it hangs.
        is_alive: Whether it hasn't been killed.
    """

    deployment: Deployment | None
    is_silent: bool = False
    is_alive: bool = True


class FakeActors:
    """A registry with one name.

    Attributes:
        tracker: Who has the name.
        created: All that were created here, in order.
        before_create: Called, once, before a tracker is created: what others do in the gap.
        before_kill: The same before one is killed.
        create_error: How trackers die that are created here.
        now: The time, which `sleep` and waits move on.
    """

    def __init__(self, tracker: FakeTracker | None = None) -> None:
        self.tracker = tracker
        self.created: list[FakeTracker] = []
        self.before_create: Callable[[], None] = lambda: None
        self.before_kill: Callable[[], None] = lambda: None
        self.create_error = ""
        self.now = 0.0

    def find(self) -> FakeTracker | None:
        return self.tracker

    def create(self, deployment: Deployment) -> FakeTracker:
        before, self.before_create = self.before_create, lambda: None
        before()
        if self.tracker is None:
            self.tracker = FakeTracker(deployment, is_alive=not self.create_error)
            self.created.append(self.tracker)
        return self.tracker

    def kill(self, tracker: FakeTracker) -> None:
        before, self.before_kill = self.before_kill, lambda: None
        before()
        tracker.is_alive = False
        if self.tracker is tracker:
            self.tracker = None

    def standing(self, tracker: FakeTracker, deployment: Deployment, timeout_s: float) -> Standing:
        if tracker.is_silent:
            self.now += timeout_s
            raise TrackerAwayError(f"it hasn't answered for {timeout_s:.0f} s")
        if not tracker.is_alive:
            raise TrackerAwayError(self.create_error or "it is dead")
        return Standing.OTHER if tracker.deployment is None else tracker.deployment.standing_for(deployment)

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def start(self, deployment: Deployment) -> FakeTracker:
        tracker: FakeTracker = start_tracker(deployment, self, lambda: self.now, self.sleep)
        return tracker


def test_first_tracker_is_created() -> None:
    actors = FakeActors()
    assert actors.start(NEW).deployment is NEW


def test_tracker_with_these_settings_stays() -> None:
    known = FakeTracker(Deployment(NEW.settings, deployed_at=0.5))
    actors = FakeActors(known)
    assert actors.start(NEW) is known
    assert known.is_alive


@pytest.mark.parametrize("deployment", [OLD, None])
def test_tracker_with_other_settings_or_code_is_replaced(deployment: Deployment | None) -> None:
    known = FakeTracker(deployment)
    actors = FakeActors(known)
    assert actors.start(NEW).deployment is NEW
    assert not known.is_alive


def test_tracker_that_somebody_else_creates_in_the_gap_is_replaced_as_well() -> None:
    """Between the end of the old tracker and the start of the new one a replica of the old deployment starts."""
    actors = FakeActors(FakeTracker(OLD))
    actors.before_create = lambda: setattr(actors, "tracker", FakeTracker(OLD))
    assert actors.start(NEW).deployment is NEW
    assert actors.tracker is not None
    assert actors.tracker.deployment is NEW


def test_later_deployment_wins_whoever_is_in_between() -> None:
    """The old replica is about to replace a tracker when the new one does; it leaves the new one's alone."""
    actors = FakeActors(FakeTracker(None))
    actors.before_kill = lambda: setattr(actors, "won", actors.start(NEW))
    with pytest.raises(ConflictError, match="of a later deployment"):
        actors.start(OLD)
    assert actors.tracker is not None
    assert (actors.tracker.deployment, actors.tracker.is_alive) == (NEW, True)


def test_two_replicas_of_a_deployment_share_a_tracker() -> None:
    actors = FakeActors(FakeTracker(OLD))
    others = []
    actors.before_create = lambda: others.append(actors.start(NEW))
    assert [actors.start(NEW)] == others
    assert len(actors.created) == 1


def test_tracker_that_hangs_is_replaced() -> None:
    actors = FakeActors(FakeTracker(NEW, is_silent=True))
    assert actors.start(NEW).is_silent is False
    assert actors.now < 60.0


def test_tracker_that_does_not_start_is_said_within_a_minute() -> None:
    actors = FakeActors()
    actors.create_error = "ModuleNotFoundError: No module named 'psycopg'"
    with pytest.raises(CapacityError, match=r"within 60 s: ModuleNotFoundError: No module named 'psycopg'$"):
        actors.start(NEW)
    assert 60.0 <= actors.now < 66.0
    assert len(actors.created) < 30  # each is a process


def test_fight_that_has_no_end_is_said() -> None:
    actors = FakeActors(FakeTracker(OLD))

    def create_old() -> None:
        actors.tracker = FakeTracker(OLD)
        actors.before_create = create_old

    actors.before_create = create_old
    with pytest.raises(CapacityError, match="with other settings or code is created again and again"):
        actors.start(NEW)


# The tracker's own part


def test_tracker_says_whose_it_is(tmp_path: Path) -> None:
    settings = Settings(env="test", home=tmp_path, job_poll_s=3600)
    tracker = JobTracker(settings, FakeRayJobs(), mirror=no_mirror, deployed_at=2.0)
    other = Settings(env="test", home=tmp_path, job_poll_s=1800)
    assert tracker.stand(Deployment(settings, deployed_at=1.0)) is Standing.SAME
    assert tracker.stand(Deployment(settings, deployed_at=3.0)) is Standing.SAME
    assert tracker.stand(Deployment(other, deployed_at=4.0)) is Standing.OTHER
    assert tracker.stand(Deployment(other, deployed_at=2.5)) is Standing.NEWER  # it serves that of 3.0
    assert tracker.stand(Deployment(settings, deployed_at=4.0, version="0.0.1")) is Standing.OTHER
    assert tracker.settings().database_url.get_secret_value() == "sqlite://"
    tracker.close()


def test_nobody_but_the_start_of_the_service_makes_a_tracker() -> None:
    modules = [path for folder in ("sienn_ray", "deployments") for path in (ROOT / folder).rglob("*.py")]
    makers = {
        str(path.relative_to(ROOT))
        for path in modules
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom)
        and node.module in {"sienn_ray.jobs.tracker_start", "sienn_ray.jobs.tracker"}
    }
    assert makers == {"deployments/ingress.py", "sienn_ray/jobs/tracker_start.py"}
