from __future__ import annotations

import pickle
from typing import Any

import pytest

from sienn_ray.jobs.client.run_commands import NewestCommand
from sienn_ray.jobs.client.run_session import TrainingSession
from sienn_ray.training.reporting import Reporter, RunCommand
from tests.support.fakes_jobs import job_record

GO_ON, PAUSE = RunCommand.GO_ON, RunCommand.PAUSE


class FakeAnswers:
    """Answers that come when a test says so, in any order.

    Attributes:
        values: What has arrived, by answer; an exception is raised.
        asked: Answers that were asked for, each time.
    """

    def __init__(self) -> None:
        self.values: dict[int, Any] = {}
        self.asked: list[list[int]] = []

    def arrived(self, answers: list[int]) -> list[int]:
        self.asked.append(answers)
        return [answer for answer in reversed(answers) if answer in self.values]

    def read(self, answer: int) -> Any:
        value = self.values[answer]
        if isinstance(value, Exception):
            raise value
        return value


@pytest.fixture
def answers() -> FakeAnswers:
    return FakeAnswers()


@pytest.fixture
def commands(answers: FakeAnswers) -> NewestCommand:
    return NewestCommand(answers.arrived, answers.read)


def test_nothing_is_known_before_the_first_answer(commands: NewestCommand, answers: FakeAnswers) -> None:
    assert commands.now() is GO_ON
    assert answers.asked == []
    commands.expect(1)
    assert commands.now() is GO_ON


def test_newest_answer_counts(commands: NewestCommand, answers: FakeAnswers) -> None:
    for number in (1, 2, 3):
        commands.expect(number)
    answers.values = {1: GO_ON, 2: PAUSE}
    assert commands.now() is PAUSE
    assert commands.now() is PAUSE
    answers.values[3] = GO_ON
    assert commands.now() is GO_ON
    assert answers.asked == [[1, 2, 3], [3], [3]]


def test_answer_that_comes_late_is_not_asked_for_again(commands: NewestCommand, answers: FakeAnswers) -> None:
    commands.expect(1)
    commands.expect(2)
    answers.values = {2: PAUSE}
    assert commands.now() is PAUSE
    answers.values[1] = GO_ON
    assert commands.now() is PAUSE


def test_report_that_got_lost_leaves_what_was_known(commands: NewestCommand, answers: FakeAnswers) -> None:
    for number in (1, 2, 3):
        commands.expect(number)
    answers.values = {1: GO_ON, 2: PAUSE, 3: ConnectionError("the actor died")}
    assert commands.now() is PAUSE
    commands.expect(4)
    answers.values = {4: None}  # of a tracker that doesn't answer reports
    assert commands.now() is PAUSE


def test_it_never_raises() -> None:
    def fail(_: list[Any]) -> list[Any]:
        raise RuntimeError("Ray has gone")

    commands = NewestCommand(fail)
    commands.expect(1)
    assert commands.now() is GO_ON


def test_answers_that_never_come_do_not_pile_up(commands: NewestCommand, answers: FakeAnswers) -> None:
    for number in range(1000):
        commands.expect(number)
    answers.values = {0: PAUSE}
    assert commands.now() is PAUSE
    assert len(answers.asked[-1]) < 10
    assert answers.asked[-1][-1] == 999


def test_session_pickles_as_it_goes_to_workers() -> None:
    session = TrainingSession(job_record(attempt=2))
    session._commands.expect(object())
    copy: Reporter = pickle.loads(pickle.dumps(session))
    assert copy.command() is GO_ON
    assert vars(copy)["_attempt"] == 2
