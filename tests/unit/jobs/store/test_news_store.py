from __future__ import annotations

import pytest

from sienn_ray.jobs.news_schema import News, NewsCursor, NewsQuery
from sienn_ray.jobs.schema import JobStatus
from sienn_ray.jobs.store import news_store
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


class TestCursor:
    def test_it_knows_its_moment(self, clock: Clock) -> None:
        assert NewsCursor(12).behind(point_at=clock()).point_at == clock()

    def test_it_never_goes_back(self, clock: Clock) -> None:
        later = NewsCursor(12).behind(point_at=clock())
        assert later.behind(seq=3) == later
        assert later.behind(seq=13).seq == 13
