"""A client of Ray's job API, which connects when it is first used and again when the dashboard has moved."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


class RayJobClient:
    """Ray's job API of the cluster that this process has joined.

    Args:
        client: A `JobSubmissionClient`; by default one is made at the first call.
    """

    def __init__(self, client: Any = None) -> None:
        self._client = client

    def call(self, request: Callable[[Any], T]) -> T:
        """Run a request with the connected `JobSubmissionClient`; blocks.

        Raises:
            LookupError: There is no such Ray job.
            ConnectionError: The job API didn't answer.
        """
        try:
            return request(self.connected())
        except RuntimeError as error:
            # The job API has no exception classes: its RuntimeError carries the HTTP status in its text.
            if "status code 404" in str(error):
                raise LookupError(str(error)) from error
            raise ConnectionError(str(error)) from error
        except OSError as error:  # what `requests` raises is an OSError; the dashboard may have moved
            self._client = None
            raise ConnectionError(str(error)) from error

    def connected(self) -> Any:
        """Return the `JobSubmissionClient`, which is connected first if it isn't; that blocks."""
        if self._client is None:
            import ray
            from ray.job_submission import JobSubmissionClient

            self._client = JobSubmissionClient(ray.get_runtime_context().gcs_address)
        return self._client
