"""The tracker's calls are described once: the actor answers all of them, and nothing else."""

from __future__ import annotations

import asyncio
import inspect
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from sienn_ray.access.claims import ClaimReport
from sienn_ray.access.rate_limits import PermitRequest
from sienn_ray.access.token_claims import TokenClaims
from sienn_ray.access.usage import UsageQuery
from sienn_ray.errors import ConflictError, NotFoundError, TooLateError
from sienn_ray.jobs.audit_schema import AuditQuery
from sienn_ray.jobs.change_requests import ChangeRequest, repeating
from sienn_ray.jobs.news_schema import NewsCursor, NewsQuery
from sienn_ray.jobs.schema import JobQuery, JobRecord, JobStatus
from sienn_ray.jobs.tracker import JobTracker
from sienn_ray.jobs.tracker_protocol import METHODS, READING, Tracker, TrackerCalls, check_arguments
from sienn_ray.jobs.webhook_schema import DeliveryQuery
from sienn_ray.settings import Settings
from tests.support.fakes_exports import export_record
from tests.support.fakes_jobs import job_record
from tests.support.fakes_webhooks import SECRET, webhook_record
from tests.support.in_process_tracker import InProcessTracker
from tests.unit.jobs.test_ids import STRANGE

# What only the process calls that starts the actor, or one that runs it without Ray.
OF_WHO_STARTS_IT = {"close", "stand"}
# How clients send calls that change something.
OF_CLIENTS = {"carry_out"}


def faults(actor: type) -> list[str]:
    """How the public methods of an actor differ from the calls that `Tracker` describes."""
    public = {name: member for name, member in inspect.getmembers(actor, inspect.isfunction) if name[0] != "_"}
    undescribed = [
        f"{name} is in no word of Tracker" for name in public if name not in {*METHODS, *OF_WHO_STARTS_IT, *OF_CLIENTS}
    ]
    missing = [f"{name} is missing" for name in METHODS if name not in public]
    differing = [
        f"{name} takes or gives something else than Tracker says"
        for name in METHODS
        if name in public and signature(public[name]) != signature(getattr(Tracker, name))
    ]
    return undescribed + missing + differing


def signature(method: Any) -> inspect.Signature:
    return inspect.signature(method, eval_str=True)


def test_the_actor_answers_the_calls_as_they_are_described() -> None:
    assert faults(JobTracker) == []
    assert len(METHODS) > 30


@pytest.mark.parametrize("name", METHODS)
def test_every_call_is_described_in_words(name: str) -> None:
    assert getattr(Tracker, name).__doc__


class OneMore(JobTracker):
    def vacuum(self) -> None: ...


class OtherArguments(JobTracker):
    def job(self, job_id: str, attempt: int) -> JobRecord:  # type: ignore[override]
        raise NotImplementedError


class OtherName(JobTracker):
    def job(self, job: str) -> JobRecord:
        raise NotImplementedError


class OtherAnswer(JobTracker):
    def job(self, job_id: str) -> JobRecord | None: ...  # type: ignore[override]


class OneLess:
    """All but the first."""


for name in list(METHODS)[1:]:
    setattr(OneLess, name, getattr(JobTracker, name))


@pytest.mark.parametrize(
    ("actor", "fault"),
    [
        (OneMore, "vacuum is in no word of Tracker"),
        (OneLess, "add_dataset is missing"),
        (OtherArguments, "job takes or gives something else than Tracker says"),
        (OtherName, "job takes or gives something else than Tracker says"),
        (OtherAnswer, "job takes or gives something else than Tracker says"),
    ],
)
def test_the_check_itself(actor: type, fault: str) -> None:
    assert faults(actor) == [fault]


class Sent(TrackerCalls):
    """Answers with what is sent."""

    async def send(self, method: str, *args: Any) -> Any:
        return method, args


def test_calls_are_sent_with_their_arguments_in_order() -> None:
    client = Sent()
    assert asyncio.run(client.events("job-1", limit=10, after=3)) == ("events", ("job-1", 3, 10))
    assert asyncio.run(client.datasets()) == ("datasets", ())


def test_other_arguments_are_refused_before_anything_is_sent() -> None:
    with pytest.raises(TypeError, match="missing a required argument: 'limit'"):
        check_arguments("events", "job-1", 3)


@pytest.mark.parametrize("name", ["vacuum", "stand", "close", "__len__", "_send"])
def test_what_is_no_call_is_no_attribute(name: str) -> None:
    with pytest.raises(AttributeError, match=f"'{name}', and neither has Tracker"):
        getattr(Sent(), name)


def test_every_id_is_checked() -> None:
    with_ids = {
        name: next(parameter for parameter in described.parameters if parameter.endswith("_id"))
        for name, described in METHODS.items()
        if any(parameter.endswith("_id") for parameter in described.parameters)
    }
    assert len(with_ids) > 15
    for name, parameter in with_ids.items():
        others = dict.fromkeys(list(METHODS[name].parameters)[1:], 1)
        for text in STRANGE:
            with pytest.raises(NotFoundError, match=f"^{parameter.removesuffix('_id').capitalize()} .* not found"):
                check_arguments(name, **{**others, parameter: text})


# Calls that change something


def test_calls_that_read_change_nothing(tmp_path: Path) -> None:
    """All others carry a request id and a deadline."""
    settings = Settings(env="test", home=tmp_path, job_poll_s=3600)
    tracker = InProcessTracker(settings)
    tracker.put(job_record())
    tracker.put_export(export_record())
    claims = TokenClaims("https://sienn.example.org", "prefix", frozenset(), 0, 60, "token-1")
    asyncio.run(tracker.signing_key())
    asyncio.run(tracker.sign_token(claims))
    tracker.actor.add_webhook(webhook_record(), SECRET)
    arguments = {
        "dataset_id": "dataset-1",
        "job_id": "job-1",
        "export_id": export_record().id,
        "idempotency_key": "key",
        "owner": "admin",
        "prefix": "none",
        "holder": "one",
        "claims": claims,
        "sha256": "none",
        "request": PermitRequest("address", "1/minute"),
        "report": ClaimReport(),
        "after": 0,
        "limit": 1,
        "cursor": None,
        "max_points": 1,
        "webhook_id": "hook-1",
    }
    queries = {
        "news": NewsQuery(NewsCursor(), ("job-1",)),
        "webhook_deliveries": DeliveryQuery(),
        "audit_entries": AuditQuery(),
        "usage": UsageQuery(),
    }

    def refuse_changes(_: sa.Connection, cursor: object, statement: str, *__: object) -> None:
        assert cursor
        assert statement.split()[0] in {"SELECT", "BEGIN"} or statement.startswith("PRAGMA")

    engine = tracker.actor._store.database._engine
    sa.event.listen(engine, "before_cursor_execute", refuse_changes)
    for name in READING:
        given = {**arguments, "query": queries.get(name, JobQuery())}
        getattr(tracker.actor, name)(*(given[each] for each in list(METHODS[name].parameters)[1:]))
    with pytest.raises(AssertionError):
        tracker.actor.cancel_job("job-1")


def test_repeat_gets_the_first_answer(tmp_path: Path) -> None:
    """As Ray repeats a call that was under way when the actor was lost, and as a client may."""
    tracker = InProcessTracker(Settings(env="test", home=tmp_path))
    tracker.put(job_record("job-1", status=JobStatus.FAILED, attempt=1))

    async def repeat() -> None:
        request = ChangeRequest.within(30.0)
        with repeating(request):
            for method in (tracker.retry_job, tracker.pause_job, tracker.resume_job, tracker.cancel_job):
                assert await method("job-1") == await method("job-1")
        await tracker.retry_job("job-1")
        with pytest.raises(ConflictError):
            await tracker.retry_job("job-1")

    asyncio.run(repeat())


def test_change_that_is_asked_for_too_late_is_not_made(tmp_path: Path) -> None:
    tracker = InProcessTracker(Settings(env="test", home=tmp_path))
    tracker.put(job_record())

    async def cancel_late() -> None:
        with repeating(ChangeRequest.within(-0.001)), pytest.raises(TooLateError):
            await tracker.cancel_job("job-1")
        assert (await tracker.job("job-1")).status is JobStatus.PENDING

    asyncio.run(cancel_late())
