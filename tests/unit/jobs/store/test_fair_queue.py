"""The queue is fair between owners, whatever comes and ends in whatever order."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest

from sienn_ray.access.quotas import Quotas
from sienn_ray.jobs.export_schema import ExportStatus
from sienn_ray.jobs.schema import JobPriority, JobStatus
from sienn_ray.jobs.store import queue
from sienn_ray.jobs.store.job_store import JobStore
from sienn_ray.jobs.store.queue import QueueKind
from sienn_ray.jobs.store.quota_checks import QuotaChecks
from sienn_ray.jobs.store.store import Store
from sienn_ray.storage import FileEntry
from tests.support.fakes_exports import export_record
from tests.support.fakes_jobs import MOMENT, Clock, all_jobs, job_record


def add(store: Store, owner: str, *names: str, **fields: Any) -> None:
    for name in names:
        store.jobs.add(job_record(name, owner=owner, **fields))


def start(store: Store, *names: str) -> None:
    for name in names:
        store.jobs.update(name, status=JobStatus.RUNNING)


def end(store: Store, *names: str) -> None:
    for name in names:
        store.jobs.update(name, status=JobStatus.COMPLETED)


def bounded_to(store: Store, max_running: int | None) -> JobStore:
    return JobStore(store.database, Clock(), QuotaChecks(Quotas(max_running_jobs=max_running)))


def order(store: Store, limit: int = 99) -> list[str]:
    return [job.id for job in store.jobs.waiting(limit)]


def test_owners_take_turns_however_much_each_has_waiting(store: Store) -> None:
    add(store, "ada", "a1", "a2", "a3")
    add(store, "bob", "b1")
    add(store, "eve", "e1", "e2")
    assert order(store) == ["a1", "b1", "e1", "a2", "e2", "a3"]
    assert order(store, 2) == ["a1", "b1"]


def test_fewest_runs_come_first(store: Store) -> None:
    add(store, "ada", "a1", "a2", "a3")
    add(store, "bob", "b1", "b2", "b3")
    start(store, "a1", "a2", "b1")
    assert order(store) == ["b2", "a3", "b3"], "bob has a run less, and once both have two, ada's last turn is older"


def test_the_last_turn_decides_among_equals(store: Store) -> None:
    add(store, "ada", "a1", "a2")
    add(store, "bob", "b1", "b2")
    for name in ("a1", "b1"):
        assert order(store)[0] == name
        start(store, name)
        end(store, name)
    assert order(store) == ["a2", "b2"]


def test_who_was_away_does_not_go_ahead_of_those_who_waited(store: Store) -> None:
    add(store, "ada", "a1", "a2")
    for number in range(5):
        add(store, f"new-{number}", f"n{number}")
        first = order(store)[0]
        start(store, first)
        end(store, first)
    waiting = order(store)
    assert "a1" not in waiting
    assert "a2" not in waiting, "owners who have just come go ahead of one who has waited all the time"


def test_a_run_that_is_being_stopped_counts(store: Store) -> None:
    add(store, "ada", "a1", "a2")
    add(store, "bob", "b1")
    start(store, "a1")
    store.jobs.note_start("a1", 0, "sienn-a1-0")
    store.jobs.cancel("a1")
    assert order(store) == ["b1", "a2"]
    store.jobs.note_stop("a1")
    add(store, "bob", "b2")
    assert order(store)[:2] == ["b1", "a2"]


def test_priority_counts_among_the_jobs_of_one_owner(store: Store) -> None:
    add(store, "ada", "low", priority=JobPriority.LOW)
    add(store, "ada", "normal")
    add(store, "ada", "high", "high-too", priority=JobPriority.HIGH)
    add(store, "bob", "b1", "b2")
    assert order(store) == ["high", "b1", "high-too", "b2", "normal", "low"]


def test_urgent_goes_ahead_of_all_owners(store: Store) -> None:
    add(store, "ada", "a1", priority=JobPriority.HIGH)
    add(store, "bob", "b1")
    add(store, "admin", "c1")
    add(store, "admin", "urgent", priority=JobPriority.URGENT)
    assert order(store)[0] == "urgent"
    assert store.jobs.get("urgent").queue_position == 1


@pytest.mark.parametrize(("hours", "first"), [(23, "high"), (25, "normal")])
def test_a_level_is_worth_a_day_of_waiting(store: Store, hours: int, first: str) -> None:
    add(store, "ada", "normal", created_at=MOMENT)
    add(store, "ada", "high", priority=JobPriority.HIGH, created_at=MOMENT + timedelta(hours=hours))
    assert order(store)[0] == first


def test_an_owner_s_bound_on_runs_holds_back_its_own_jobs_alone(store: Store) -> None:
    bounded = bounded_to(store, 2)
    add(store, "ada", "a1", "a2", "a3", "a4")
    add(store, "bob", "b1")
    start(store, "a1")
    assert [job.id for job in bounded.waiting(9)] == ["b1", "a2"]
    assert [bounded.get(name).queue_position for name in ("b1", "a2", "a3", "a4")] == [1, 2, 3, 4]
    start(store, "a2")
    assert [job.id for job in bounded.waiting(9)] == ["b1"]
    end(store, "a1")
    assert [job.id for job in bounded.waiting(9)] == ["b1", "a3"]
    assert [job.id for job in bounded_to(store, 0).waiting(9)] == []


def test_what_can_not_start_holds_back_nothing(store: Store) -> None:
    bounded = bounded_to(store, 1)
    add(store, "ada", "a1", "a2")
    assert [job.id for job in bounded.waiting(9, ["a1"])] == ["a2"]


@dataclass
class History:
    """Random arrivals, ends and losses over a store, and what they led to."""

    store: Store
    draw: random.Random
    max_running: int
    max_running_per_owner: int | None
    arrived: Counter[str] = field(default_factory=Counter)
    # How often others started since each waiting owner had a chance to, by owner.
    passed_over: Counter[str] = field(default_factory=Counter)
    longest_pass: int = 0

    def __post_init__(self) -> None:
        self.jobs = bounded_to(self.store, self.max_running_per_owner)

    def arrive(self, owner: str) -> None:
        self.arrived[owner] += 1
        level = self.draw.choice([JobPriority.LOW, JobPriority.NORMAL, JobPriority.HIGH])
        moment = MOMENT + timedelta(hours=sum(self.arrived.values()))
        add(self.store, owner, f"{owner}-{self.arrived[owner]}", priority=level, created_at=moment)

    def end_one(self) -> None:
        if running := self.jobs.running():
            job = self.draw.choice(running)
            if self.draw.random() < 0.2:
                self.jobs.requeue(job.id, job.attempt, "lost")
            else:
                end(self.store, job.id)

    def admit(self) -> None:
        """Start what may start, and compare each with the rules."""
        while (num_free := self.max_running - len(self.jobs.running())) > 0:
            chosen = self.jobs.waiting(num_free)
            if not chosen:
                return
            job = chosen[0]
            assert job.queue_position is None
            assert self.jobs.get(job.id).queue_position == 1
            running = Counter(each.owner for each in self.jobs.running())
            waiting = {each.owner for each in all_jobs(self.store, JobStatus.PENDING)}
            bound = self.max_running_per_owner
            able = {each for each in waiting if bound is None or running[each] < bound}
            assert job.owner in able
            assert running[job.owner] == min(running[each] for each in able)
            for each in able - {job.owner}:
                if running[each] == running[job.owner]:
                    self.passed_over[each] += 1
                    self.longest_pass = max(self.longest_pass, self.passed_over[each])
            self.passed_over[job.owner] = 0
            start(self.store, job.id)


OWNERS = ("ada", "bob", "eve", "kim")


@pytest.mark.parametrize(("seed", "max_running", "bound"), [(1, 1, None), (2, 3, None), (3, 3, 1), (4, 2, 2)])
def test_nobody_starves(store: Store, seed: int, max_running: int, bound: int | None) -> None:
    history = History(store, random.Random(seed), max_running, bound)
    weights = (12, 4, 2, 1)  # ada asks for far more than her share
    for _ in range(60):
        for owner in history.draw.choices(OWNERS, weights, k=history.draw.randint(0, 2)):
            history.arrive(owner)
        history.admit()
        if history.draw.random() < 0.7:
            history.end_one()
    # Each of the others may have a turn before; a turn that comes back through a loss is one more.
    assert history.longest_pass <= 2 * (len(OWNERS) - 1)
    while all_jobs(store, JobStatus.PENDING) or history.jobs.running():
        history.end_one()
        history.admit()
    assert {job.status for job in all_jobs(store)} == {JobStatus.COMPLETED}


def test_a_low_job_is_passed_only_by_what_comes_within_its_levels(store: Store) -> None:
    """However many jobs of high priority the same owner goes on to ask for."""
    add(store, "ada", "low", priority=JobPriority.LOW, created_at=MOMENT)
    num_ahead = 0
    for hour in range(60):
        name = f"high-{hour}"
        add(store, "ada", name, priority=JobPriority.HIGH, created_at=MOMENT + timedelta(hours=hour))
        first = order(store, 1)[0]
        start(store, first)
        end(store, first)
        if first == "low":
            break
        num_ahead += 1
    assert num_ahead == 48


@pytest.mark.parametrize("seed", range(3))
def test_places_are_the_order_of_starts_if_nothing_comes_or_ends(store: Store, seed: int) -> None:
    draw = random.Random(seed)
    for number in range(24):
        add(store, draw.choice(OWNERS), f"job-{number}", priority=draw.choice([*JobPriority][:3]))
    for job in draw.sample(store.jobs.waiting(99), 5):
        start(store, job.id)
    page = {job.id: job.queue_position for job in all_jobs(store, JobStatus.PENDING)}
    expected = sorted(page, key=lambda name: page[name] or 0)
    assert sorted(place or 0 for place in page.values()) == list(range(1, 20))
    started = []
    while first := order(store, 1):
        start(store, *first)
        started += first
    assert started == expected


def test_exports_take_turns_too(store: Store) -> None:
    for owner in ("ada", "bob"):
        add(store, owner, f"{owner}-job", status=JobStatus.COMPLETED)
        for number in range(2):
            store.exports.request(export_record(f"{owner}-job", id=f"{owner}-{number}"))
    ids = [record.id for record in store.exports.waiting(9)]
    assert ids == ["ada-0", "bob-0", "ada-1", "bob-1"]
    store.exports.start("ada-0")
    assert [record.id for record in store.exports.waiting(9)] == ["bob-0", "ada-1", "bob-1"]
    assert [record.id for record in store.exports.waiting(9, {"bob-0"})] == ["bob-1", "ada-1"]
    store.exports.complete("ada-0", 1, FileEntry("x.zip", 1, "0" * 64))
    assert store.exports.get("ada-0").status is ExportStatus.COMPLETED
    assert [record.id for record in store.exports.waiting(1)] == ["bob-0"]


def test_turns_are_those_of_one_queue(store: Store) -> None:
    with store.database.writing() as connection:
        queue.note_start(connection, QueueKind.EXPORTS, "ada")
    add(store, "ada", "a1")
    add(store, "bob", "b1")
    assert order(store) == ["a1", "b1"]
