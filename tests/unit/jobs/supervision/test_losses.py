"""Losses are counted since the last progress, and those that aren't the run's doing not at all."""

from __future__ import annotations

import pytest

from sienn_ray.jobs.schema import JobRecord, JobStatus
from sienn_ray.jobs.store.store import Store
from sienn_ray.jobs.supervision.job_supervisor import Supervisor
from sienn_ray.jobs.supervision.ray_jobs import RayJobReport, RayJobState
from sienn_ray.jobs.supervision.ray_words import cause_and_log, is_loss_of_node
from sienn_ray.training.reporting import Phase, Progress
from tests.support.fakes_jobs import FakeRayJobs, Seconds, job_record

KILLED = RayJobReport(RayJobState.FAILED, "its program was killed (SIGKILL)", "last words")


class Runs:
    """A job whose runs get lost; it fails at the second loss in a row."""

    def __init__(self, store: Store) -> None:
        self._store, self._ray_jobs, self._seconds = store, FakeRayJobs(), Seconds()
        options = {"max_running": 1, "max_attempts": 2, "clock_s": self._seconds}
        self._supervisor = Supervisor(store.jobs, self._ray_jobs, **options)  # type: ignore[arg-type]
        store.jobs.add(job_record())
        self._supervisor.step()

    def lose(self, report: RayJobReport | None = KILLED, step: int | None = None) -> JobRecord:
        """The job once its run has come to a step, and was lost; without a report, Ray knows nothing of it."""
        job = self._store.jobs.get("job-1")
        if step is not None:
            self._store.jobs.report("job-1", job.attempt, Progress(Phase.TRAINING, "words", 50, current_step=step))
        if report is None:
            self._ray_jobs.forget_all()
        else:
            self._ray_jobs.reports[f"sienn-job-1-{job.attempt}"] = report
        self._seconds.advance(60)
        self._supervisor.step()
        return self._store.jobs.get("job-1")


@pytest.fixture
def runs(store: Store) -> Runs:
    return Runs(store)


def test_newer_step_makes_losses_count_anew(runs: Runs) -> None:
    losses = [runs.lose(step=step).num_losses for step in (10, 20, 30, 40)]
    assert losses == [1, 1, 1, 1]
    job = runs.lose(step=35)  # resumed from a checkpoint before, and lost on the way
    assert (job.status, job.loss_step, job.log_tail) == (JobStatus.FAILED, 40, "last words")


@pytest.mark.parametrize("report", [None, RayJobReport(RayJobState.FAILED, "its node has died", is_loss_of_node=True)])
def test_restart_of_the_cluster_counts_for_nobody(runs: Runs, report: RayJobReport | None) -> None:
    runs.lose()
    for _ in range(5):
        job = runs.lose(report)
        assert (job.status, job.num_losses) == (JobStatus.RUNNING, 1)
    assert runs.lose().status is JobStatus.FAILED


def test_retry_and_resume_forget_losses(runs: Runs, store: Store) -> None:
    runs.lose(step=3)
    runs.lose(step=3)
    job = store.jobs.retry("job-1")
    assert (job.num_losses, job.loss_step, job.log_tail) == (0, 0, None)


MEMORY = ", as happens when memory runs out"
LOG = "\x1b[36m(pid=7)\x1b[0m step 1\n" + "\n".join(f"line {number}" for number in range(4000))
ENTRYPOINT = "Job entrypoint command failed with exit code {}, last available logs (truncated to 20,000 chars):\n{}"


@pytest.mark.parametrize(
    ("message", "cause", "tail"),
    [
        (
            ENTRYPOINT.format(-9, "a\n\x1b[31mb\x1b[0m\n"),
            "was killed (SIGKILL), as happens when memory runs out",
            "a\nb",
        ),
        (ENTRYPOINT.format(137, "a"), "was killed (SIGKILL), as happens when memory runs out", "a"),
        (ENTRYPOINT.format(1, ""), "ended with exit code 1", ""),
        ("Job entrypoint command failed with exit code 7", "ended with exit code 7", ""),
    ],
)
def test_cause_of_a_program_that_failed(message: str, cause: str, tail: str) -> None:
    assert cause_and_log(message) == (f"its program {cause}", tail)


def test_log_is_cut_to_its_last_whole_lines() -> None:
    cause, tail = cause_and_log(ENTRYPOINT.format(-9, LOG))
    assert len(cause) < 100
    assert 3900 < len(tail) <= 4000
    assert tail.startswith("line ")
    assert tail.endswith("line 3999")


def test_other_words_of_ray_are_one_line() -> None:
    words = "Job supervisor actor died: The actor died because its node has died.\n\tNode Id: abc"
    assert cause_and_log(words) == (words.replace("\n\t", " "), "")
    assert is_loss_of_node(words)
    assert not is_loss_of_node("Job supervisor actor died: worker process was killed on node abc by the OOM killer")
