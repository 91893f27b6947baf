"""The logs that Ray keeps of its jobs, through Ray's public API.

Ray offers three ways to a job's log, none of which does all:

- `JobSubmissionClient.get_job_logs` sends the whole log as one string, so memory would have no bound.
- `ray.util.state.get_log` reads blocks from the end of the file, but a stream that it follows never ends. It is asked
  by node and file name: by submission id it would go through all jobs that the cluster has had.
- `JobSubmissionClient.tail_job_logs` ends when the job ends and can be given up at any time, but begins with the first
  line.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Protocol

from sienn_ray.jobs.supervision.ray_job_client import RayJobClient

# Where Ray keeps what a job's program prints.
_FILE_NAME = "job-driver-{submission_id}.log"
# Ray ends a transfer that takes longer; a slow client may have a large log.
_TRANSFER_TIMEOUT_S = 3600
# As a number of last lines: the whole log.
ALL_LINES = -1
# What Ray's server says of a file or a node that isn't there (any more).
_WORDS_OF_ABSENCE = ("not found", "doesn't exist", "Could not find", "does not exist")


@dataclass(frozen=True)
class LogPlace:
    """The place of a Ray job's log.

    Args:
        node_id: The node that the job's program runs on; None before it runs.
        has_ended: Whether the job has ended.
    """

    node_id: str | None
    has_ended: bool


class RayLogs(Protocol):
    """Reads the logs of Ray jobs. All may raise `ConnectionError` when Ray doesn't answer."""

    def look(self, submission_id: str) -> LogPlace:
        """Say where the log is; blocks. Raises `LookupError` if there is no such job."""
        ...

    def read(self, node_id: str, submission_id: str, tail: int) -> Iterator[bytes]:
        """The last lines, at least one, or `ALL_LINES`, in chunks; each step blocks.

        Raises:
            LookupError: There is no such log.
        """
        ...

    def follow(self, submission_id: str) -> AsyncGenerator[bytes]:
        """The log from its first line until the job has ended."""
        ...


class RayLogApi:
    """`RayLogs` of the cluster that this process has joined.

    Args:
        client: See `RayJobClient`.
        transfer_timeout_s: Seconds that the transfer of a log may take.
    """

    def __init__(self, client: Any = None, transfer_timeout_s: int = _TRANSFER_TIMEOUT_S) -> None:
        self._jobs = RayJobClient(client)
        self._transfer_timeout_s = transfer_timeout_s

    def look(self, submission_id: str) -> LogPlace:
        """See `RayLogs.look`."""
        details = self._jobs.call(lambda client: client.get_job_info(submission_id))
        return LogPlace(details.driver_node_id, details.status.is_terminal())

    def read(self, node_id: str, submission_id: str, tail: int) -> Iterator[bytes]:
        """See `RayLogs.read`."""
        import ray
        from ray.util.state import get_log
        from ray.util.state.exception import RayStateApiException

        try:
            yield from get_log(
                # Not found out by itself: that could be another cluster of this machine.
                address=ray.get_runtime_context().gcs_address,
                node_id=node_id,
                filename=_FILE_NAME.format(submission_id=submission_id),
                tail=tail,
                timeout=self._transfer_timeout_s,
                encoding=None,
            )
        except RayStateApiException as error:
            if any(words in str(error) for words in _WORDS_OF_ABSENCE):
                raise LookupError(str(error)) from error
            raise ConnectionError(str(error)) from error
        except (OSError, ValueError) as error:
            raise ConnectionError(str(error)) from error

    async def follow(self, submission_id: str) -> AsyncGenerator[bytes]:
        """See `RayLogs.follow`. `look` comes before it, since that connects, which blocks."""
        import aiohttp

        try:
            async with aclosing(self._jobs.connected().tail_job_logs(submission_id)) as batches:
                async for batch in batches:
                    yield batch.encode(errors="replace")
        except (aiohttp.ClientError, RuntimeError, OSError) as error:
            raise ConnectionError(str(error)) from error
