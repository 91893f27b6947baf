"""The tracker as one owner sees it: what others own isn't there."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sienn_ray.access.audit_trail import note_hidden
from sienn_ray.errors import ForbiddenError, NotFoundError
from sienn_ray.jobs.ids import not_found
from sienn_ray.jobs.schema import JobPriority
from sienn_ray.jobs.tracker_protocol import Tracker, TrackerCalls, ids_among

# Calls for users without an id among their arguments, beside `job_of_key`.
_LISTS = frozenset({"datasets", "overview", "webhooks", "quota_state"})
_QUERIES = frozenset({"jobs", "usage"})
_WITH_RECORDS = frozenset({"add_dataset", "add_job", "request_export", "add_webhook"})
# Calls that give the record of an id, which says itself whose it is.
_RECORDS = {"dataset": "Dataset", "job": "Job", "export": "Export", "webhook": "Webhook"}
# What is looked for within what the same call names before it, and is the same owner's.
_PARTS = frozenset({"Delivery"})
# Calls that no user makes: those of programs, of the service itself, and of admins.
NOT_FOR_OWNERS = frozenset(
    {
        "signing_key",
        "add_api_key",
        "api_key_of_prefix",
        "api_keys",
        "rotate_api_key",
        "revoke_api_key",
        "token_keys",
        "sign_token",
        "rotate_token_keys",
        "add_refresh_token",
        "exchange_refresh_token",
        "add_session",
        "session_of_hash",
        "touch_session",
        "end_session",
        "end_sessions",
        "settle_permits",
        "audit_entries",
        "add_audit_reports",
        "set_owner_quotas",
        "settle_claims",
        # Listeners get their share of what a replica asks for all of them.
        "news",
        "add_metrics",
        "add_usage",
        "metric_samples",
        "health",
        "settings",
        "report",
        "pause",
        "complete",
        "fail",
        "report_export",
    }
)


class OwnedTracker(TrackerCalls):
    """Answers for one owner.

    An id of somebody else's is answered as one that isn't there; lists and numbers have what is the owner's, and what
    is added becomes the owner's. An owner never changes, so what was looked at before a change still holds after it.

    Args:
        tracker: Knows everything.
        owner: Who asks.
    """

    def __init__(self, tracker: Tracker, owner: str) -> None:
        self._tracker = tracker
        self._owner = owner

    async def send(self, method: str, *args: Any) -> Any:
        """See `TrackerCalls.send`.

        Raises:
            NotFoundError: An id isn't there, or is somebody else's.
            ForbiddenError: What is asked for is for admins.
            PermissionError: The call isn't for users.
        """
        if method in NOT_FOR_OWNERS:
            raise PermissionError(f"Tracker.{method} isn't for users")
        if kind := _RECORDS.get(method):
            return await self._record_of(kind, args[0])
        for kind, text in ids_among(method, args):
            if kind not in _PARTS:
                await self._record_of(kind, text)
        return await getattr(self._tracker, method)(*await self._of_owner(method, args))

    async def _of_owner(self, method: str, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """The arguments, made to ask for what is the owner's."""
        if method in _LISTS:
            return (self._owner, *args[1:])
        if method in _QUERIES:
            return (replace(args[0], owner=self._owner),)
        if method == "job_of_key":
            return (args[0], self._owner)
        if method in _WITH_RECORDS:
            return (await self._record(method, args[0]), *args[1:])
        return args

    async def _record(self, method: str, record: Any) -> Any:
        if method == "request_export":
            await self._record_of("Job", record.job_id)
            return record
        if method == "add_job":
            if record.priority >= JobPriority.URGENT:
                raise ForbiddenError(
                    "priority 'urgent' goes ahead of all owners' jobs and is for admins; 'high' goes ahead of your own"
                )
            for dataset_id in record.dataset_ids:
                await self._record_of("Dataset", dataset_id)
            if record.from_job is not None:
                await self._record_of("Job", record.from_job)
        return record.model_copy(update={"owner": self._owner})

    async def _record_of(self, kind: str, text: str) -> Any:
        """The record of an id that is the owner's."""
        record, owner = await self._found(kind, text)
        if owner != self._owner:
            note_hidden(kind, text)
            raise not_found(kind, text)
        return record

    async def _found(self, kind: str, text: str) -> tuple[Any, str]:
        """A record, and whose it is."""
        if kind == "Dataset":
            dataset = await self._tracker.dataset(text)
            return dataset, dataset.owner
        if kind == "Job":
            job = await self._tracker.job(text)
            return job, job.owner
        if kind == "Webhook":
            webhook = await self._tracker.webhook(text)
            return webhook, webhook.owner
        export = await self._tracker.export(text)
        try:
            return export, (await self._tracker.job(export.job_id)).owner
        except NotFoundError:  # it goes with its job
            raise not_found(kind, text) from None
