"""The Ray jobs behind fine-tunes: a small protocol, and Ray's own job API behind it."""

from __future__ import annotations

import contextlib
import shlex
import shutil
import sys
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from sienn_ray.jobs.supervision.ray_job_client import RayJobClient
from sienn_ray.jobs.supervision.ray_words import cause_and_log, is_loss_of_node

# Ray gives its workers this niceness, the API's processes among them, and programs of jobs none: where CPUs are few,
# one that imports its libraries would hold up the start of a lost proxy or replica for seconds.
_AS_NICE_AS_WORKERS = ("nice", "-n", "15")


class RayJobState(StrEnum):
    """State of a job, as Ray tells it."""

    MISSING = "missing"
    ACTIVE = "active"
    SUCCEEDED = "succeeded"
    STOPPED = "stopped"
    FAILED = "failed"


@dataclass(frozen=True)
class RayJobReport:
    """A Ray job's state, and why it failed.

    Args:
        state: Its state.
        message: Why it failed, in a few words.
        log_tail: The end of the log of one that failed.
        is_loss_of_node: Whether it went with its node.
    """

    state: RayJobState
    message: str = ""
    log_tail: str = ""
    is_loss_of_node: bool = False


class RayJobs(Protocol):
    """Starts Ray jobs, looks at them and stops them."""

    def submit(self, job_id: str, attempt: int, metadata: dict[str, str]) -> None:
        """Start the training program for one attempt at a job; a repeat changes nothing.

        Raises:
            ConnectionError: Ray's job API didn't answer; the program may have been started all the same.
        """
        ...

    def look(self, submission_id: str) -> RayJobReport:
        """Say how a Ray job stands.

        Raises:
            ConnectionError: Ray's job API didn't answer, so nothing is known.
        """
        ...

    def stop(self, submission_id: str) -> None:
        """Ask Ray to end a job; it ends some time later. One that has ended or isn't there is left alone.

        Raises:
            ConnectionError: Ray's job API didn't answer.
        """
        ...


def submission_id_of(job_id: str, attempt: int) -> str:
    """The Ray submission id of one attempt at a job."""
    return f"sienn-{job_id}-{attempt}"


def entrypoint_of(job_id: str, attempt: int) -> str:
    """Command that trains a job the tracker knows."""
    program = [sys.executable, "-m", "sienn_ray.train", "--job-id", job_id, "--attempt", str(attempt)]
    return shlex.join([*_AS_NICE_AS_WORKERS, *program] if shutil.which(_AS_NICE_AS_WORKERS[0]) else program)


class RayJobApi:
    """`RayJobs` through Ray's job API.

    Args:
        client: A `JobSubmissionClient`; by default one of the cluster that this process has joined.
    """

    def __init__(self, client: Any = None) -> None:
        self._jobs = RayJobClient(client)

    def submit(self, job_id: str, attempt: int, metadata: dict[str, str]) -> None:
        """See `RayJobs.submit`."""
        submission_id = submission_id_of(job_id, attempt)
        if self.look(submission_id).state is not RayJobState.MISSING:
            return
        entrypoint = entrypoint_of(job_id, attempt)
        self._jobs.call(
            lambda client: client.submit_job(entrypoint=entrypoint, submission_id=submission_id, metadata=metadata)
        )

    def look(self, submission_id: str) -> RayJobReport:
        """See `RayJobs.look`."""
        from ray.job_submission import JobStatus

        try:
            details = self._jobs.call(lambda client: client.get_job_info(submission_id))
        except LookupError:
            return RayJobReport(RayJobState.MISSING)
        states = {
            JobStatus.SUCCEEDED: RayJobState.SUCCEEDED,
            JobStatus.STOPPED: RayJobState.STOPPED,
            JobStatus.FAILED: RayJobState.FAILED,
        }
        state = states.get(details.status, RayJobState.ACTIVE)
        if state is not RayJobState.FAILED:
            return RayJobReport(state)
        message = str(details.message or "")
        cause, log = cause_and_log(message)
        return RayJobReport(state, cause, log, is_loss_of_node(message))

    def stop(self, submission_id: str) -> None:
        """See `RayJobs.stop`."""
        with contextlib.suppress(LookupError):
            self._jobs.call(lambda client: client.stop_job(submission_id))
