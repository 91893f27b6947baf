from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from sienn_ray.jobs.news_schema import News, NewsCursor, NewsQuery
from sienn_ray.jobs.schema import JobStatus
from sienn_ray.jobs.store import news_store, tables
from sienn_ray.jobs.store.store import Store
from sienn_ray.training.reporting import Phase, Progress
from tests.support.fakes_jobs import Clock, job_record


@pytest.fixture(autouse=True)
def _jobs(store: Store) -> None:
    store.jobs.add(job_record())
    store.jobs.add(job_record("job-2", owner="ada"))
    for job_id in ("job-1", "job-2"):
        store.jobs.update(job_id, status=JobStatus.RUNNING, attempt=1)


def report(store: Store, clock: Clock, job_id: str, step: int) -> None:
    clock.advance(1)
    progress = Progress(
        phase=Phase.TRAINING, message="x", percent=step, current_step=step, current_epoch=1, current_loss=1
    )
    store.jobs.report(job_id, 1, progress)


def since(store: Store, after: NewsCursor | None, *job_ids: str, **fields: object) -> News:
    return store.news.since(NewsQuery(after, job_ids, **fields))  # type: ignore[arg-type]


def test_the_place_where_news_begins_has_none_behind_it(store: Store, clock: Clock) -> None:
    report(store, clock, "job-1", 1)
    begin = since(store, None)
    assert begin == News(cursor=begin.cursor)
    assert begin.cursor.seq > 0
    later = since(store, begin.cursor, "job-1", "job-2", changed_after=clock())
    assert (later.events, later.points, later.jobs, later.gone, later.cursor) == ((), (), (), (), begin.cursor)


def test_all_that_comes_later_is_behind_it(store: Store, clock: Clock) -> None:
    begin = since(store, None).cursor
    report(store, clock, "job-1", 1)
    report(store, clock, "job-2", 7)
    news = since(store, begin, "job-1", changed_after=clock())
    assert {(each.job_id, each.owner) for each in news.events} == {("job-1", "admin"), ("job-2", "ada")}
    assert [(each.job_id, each.point.step) for each in news.points] == [("job-1", 1)]
    assert since(store, news.cursor, "job-1").events == ()
    assert since(store, news.cursor, "job-1").points == ()
    report(store, clock, "job-1", 2)
    assert [each.point.step for each in since(store, news.cursor, "job-1").points] == [2]


def test_a_point_that_knows_more_is_told_again(store: Store, clock: Clock) -> None:
    report(store, clock, "job-1", 1)
    begin = since(store, None).cursor
    clock.advance(1)
    evaluated = Progress(phase=Phase.EVALUATING, message="x", percent=1, current_step=1, current_epoch=1, eval_loss=0.5)
    store.jobs.report("job-1", 1, evaluated)
    (news,) = since(store, begin, "job-1").points
    assert (news.point.step, news.point.loss, news.point.eval_loss) == (1, 1.0, 0.5)


def test_watched_jobs_are_told_of_when_they_change(store: Store, clock: Clock) -> None:
    begin = since(store, None).cursor
    first = since(store, begin, "job-1", "job-2")
    assert {job.id for job in first.jobs} == {"job-1", "job-2"}
    report(store, clock, "job-2", 1)
    second = since(store, first.cursor, "job-1", "job-2", changed_after=first.changed_at)
    assert [job.id for job in second.jobs] == ["job-2"]
    assert second.changed_at == clock()


def test_a_watched_job_that_was_deleted_is_gone(store: Store, clock: Clock) -> None:
    begin = since(store, None).cursor
    store.jobs.update("job-1", status=JobStatus.FAILED)
    store.jobs.delete("job-1")
    assert since(store, begin, "job-1", "job-2", "never").gone == ("job-1", "never")


def test_only_what_is_watched_is_told_where_nobody_wants_more(store: Store, clock: Clock) -> None:
    begin = NewsCursor()
    assert {each.job_id for each in since(store, begin, "job-2", only_watched=True).events} == {"job-2"}
    assert since(store, begin, only_watched=True).events == ()


def test_much_news_comes_in_pages_without_a_gap(store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    for step in range(1, 12):
        report(store, clock, "job-1", step)
    monkeypatch.setattr(news_store, "MAX_EVENTS", 2)
    monkeypatch.setattr(news_store, "MAX_POINTS", 3)
    cursor, seqs, steps = NewsCursor(), [], []
    while (news := since(store, cursor, "job-1")).cursor != cursor:
        cursor = news.cursor
        seqs += [each.event.seq for each in news.events]
        steps += [each.point.step for each in news.points]
    assert steps == list(range(1, 12))
    assert seqs == sorted(set(seqs))
    assert len(seqs) == len(store.jobs.events("job-1", 0, 1000)) + len(store.jobs.events("job-2", 0, 1000))


def test_an_owner_s_events_come_without_those_of_others(
    store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(news_store, "MAX_EVENTS", 2)
    for step in range(1, 12):
        report(store, clock, "job-1", step)
    store.jobs.cancel("job-2")
    expected = [event.seq for event in store.jobs.events("job-2", 0, 1000)]
    cursor, seqs, num_pages = NewsCursor(), [], 0
    while (news := since(store, cursor, owner="ada")).events:
        assert {(each.job_id, each.owner) for each in news.events} == {("job-2", "ada")}
        cursor, num_pages = news.cursor, num_pages + 1
        seqs += [each.event.seq for each in news.events]
    assert seqs == expected
    assert num_pages == -(-len(expected) // 2)


class TestPlans:
    """How the database looks for news, among many rows of others."""

    NUM_JOBS, NUM_ROWS = 50, 200

    @pytest.fixture(autouse=True)
    def _rows(self, store: Store, clock: Clock) -> None:
        for number in range(self.NUM_JOBS):
            store.jobs.add(job_record(f"other-{number}", owner=f"owner-{number % 10}"))
        points, events = [], []
        for number in range(self.NUM_JOBS * self.NUM_ROWS):
            row = {
                "job_id": f"other-{number % self.NUM_JOBS}",
                "created_at": clock() + timedelta(milliseconds=number),
            }
            points.append({**row, "step": number, "attempt": 1, "epoch": 1})
            events.append({**row, "kind": "epoch", "message": "x", "data": {}})
        with store.database.writing() as connection:
            connection.execute(sa.insert(tables.job_metric_points), points)
            connection.execute(sa.insert(tables.job_events), events)
            if connection.dialect.name == "postgresql":  # it looks by itself now and then
                connection.exec_driver_sql("ANALYZE")
        self.last = clock() + timedelta(milliseconds=self.NUM_JOBS * self.NUM_ROWS - 100)

    def plans(self, store: Store, query: NewsQuery) -> dict[str, str]:
        """The plan of each query for news, by the table that it is about first."""
        asked: list[tuple[str, Any]] = []

        def note(_: Any, __: Any, statement: str, parameters: Any, *___: Any) -> None:
            asked.append((statement, parameters))

        sa.event.listen(sa.Engine, "before_cursor_execute", note)
        try:
            store.news.since(query)
        finally:
            sa.event.remove(sa.Engine, "before_cursor_execute", note)
        found = {}
        with store.database.reading() as connection:
            word = "EXPLAIN" if connection.dialect.name == "postgresql" else "EXPLAIN QUERY PLAN"
            for statement, parameters in asked:
                if table := re.search(r"FROM (\w+)", statement):
                    rows = connection.exec_driver_sql(f"{word} {statement}", parameters)
                    found[table[1]] = "\n".join(str(row[-1]) for row in rows)
        return found

    def test_where_news_begins_is_the_end_of_an_index(self, store: Store) -> None:
        plan = self.plans(store, NewsQuery(None))["job_metric_points"]
        assert "ix_job_metric_points_created_at" in plan
        assert "Seq Scan" not in plan

    def test_points_behind_a_place_are_looked_up(self, store: Store) -> None:
        after = NewsCursor().behind(point_at=self.last)
        plan = self.plans(store, NewsQuery(after, ("other-1", "other-2")))["job_metric_points"]
        assert re.search(r"ix_job_metric_points_(job_id_)?created_at", plan)
        assert "created_at" in plan.replace("ix_job_metric_points_job_id_created_at", "")
        assert "Seq Scan" not in plan

    def test_events_of_an_owner_are_looked_up_by_its_jobs(self, store: Store) -> None:
        plan = self.plans(store, NewsQuery(NewsCursor(), owner="ada"))["job_events"]
        assert "ix_jobs_owner" in plan or "Seq Scan on jobs" in plan  # a page of jobs is read as fast as an index
        assert "ix_job_events_job_id_seq" in plan
        assert "Seq Scan on job_events" not in plan


class TestCursor:
    def test_it_knows_its_moment(self, clock: Clock) -> None:
        assert NewsCursor(12).behind(point_at=clock()).point_at == clock()

    def test_it_never_goes_back(self, clock: Clock) -> None:
        later = NewsCursor(12).behind(point_at=clock())
        assert later.behind(seq=3) == later
        assert later.behind(seq=13).seq == 13
