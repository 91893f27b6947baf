"""The backends of the API: protocols at the costly edges, and the dependency that gives them to routes."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Protocol, cast

from fastapi import Depends
from fastapi.requests import HTTPConnection

from sienn_ray.access.usage import UsageRecorder
from sienn_ray.api.access.admissions import Admission
from sienn_ray.api.access.caller_engines import CallerEngines
from sienn_ray.api.access.callers import ADMISSION, principal_of
from sienn_ray.api.access.owned_tracker import OwnedTracker
from sienn_ray.api.cluster import Cluster
from sienn_ray.datasets.rendered_schema import RenderedPage, RenderingRequest
from sienn_ray.datasets.statistics_schema import DatasetStatistics, StatisticsRequest
from sienn_ray.inference.engine import GenerationDelta, GenerationRequest, GenerationResult
from sienn_ray.jobs.tracker_protocol import Tracker
from sienn_ray.metrics import Recorder
from sienn_ray.outbound.resolver import Resolver, SystemResolver
from sienn_ray.settings import Settings
from sienn_ray.storage import Storage
from sienn_ray.template_check.check import TryTemplate, render_in_process


class Engines(Protocol):
    """The engines of all base models."""

    async def generate(
        self, base_model: str, request: GenerationRequest, start_wait_s: float | None = None
    ) -> GenerationResult:
        """Answer one request; a caller that is cancelled ends it.

        Args:
            base_model: Hub id.
            request: What to generate.
            start_wait_s: How long to wait where the engine has to be started first; None is as long as settings allow.

        Raises:
            SiennError: Why there is no answer.
        """
        ...

    def stream(
        self, base_model: str, request: GenerationRequest, start_wait_s: float | None = None
    ) -> AsyncGenerator[GenerationDelta]:
        """Answer one request piece by piece, as `generate`; closing the generator ends it.

        What fails before the first piece is raised, what fails later is the last one's error.

        Raises:
            SiennError: Why there is no answer.
        """
        ...


class JobLogs(Protocol):
    """The logs of training programs."""

    def stream(self, submission_id: str, *, tail: int | None, follow: bool) -> AsyncGenerator[bytes]:
        """The last lines of a Ray job's log; the first item comes, maybe empty, once it is known that there is one.

        Args:
            submission_id: The Ray job's submission id.
            tail: Lines at the most of what is there; None is all of them.
            follow: Go on with what comes until the Ray job has ended.

        Raises:
            NotFoundError: The cluster doesn't have this log.
            CapacityError: Ray didn't answer in time.
        """
        ...


class Statistics(Protocol):
    """Computes the statistics of datasets, on the cluster."""

    async def compute(self, request: StatisticsRequest) -> DatasetStatistics:
        """Compute them and keep them in storage under the request's key, however long it takes.

        Raises:
            SiennError: Why it couldn't be done.
        """
        ...


class Renderings(Protocol):
    """Renders rows of datasets as the model reads them, on the cluster."""

    async def render(self, request: RenderingRequest) -> RenderedPage:
        """Render some rows; a caller that is cancelled ends it.

        Raises:
            SiennError: Why it couldn't be done.
        """
        ...


async def _admit_all(_: Sequence[GenerationRequest]) -> None:
    """Let everything through, where nobody has limits."""


@dataclass(frozen=True)
class Backends:
    """Everything behind the API.

    `try_template` tries a chat template with a dataset's rows. `admit` takes what a key's limits have for several
    answers before the first of them is asked for, so that all of them are given or none; what isn't admitted is when it
    comes to the engines.
    """

    settings: Settings
    tracker: Tracker
    engines: Engines
    storage: Storage
    job_logs: JobLogs
    cluster: Cluster
    statistics: Statistics
    renderings: Renderings
    recorder: Recorder = field(default_factory=Recorder)
    resolver: Resolver = field(default_factory=SystemResolver)
    usage: UsageRecorder = field(default_factory=UsageRecorder)
    try_template: TryTemplate = render_in_process
    admit: Callable[[Sequence[GenerationRequest]], Awaitable[None]] = _admit_all


def _all_backends(connection: HTTPConnection) -> Backends:
    return cast(Backends, connection.app.state.backends)


def _backends(connection: HTTPConnection) -> Backends:
    backends, principal = _all_backends(connection), principal_of(connection.scope)
    admission: Admission | None = connection.scope["state"].get(ADMISSION)
    engines = CallerEngines(backends.engines, principal, backends.usage, admission)
    if principal.is_admin:
        return replace(backends, engines=engines, admit=engines.admit)
    tracker = cast(Tracker, OwnedTracker(backends.tracker, principal.owner))
    return replace(backends, engines=engines, admit=engines.admit, tracker=tracker)


# Backends that show what the caller owns, and count what it uses. An admin sees all.
BackendsDep = Annotated[Backends, Depends(_backends)]
# For routes that don't ask who somebody is.
AllBackendsDep = Annotated[Backends, Depends(_all_backends)]
