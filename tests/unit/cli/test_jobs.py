"""Commands on jobs and their logs."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from sienn_ray.jobs.schema import JobEvent, JobStatus
from tests.support.fakes_api import CREATED_AT, FakeJobLogs, job_record
from tests.support.in_process_tracker import InProcessTracker
from tests.unit.cli.running import done, refused


@pytest.mark.usefixtures("service")
class TestJobs:
    def test_list_and_filters(self, tracker: InProcessTracker) -> None:
        tracker.put(
            job_record(id="a", name="[bold]x", labels={"team": "support", "env": "b"}),
            job_record(id="b", labels={"team": "support"}, status=JobStatus.FAILED),
            job_record(id="c", labels={"team": "support"}),
        )
        assert [line.split()[0] for line in done("jobs").splitlines()] == ["job_id", "c", "b", "a"]
        assert "[bold]x" in done("jobs", "--label", "env=b")
        shown = done("jobs", "--status", "pending", "--label", "team=support", "--limit", "1").splitlines()
        assert [line.split()[0] for line in shown] == ["job_id", "c", "1"]
        assert shown[-1] == "1 of 2"

    def test_filters_that_are_none(self) -> None:
        assert "--status: has to be 'pending'" in refused("jobs", "--status", "done")
        assert "label" in refused("jobs", "--label", "x")
        assert "limit" in refused("jobs", "--limit", "0")

    def test_status(self, tracker: InProcessTracker) -> None:
        tracker.put(job_record(name="Ferry"))
        assert json.loads(done("status", "job-1"))["name"] == "Ferry"

    def test_cancel_retry_delete(self, tracker: InProcessTracker) -> None:
        tracker.put(job_record())
        assert done("cancel", "job-1").startswith("cancelled: ")
        assert "already 'cancelled'" in refused("cancel", "job-1")
        assert done("retry", "job-1").startswith("pending: ")
        assert "only jobs that have ended can be deleted" in refused("delete-job", "job-1")
        done("cancel", "job-1")
        assert done("delete-job", "job-1") == "deleted: job-1\n"
        assert tracker.num_records == 1, "the dataset stays"

    def test_pause_resume(self, tracker: InProcessTracker) -> None:
        tracker.put(job_record())
        assert done("pause", "job-1").startswith("paused: ")
        assert "only pending and running jobs can be paused" in refused("pause", "job-1")
        assert [line.split()[0] for line in done("jobs", "--status", "paused").splitlines()] == ["job_id", "job-1"]
        assert done("resume", "job-1").startswith("pending: ")
        assert "only paused jobs can be resumed" in refused("resume", "job-1")

    @pytest.mark.parametrize(
        "command", ["status", "watch", "pause", "resume", "cancel", "retry", "delete-job", "logs", "events"]
    )
    @pytest.mark.parametrize("job_id", ["nothing", "a/../../b", "?x#y", "%41"])
    def test_unknown_and_strange_ids(self, command: str, job_id: str) -> None:
        assert refused(command, job_id).endswith("not found") or "/" in job_id

    def test_events_of_all_pages(self, tracker: InProcessTracker) -> None:
        tracker.put(job_record())
        some = (
            JobEvent(seq=seq, kind="phase", message=f"number {seq}", created_at=CREATED_AT) for seq in range(1, 1002)
        )
        tracker.put_events("job-1", *some)
        lines = done("events", "job-1").splitlines()
        assert len(lines) == 1002
        assert lines[-1].rstrip().endswith("number 1001")


@pytest.mark.usefixtures("service")
class TestLogs:
    @pytest.fixture(autouse=True)
    def job(self, tracker: InProcessTracker, job_logs: FakeJobLogs) -> None:
        tracker.put(job_record(status=JobStatus.COMPLETED, attempt=2))
        job_logs.chunks = {"sienn-job-1-1": [b"lost\n"], "sienn-job-1-2": [b"[red]one\n", "zwölf\n".encode()]}

    def test_are_printed_as_they_are(self, job_logs: FakeJobLogs) -> None:
        assert done("logs", "job-1") == "[red]one\nzwölf\n"
        assert done("logs", "job-1", "--follow", "--tail", "5") == "[red]one\nzwölf\n"
        assert done("logs", "job-1", "--attempt", "1") == "lost\n"
        assert job_logs.asked[0] == ("sienn-job-1-2", 1000, False)
        assert job_logs.asked[-1] == ("sienn-job-1-1", 1000, False)

    def test_are_followed_through_attempts(self, tracker: InProcessTracker, job_logs: FakeJobLogs) -> None:
        """Also where one begins while the other is followed, and with no more of the old lines than asked for."""
        job_logs.chunks = {"sienn-job-1-1": [b"1\n2\n3\n"], "sienn-job-1-2": [b"4\n"]}
        tracker.put(job_record(status=JobStatus.RUNNING, attempt=1))

        def go_on(submission_id: str) -> None:
            attempt = 2 if submission_id.endswith("1") and len(job_logs.asked) > 2 else 1
            status = JobStatus.COMPLETED if submission_id.endswith("2") else JobStatus.RUNNING
            if attempt == 2 or status is JobStatus.COMPLETED:
                tracker.put(job_record(status=status, attempt=2, updated_at=datetime.now(UTC)))

        job_logs.on_end = go_on
        assert done("logs", "job-1", "--follow", "--tail", "2") == "2\n3\n4\n"

    def test_a_file_gets_no_colours(self, job_logs: FakeJobLogs) -> None:
        job_logs.chunks["sienn-job-1-2"] = [b"\x1b[36m(RayTrainWorker pid=1)\x1b[0m loss 0.5\n"]
        assert done("logs", "job-1") == "(RayTrainWorker pid=1) loss 0.5\n"

    def test_log_that_is_gone(self, job_logs: FakeJobLogs) -> None:
        job_logs.chunks.clear()
        assert refused("logs", "job-1", "-f") == "the cluster has no log of sienn-job-1-2"
