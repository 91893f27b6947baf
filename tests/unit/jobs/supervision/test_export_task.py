"""The reports of an export's run, and its signs of life while it is in one long call."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import sienn_ray.compute_threads
import sienn_ray.export.make
import sienn_ray.training.signs_of_life
from sienn_ray.errors import CapacityError, ExportStoppedError
from sienn_ray.jobs.supervision import export_task
from sienn_ray.jobs.supervision.export_task import ExportReporter, run_export
from sienn_ray.jobs.tracker_protocol import Tracker
from sienn_ray.settings import Settings
from sienn_ray.storage import FileEntry
from tests.support.fakes_api import job_record
from tests.support.fakes_exports import export_record

Reports = list[tuple[int, str]]


class FakeTracker:
    """Takes reports, and says whether the export is wanted.

    Attributes:
        reports: Percent and message of each.
        is_wanted: The answer to them; an error is raised.
    """

    def __init__(self) -> None:
        self.reports: Reports = []
        self.is_wanted: bool | Exception = True

    def ask(self, call: Any, *args: Any) -> Any:
        if call is Tracker.job:
            return job_record()
        assert call is Tracker.report_export
        self.reports.append(args[2:])
        if isinstance(self.is_wanted, Exception):
            raise self.is_wanted
        return self.is_wanted


@pytest.fixture
def tracker(monkeypatch: pytest.MonkeyPatch) -> FakeTracker:
    tracker = FakeTracker()
    monkeypatch.setattr(export_task, "ask", tracker.ask)
    return tracker


def test_reports_that_follow_each_other_at_once_are_told_once(tracker: FakeTracker) -> None:
    reporter = ExportReporter(export_record())
    for share in (0.0, 0.1, 1.0):
        reporter.report(share, "Writing")
    assert tracker.reports == [(0, "Writing")]
    reporter.repeat()
    assert tracker.reports == [(0, "Writing"), (99, "Writing")]


def test_nothing_is_repeated_before_the_first_report(tracker: FakeTracker) -> None:
    ExportReporter(export_record()).repeat()
    assert tracker.reports == []


def test_an_export_that_is_not_wanted_ends_with_its_next_report(tracker: FakeTracker) -> None:
    reporter = ExportReporter(export_record())
    tracker.is_wanted = False
    with pytest.raises(ExportStoppedError, match="isn't wanted any more"):
        reporter.report(0.5, "Writing")
    reporter.repeat()  # in another thread, which this must not end


def test_an_export_goes_on_while_the_tracker_is_away(tracker: FakeTracker) -> None:
    reporter = ExportReporter(export_record())
    tracker.is_wanted = CapacityError("the job tracker hasn't answered within 8 s")
    reporter.report(0.5, "Writing")
    reporter.repeat()
    assert tracker.reports == [(50, "Writing"), (50, "Writing")]


def test_a_run_gives_signs_of_life_while_its_base_model_comes(
    tracker: FakeTracker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    is_watched = False

    @contextmanager
    def watched(tell: Callable[[], None]) -> Iterator[None]:
        nonlocal is_watched
        is_watched = True
        yield
        tell()
        is_watched = False

    file = FileEntry("model.gguf", 1, "a" * 64)

    def make(*args: Any) -> FileEntry:
        assert is_watched
        args[-1](0.0, "Reading the adapter and the base model")
        return file

    monkeypatch.setattr(sienn_ray.training.signs_of_life, "signs_of_life", watched)
    monkeypatch.setattr(sienn_ray.export.make, "make_export", make)
    monkeypatch.setattr(sienn_ray.compute_threads, "compute_here", lambda _: None)
    assert run_export(export_record(), Settings(env="test", home=tmp_path)) is file
    assert tracker.reports == [(0, "Reading the adapter and the base model")] * 2
