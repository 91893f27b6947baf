"""The calls that the job tracker answers, in words: the actor carries them out, clients hand them on.

A new call takes a method here, one of the same name in `tracker.JobTracker`, and what it does in a store; clients and
tests get it from here.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine
from functools import cache
from typing import Any, Protocol, get_type_hints

from pydantic import TypeAdapter

from sienn_ray.access.api_keys import ApiKeyRecord
from sienn_ray.access.audit import AuditReport
from sienn_ray.access.claims import ClaimGrant, ClaimReport
from sienn_ray.access.principals import ADMIN_OWNER
from sienn_ray.access.quotas import Quotas, QuotaState
from sienn_ray.access.rate_limits import Grant, PermitRequest
from sienn_ray.access.refresh_tokens import RefreshOutcome, RefreshRequest, RefreshTokenRecord
from sienn_ray.access.sessions import SessionRecord
from sienn_ray.access.token_claims import TokenClaims
from sienn_ray.access.token_keys import PublicTokenKey
from sienn_ray.access.usage import UsageBatch, UsageQuery, UsageReport
from sienn_ray.errors import FailureReason
from sienn_ray.jobs.audit_schema import AuditPage, AuditQuery
from sienn_ray.jobs.export_schema import ExportRecord
from sienn_ray.jobs.ids import check_id
from sienn_ray.jobs.news_schema import News, NewsQuery
from sienn_ray.jobs.schema import (
    DatasetRecord,
    JobEvent,
    JobPage,
    JobQuery,
    JobRecord,
    MetricPoint,
    Overview,
    Page,
    TrackerHealth,
)
from sienn_ray.jobs.webhook_schema import DeliveryPage, DeliveryQuery, DeliveryRecord, WebhookChanges, WebhookRecord
from sienn_ray.metrics import MetricBatch, Sample
from sienn_ray.settings import Settings
from sienn_ray.training.reporting import Progress, RunCommand
from sienn_ray.training.summary import RunSummary


class Tracker(Protocol):
    """The job tracker, as its clients see it. Every call may be repeated without harm.

    A call that changes something carries a request id and a deadline, which its client adds: a repeat with the same id
    gets the first answer, and after the deadline nothing is changed any more (`TooLateError`).

    Every method may raise `CapacityError` while the tracker or its database is away. What names a dataset, a job or an
    export by its id raises `NotFoundError` if there is none, unless its description says otherwise.
    """

    # Datasets

    async def add_dataset(self, record: DatasetRecord, storage_url: str = "") -> DatasetRecord:
        """Add a dataset; the answer says in `duplicate_of` if its bytes were there before.

        Args:
            record: What is known of it.
            storage_url: The storage that has its files.

        Raises:
            RedeployedError: The tracker's deployment has another storage, as after a redeploy.
        """
        ...

    async def dataset(self, dataset_id: str) -> DatasetRecord:
        """One dataset."""
        ...

    async def dataset_versions(self, dataset_id: str) -> list[DatasetRecord]:
        """All versions of the dataset that this is a version of, the first one first."""
        ...

    async def datasets(
        self, owner: str | None = None, limit: int | None = None, cursor: str | None = None
    ) -> Page[DatasetRecord]:
        """All datasets, or those of one owner, the newest first; raises `InvalidInputError` for a wrong cursor."""
        ...

    async def delete_dataset(self, dataset_id: str) -> DatasetRecord:
        """Forget a dataset, and have its files deleted; raises `ConflictError` while a job refers to it."""
        ...

    # Jobs, as users see them

    async def add_job(self, record: JobRecord) -> JobRecord:
        """Add a job to the queue, or one that already runs as a Ray job started by hand.

        Returns:
            The job, or the owner's one that came with the same idempotency key before.

        Raises:
            NotFoundError: There is no such dataset.
            ConflictError: The key came with another request.
            TooManyRequestsError: The queue is full, or as many of its owner's jobs wait as may.
            QuotaExceededError: Its owner's storage is full.
        """
        ...

    async def job_of_key(self, idempotency_key: str, owner: str = ADMIN_OWNER) -> JobRecord | None:
        """The job of an owner that came with an idempotency key, if any."""
        ...

    async def job(self, job_id: str) -> JobRecord:
        """One job; one that waits says so with its place in the queue."""
        ...

    async def jobs(self, query: JobQuery) -> JobPage:
        """Jobs, the newest first; raises `InvalidInputError` for a cursor that isn't one."""
        ...

    async def cancel_job(self, job_id: str) -> JobRecord:
        """End a waiting, running or paused job; raises `ConflictError` for one that has ended."""
        ...

    async def retry_job(self, job_id: str) -> JobRecord:
        """Put a failed or cancelled job back into the queue; raises `ConflictError` for others."""
        ...

    async def pause_job(self, job_id: str) -> JobRecord:
        """Pause a waiting or running job; raises `ConflictError` for one that is neither."""
        ...

    async def resume_job(self, job_id: str) -> JobRecord:
        """Have a job go on that is paused, or is being paused; raises `ConflictError` for others."""
        ...

    async def delete_job(self, job_id: str) -> JobRecord:
        """Forget a job and its exports, and have all files deleted; raises `ConflictError` before the job has ended."""
        ...

    async def events(self, job_id: str, after: int, limit: int) -> list[JobEvent]:
        """A job's events with a `seq` above `after`, the oldest first."""
        ...

    async def metric_points(self, job_id: str, max_points: int) -> list[MetricPoint]:
        """A job's curves in order of steps, thinned out evenly to `max_points`."""
        ...

    async def news(self, query: NewsQuery) -> News:
        """Return what happened to jobs behind a place, for all listeners of a replica together."""
        ...

    # Exports

    async def request_export(self, record: ExportRecord) -> ExportRecord:
        """Ask for an export, which may be there already; raises `NotFoundError` and `ConflictError` about its job."""
        ...

    async def redo_export(self, export_id: str, words: str) -> ExportRecord:
        """Have a completed export made again, since its file is gone."""
        ...

    async def export(self, export_id: str) -> ExportRecord:
        """One export."""
        ...

    async def exports(self, job_id: str, limit: int | None = None, cursor: str | None = None) -> Page[ExportRecord]:
        """A job's exports, the newest first; raises `InvalidInputError` for a wrong cursor."""
        ...

    async def cancel_export(self, export_id: str) -> ExportRecord:
        """End an export that waits or runs; raises `ConflictError` for one that has ended."""
        ...

    async def delete_export(self, export_id: str) -> ExportRecord:
        """Forget an export, stop it if it runs, and have its files deleted."""
        ...

    async def signing_key(self) -> bytes:
        """The key that links to downloads are signed with."""
        ...

    # API keys

    async def add_api_key(self, record: ApiKeyRecord) -> ApiKeyRecord:
        """Add a key, of which only the hash is known here."""
        ...

    async def api_key_of_prefix(self, prefix: str) -> ApiKeyRecord | None:
        """Return the key with a prefix, if there is one, valid or not."""
        ...

    async def api_keys(self, limit: int | None = None, cursor: str | None = None) -> Page[ApiKeyRecord]:
        """Return all keys, the newest first; raises `InvalidInputError` for a wrong cursor."""
        ...

    async def rotate_api_key(self, key_id: str, successor: ApiKeyRecord, grace_s: float) -> ApiKeyRecord:
        """Give a key a successor with its name, owner and scopes; it ends itself after a grace period.

        Raises:
            ConflictError: It has ended already.
        """
        ...

    async def revoke_api_key(self, key_id: str) -> ApiKeyRecord:
        """End a key at once and for good."""
        ...

    # Access tokens and sessions

    async def token_keys(self) -> list[PublicTokenKey]:
        """Return the public keys that valid access tokens may be signed with, the newest first."""
        ...

    async def sign_token(self, claims: TokenClaims) -> str:
        """Return an access token, which nobody keeps; the key is made at the first call, and when it is too old."""
        ...

    async def rotate_token_keys(self) -> PublicTokenKey:
        """Make a new key, which signs from now on; what the ones before have signed stays valid until it expires."""
        ...

    async def add_refresh_token(self, record: RefreshTokenRecord) -> None:
        """Add a refresh token, of which only the hash is known here."""
        ...

    async def exchange_refresh_token(self, request: RefreshRequest) -> RefreshOutcome:
        """Exchange a refresh token for its successor; one that comes again ends with its kin, as the answer says.

        Raises:
            TokenRequestError: It isn't exchanged for another reason, and nothing has changed.
        """
        ...

    async def add_session(self, record: SessionRecord) -> None:
        """Add a session of a browser, of whose cookie only the hash is known here."""
        ...

    async def session_of_hash(self, sha256: str) -> SessionRecord | None:
        """Return the session of a cookie, if there is one, valid or not."""
        ...

    async def touch_session(self, sha256: str) -> None:
        """Note that a session has just been used."""
        ...

    async def end_session(self, sha256: str) -> None:
        """End a session for good, if there is one."""
        ...

    async def end_sessions(self, owner: str) -> int:
        """End all sessions of an owner for good, and return how many."""
        ...

    # Webhooks

    async def add_webhook(self, record: WebhookRecord, secret: str) -> WebhookRecord:
        """Add a webhook; raises `ConflictError` where its owner has as many as may be.

        Args:
            record: What is known of it.
            secret: What its deliveries are signed with; no answer has it.
        """
        ...

    async def webhooks(self, owner: str | None = None) -> list[WebhookRecord]:
        """All webhooks, or those of one owner, the newest first."""
        ...

    async def webhook(self, webhook_id: str) -> WebhookRecord:
        """One webhook."""
        ...

    async def change_webhook(self, webhook_id: str, changes: WebhookChanges) -> WebhookRecord:
        """Change a webhook's fields; what waits for one that is deactivated is given up."""
        ...

    async def rotate_webhook_secret(self, webhook_id: str, secret: str, grace_s: float) -> WebhookRecord:
        """Give a webhook another secret; its deliveries are signed with both until a grace period is over."""
        ...

    async def delete_webhook(self, webhook_id: str) -> WebhookRecord:
        """Forget a webhook and its deliveries."""
        ...

    async def webhook_deliveries(self, webhook_id: str, query: DeliveryQuery) -> DeliveryPage:
        """Return deliveries, the newest first; raises `InvalidInputError` for a cursor that isn't one."""
        ...

    async def redeliver(self, webhook_id: str, delivery_id: str) -> DeliveryRecord:
        """Have something be delivered once more; raises `ConflictError` where the webhook isn't active."""
        ...

    async def ping_webhook(self, webhook_id: str) -> DeliveryRecord:
        """Have a receiver be told that it is one; raises `ConflictError` where the webhook isn't active."""
        ...

    # Limits

    async def quota_state(self, owner: str) -> QuotaState:
        """Return the quotas of an owner, and what is used of them."""
        ...

    async def set_owner_quotas(self, owner: str, quotas: Quotas) -> QuotaState:
        """Give an owner bounds of its own, in place of all that it had."""
        ...

    async def settle_permits(self, holder: str, request: PermitRequest) -> Grant:
        """Count requests of a client, and grant a replica permits for others."""
        ...

    async def settle_claims(self, report: ClaimReport) -> ClaimGrant | None:
        """Take a replica's report on the claims that it holds, and decide on the one that it wants, if any."""
        ...

    # The audit log

    async def audit_entries(self, query: AuditQuery) -> AuditPage:
        """Return entries, the newest first; raises `InvalidInputError` for a cursor that isn't one."""
        ...

    async def add_audit_reports(self, reports: tuple[AuditReport, ...]) -> None:
        """Write down what replicas have seen of requests; what was reported before is left as it is."""
        ...

    # Numbers

    async def overview(self, owner: str | None = None) -> Overview:
        """Numbers over all jobs and datasets, or those of one owner."""
        ...

    async def add_metrics(self, batch: MetricBatch) -> None:
        """Add up what a process has counted."""
        ...

    async def add_usage(self, batch: UsageBatch) -> None:
        """Add up what a process's callers have used."""
        ...

    async def usage(self, query: UsageQuery) -> UsageReport:
        """Return a page of a report on usage."""
        ...

    async def metric_samples(self) -> list[Sample]:
        """All metrics, those about jobs included."""
        ...

    async def health(self) -> TrackerHealth:
        """Return the health of the tracker and its database. Callers who can't wait long set a timeout of their own."""
        ...

    # Runs of jobs and exports, as their programs report them

    async def settings(self) -> Settings:
        """Settings that a training program must know, so that one started by hand uses the same storage."""
        ...

    async def report(self, job_id: str, attempt: int, progress: Progress) -> RunCommand:
        """Take a running job's progress; what comes from an attempt that the job doesn't await is dropped.

        Returns:
            The command for the run: STOP where the job is gone, has ended or goes on with another attempt.
        """
        ...

    async def pause(self, job_id: str, attempt: int) -> None:
        """Note that a run has ended at a checkpoint, since its job was to be paused.

        Raises:
            FencedError: The job is gone, or doesn't await this attempt.
        """
        ...

    async def complete(self, job_id: str, attempt: int, summary: RunSummary) -> None:
        """Note that a job's adapter is published; raises `FencedError` as `pause` does."""
        ...

    async def fail(self, job_id: str, attempt: int, reason: FailureReason, message: str) -> None:
        """Note that a job ended without an adapter, and why; raises `FencedError` as `pause` does."""
        ...

    async def report_export(self, export_id: str, attempt: int, progress: int, message: str) -> bool:
        """Take the progress of a running export; returns whether it is to go on."""
        ...


METHODS: dict[str, inspect.Signature] = {
    name: inspect.signature(member) for name, member in vars(Tracker).items() if inspect.iscoroutinefunction(member)
}
# Calls that change nothing. `signing_key` makes the key at its first call, and gives it at each; `sign_token` makes one
# where it has to, and its answer must be kept nowhere.
READING = frozenset(
    {
        "dataset",
        "dataset_versions",
        "datasets",
        "job_of_key",
        "job",
        "jobs",
        "events",
        "metric_points",
        "news",
        "export",
        "exports",
        "signing_key",
        "api_key_of_prefix",
        "api_keys",
        "token_keys",
        "sign_token",
        "session_of_hash",
        "webhooks",
        "webhook",
        "webhook_deliveries",
        "audit_entries",
        "quota_state",
        # Counts in memory only.
        "settle_permits",
        "settle_claims",
        "overview",
        "usage",
        "metric_samples",
        "health",
        "settings",
    }
)
# Changes that no user asks for: what programs report, and replicas. All others are written into the audit log.
NOT_AUDITED = frozenset(
    {
        "report",
        "pause",
        "complete",
        "fail",
        "report_export",
        "add_metrics",
        "add_usage",
        "add_audit_reports",
        "touch_session",
    }
)
AUDITED = METHODS.keys() - READING - NOT_AUDITED
# Ids among the arguments, by their names.
_KINDS_OF_ID = {
    "dataset_id": "Dataset",
    "job_id": "Job",
    "export_id": "Export",
    "key_id": "Key",
    "webhook_id": "Webhook",
    "delivery_id": "Delivery",
}


def check_arguments(method: str, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
    """Put a call's arguments in order, and check those that are ids.

    Returns:
        All of them by position.

    Raises:
        NotFoundError: One can't be an id; nobody needs to be asked.
        TypeError: The method takes other arguments.
    """
    bound = METHODS[method].bind(None, *args, **kwargs)
    for name, kind in _KINDS_OF_ID.items():
        if name in bound.arguments:
            check_id(kind, bound.arguments[name])
    return bound.args[1:]


def ids_among(method: str, args: tuple[Any, ...]) -> list[tuple[str, str]]:
    """Return kind and text of each id among a call's arguments, which are all by position."""
    names = list(METHODS[method].parameters)[1:]
    return [(_KINDS_OF_ID[name], value) for name, value in zip(names, args, strict=False) if name in _KINDS_OF_ID]


def audited_target(method: str, args: tuple[Any, ...], answer: Any) -> tuple[str | None, str | None]:
    """Return kind and id of what a change was about: what it names, or what it has made."""
    if ids := ids_among(method, args):
        kind, text = ids[-1]
        return kind.lower(), text
    made = getattr(answer, "id", None)
    if made is None:
        named = dict(zip(list(METHODS[method].parameters)[1:], args, strict=False))
        return ("owner", named["owner"]) if "owner" in named else (None, None)
    # DatasetRecord, JobRecord, ApiKeyRecord and the like.
    return type(answer).__name__.removesuffix("Record").removeprefix("Api").lower(), str(made)


@cache
def answer_type(method: str) -> TypeAdapter[Any]:
    """The type of a call's answer, which it is written to JSON by."""
    return TypeAdapter(get_type_hints(getattr(Tracker, method))["return"])


class TrackerCalls:
    """Base of clients: has the methods of `Tracker`, each of which checks its arguments and calls `send`."""

    async def send(self, method: str, *args: Any) -> Any:
        """Have the tracker carry out a call.

        Args:
            method: A name among `METHODS`.
            args: Its arguments, all by position.
        """
        raise NotImplementedError

    def __getattr__(self, name: str) -> Callable[..., Coroutine[Any, Any, Any]]:
        if name not in METHODS:
            raise AttributeError(f"{type(self).__name__} has no attribute '{name}', and neither has Tracker")

        async def call(*args: Any, **kwargs: Any) -> Any:
            return await self.send(name, *check_arguments(name, *args, **kwargs))

        return call
