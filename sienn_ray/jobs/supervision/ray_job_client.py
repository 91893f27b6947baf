"""A client of Ray's job API with a deadline for every call; it connects when it is first used."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from ray.exceptions import AuthenticationError

from sienn_ray.jobs.supervision.deadline import DeadlineThread

T = TypeVar("T")

# Ray's head answers within a second, and within several while it starts many programs.
CALL_TIMEOUT_S = 30.0


class JobApiTimeoutError(ConnectionError):
    """Ray's job API accepted a call and didn't answer within the deadline."""


class RayJobClient:
    """Ray's job API of the cluster that this process has joined.

    Args:
        client: A `JobSubmissionClient`; by default one is made at the first call.
        timeout_s: Deadline of one call, and of connecting.
    """

    def __init__(self, client: Any = None, timeout_s: float = CALL_TIMEOUT_S) -> None:
        self._client = client
        self._timeout_s = timeout_s
        self._connecting = DeadlineThread("ray-job-api")

    def call(self, request: Callable[[Any], T]) -> T:
        """Run a request with the connected `JobSubmissionClient`; blocks.

        Raises:
            LookupError: There is no such Ray job.
            JobApiTimeoutError: The job API didn't answer within the deadline.
            ConnectionError: The job API is away, or refused the call.
        """
        try:
            return request(self.connected())
        except TimeoutError as error:
            self._client = None
            raise JobApiTimeoutError(str(error)) from error
        except RuntimeError as error:
            # The job API has no exception classes: its RuntimeError carries the HTTP status in its text.
            if "status code 404" in str(error):
                raise LookupError(str(error)) from error
            raise ConnectionError(str(error)) from error
        except AuthenticationError as error:  # the token was replaced; a new client reads it anew
            self._client = None
            raise ConnectionError(str(error)) from error
        except OSError as error:  # what `requests` raises is an OSError; the dashboard may have moved
            self._client = None
            raise ConnectionError(str(error)) from error

    def connected(self) -> Any:
        """Return the `JobSubmissionClient`, which is connected first if it isn't; that blocks up to the deadline.

        Raises:
            TimeoutError: Connecting takes longer than the deadline.
        """
        if self._client is None:
            # In a thread: the address comes from Ray's GCS, which is asked for many minutes while it is away.
            self._client = self._connecting.run(lambda: connect(self._timeout_s), self._timeout_s)
        return self._client


def connect(timeout_s: float, address: str | None = None) -> Any:
    """Return a `JobSubmissionClient` whose HTTP requests have a deadline.

    Args:
        timeout_s: Longest silence of the server within a request.
        address: The server's URL; by default that of the cluster that this process has joined.
    """
    import ray
    import requests
    from ray.job_submission import JobSubmissionClient

    class Client(JobSubmissionClient):  # type: ignore[misc]
        def _do_request(self, method: str, endpoint: str, **options: Any) -> Any:
            # Ray hands further options on to `requests`, and gives no other way to set a timeout. Should it call this
            # otherwise one day, requests have none, as before; a test asks a server that never answers.
            try:
                return super()._do_request(method, endpoint, **{"timeout": timeout_s, **options})
            except requests.Timeout as error:
                raise TimeoutError(f"no answer within {timeout_s:g} s") from error

    return Client(address or ray.get_runtime_context().gcs_address)
