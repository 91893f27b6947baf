"""Reasons, for a user, why Ray's job API hasn't taken a submission."""

from __future__ import annotations

import re

from sienn_ray.jobs.supervision.ray_job_client import JobApiTimeoutError

# Before that, a restart of Ray's head is all that it takes.
_FAILURES_BEFORE_A_REASON = 3
_MAX_REASON_CHARS = 200


def words_of_refusal(error: ConnectionError, num_failures: int) -> str:
    """Return what a waiting job says of submissions that failed.

    Args:
        error: The last failure.
        num_failures: Failures in a row, this one included.
    """
    if num_failures < _FAILURES_BEFORE_A_REASON:
        return "Waiting for Ray's job API"
    return (
        f"Waiting to start: {num_failures} submissions in a row have failed, since {_reason(error)}; it is tried again "
        "every minute, and the service's log has the details"
    )


def _reason(error: ConnectionError) -> str:
    """The status and the last line of Ray's answer, whose lines before are a stack trace; no address of a server."""
    if isinstance(error, JobApiTimeoutError):
        return "Ray's job API doesn't answer"
    status = re.search(r"status code (\d{3})", str(error))
    if status is None:
        return "Ray's job API is out of reach"
    lines = [line.strip() for line in str(error)[status.end() :].splitlines() if line.strip(" :.\t")]
    words = f": {lines[-1].lstrip(': ')[:_MAX_REASON_CHARS]}" if lines else ""
    return f"Ray's job API has answered with status {status[1]}{words}"
