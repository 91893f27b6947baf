"""The JobTracker actor: the only writer of the job database.

It keeps no truth in memory. Kill it, and Ray starts it again (`max_restarts=-1`); it then reads the database and finds
the running Ray jobs by their submission ids.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, Unpack

from sienn_ray import metrics
from sienn_ray.access.api_keys import ApiKeyRecord
from sienn_ray.access.audit import AuditOrigin, AuditReport
from sienn_ray.access.claims import ClaimGrant, ClaimLimiter, ClaimReport
from sienn_ray.access.principals import ADMIN_OWNER
from sienn_ray.access.quotas import Quotas, QuotaState, statistics_bucket
from sienn_ray.access.rate_limits import Grant, PermitRequest, RateLimiter
from sienn_ray.access.refresh_tokens import RefreshOutcome, RefreshRequest, RefreshTokenRecord
from sienn_ray.access.sessions import SessionRecord
from sienn_ray.access.token_claims import TokenClaims
from sienn_ray.access.token_keys import PublicTokenKey
from sienn_ray.access.usage import UsageBatch, UsageQuery, UsageReport
from sienn_ray.errors import CapacityError, FailureReason, FencedError, NotFoundError, RedeployedError
from sienn_ray.jobs.audit_schema import AuditPage, AuditQuery
from sienn_ray.jobs.change_requests import ChangeRequest
from sienn_ray.jobs.deployment import Deployment, Standing
from sienn_ray.jobs.export_schema import ExportRecord
from sienn_ray.jobs.news_schema import News, NewsQuery
from sienn_ray.jobs.schema import (
    DatasetRecord,
    Heartbeat,
    JobEvent,
    JobPage,
    JobPhase,
    JobQuery,
    JobRecord,
    JobStatus,
    MetricPoint,
    Overview,
    Page,
    TrackerHealth,
    utc_now,
)
from sienn_ray.jobs.store.database import words_of
from sienn_ray.jobs.store.job_changes import JobChanges
from sienn_ray.jobs.store.store import Store
from sienn_ray.jobs.supervision.audit_keeper import AuditKeeper
from sienn_ray.jobs.supervision.deleter import Deleter
from sienn_ray.jobs.supervision.export_memory import memory_need_bytes
from sienn_ray.jobs.supervision.export_runs import ExportRuns, RayExportRuns
from sienn_ray.jobs.supervision.export_supervisor import ExportSupervisor
from sienn_ray.jobs.supervision.job_supervisor import Supervisor
from sienn_ray.jobs.supervision.log_keeper import LogKeeper
from sienn_ray.jobs.supervision.ray_jobs import RayJobApi, RayJobs
from sienn_ray.jobs.supervision.ray_logs import RayLogApi, RayLogs
from sienn_ray.jobs.supervision.storage_sweep import StorageSweep
from sienn_ray.jobs.supervision.threads import Supervise, Supervised, Supervision
from sienn_ray.jobs.supervision.webhook_deliverer import WebhookDeliverer, delivery_rules
from sienn_ray.jobs.tracker_protocol import AUDITED, answer_type, audited_target
from sienn_ray.jobs.webhook_schema import DeliveryPage, DeliveryQuery, DeliveryRecord, WebhookChanges, WebhookRecord
from sienn_ray.metrics import MetricBatch, Sample
from sienn_ray.outbound.client import OutboundClient
from sienn_ray.ray_metrics import mirror_samples
from sienn_ray.settings import Settings
from sienn_ray.storage import Storage
from sienn_ray.training.reporting import Progress, RunCommand, RunProgress
from sienn_ray.training.summary import RunSummary
from sienn_ray.training.unfinished import has_checkpoints

logger = logging.getLogger(__name__)

_LOG_TRANSFER_TIMEOUT_S = 60
# Of a step that lists and deletes what is in storage, or copies logs there; a large bucket takes its time.
_LONGEST_TRANSFERS_S = 3600.0


class JobTracker:
    """State of datasets, jobs and exports. Runs as a threaded actor.

    It answers the calls of `tracker_protocol.Tracker`, under the same names and described there.

    Args:
        settings: Where the database is and how many jobs may run.
        ray_jobs: Ray's job API; by default that of the cluster this process has joined.
        mirror: Takes all metrics every few seconds; by default they go to Ray's own endpoint.
        export_runs: Runs of exports; by default tasks of that cluster.
        ray_logs: Logs of Ray's jobs; by default those of that cluster.
        supervise: Begins to look after jobs, and after exports; by default in threads.
        deployed_at: When the deployment was asked for that it is started by.
    """

    def __init__(
        self,
        settings: Settings,
        ray_jobs: RayJobs | None = None,
        mirror: Callable[[list[Sample]], None] = mirror_samples,
        export_runs: ExportRuns | None = None,
        ray_logs: RayLogs | None = None,
        supervise: Supervise = Supervision,
        deployed_at: float = 0.0,
    ) -> None:
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
        self._settings = settings
        self._deployment = Deployment(settings, deployed_at)
        self._started_at = utc_now()
        secret = settings.token_key_secret
        self._store = Store(
            settings.database_url.get_secret_value(),
            export_lifetime_s=settings.export_lifetime_s,
            token_key_lifetime_s=settings.token_key_lifetime_s,
            token_key_secret=secret.get_secret_value() if secret else None,
            quotas=settings.quotas,
            usage_retention_days=settings.usage_retention_days,
        )
        self._rate_limiter = RateLimiter()
        self._claims = ClaimLimiter()
        self._mirror = mirror
        self._mirrored_at = float("-inf")
        # Empty until all run: the first step of the one may end before the other has begun.
        self._supervisions: tuple[Supervised, ...] = ()
        supervisor = Supervisor(
            self._store.jobs,
            ray_jobs or RayJobApi(),
            max_running=settings.max_running_jobs,
            max_attempts=settings.max_attempts,
            pause_timeout_s=settings.pause_timeout_s,
            silence_timeout_s=settings.run_silence_timeout_s,
            start_timeout_s=settings.training_start_timeout_s,
        )
        self._supervision = supervise(supervisor, settings.job_poll_s, self._mirror_metrics)
        self._storage = storage = Storage(settings.storage_url)
        runs = export_runs or RayExportRuns(settings)
        exporter = ExportSupervisor(
            self._store.exports,
            runs,
            need_bytes=self._export_need_bytes,
            max_running=settings.max_running_exports,
            max_attempts=settings.max_attempts,
            silence_timeout_s=settings.export_silence_timeout_s,
        )
        self._export_supervision = supervise(exporter, settings.job_poll_s, what="exports")
        # Apart from the others: a store that hangs must hold up neither jobs nor exports.
        deleter = Deleter(self._store.deletions, storage, runs.active)
        self._deletion_supervision = supervise(
            deleter, settings.job_poll_s, what="deletions", longest_step_s=_LONGEST_TRANSFERS_S
        )
        log_keeper = LogKeeper(
            self._store.attempt_logs,
            ray_logs or RayLogApi(transfer_timeout_s=_LOG_TRANSFER_TIMEOUT_S),
            storage,
            max_bytes=settings.attempt_log_max_bytes,
        )
        logs = supervise(log_keeper, settings.job_poll_s, what="logs", longest_step_s=_LONGEST_TRANSFERS_S)
        sweep = StorageSweep(
            self._store.sweep,
            storage,
            leftover_age_s=settings.leftover_age_s,
            checkpoint_lifetime_s=settings.checkpoint_lifetime_s,
        )
        leftovers = supervise(sweep, settings.job_poll_s, what="leftovers", longest_step_s=_LONGEST_TRANSFERS_S)
        self._deliverer = WebhookDeliverer(
            self._store.webhook_deliveries, OutboundClient(settings.webhook_rules), delivery_rules(settings)
        )
        self._webhook_supervision = supervise(self._deliverer, settings.job_poll_s, what="webhooks")
        looked_after = (self._supervision, self._export_supervision, self._deletion_supervision)
        keeper = AuditKeeper(
            self._store.audit,
            is_auth_on=settings.is_auth_on,
            lifetime_s=settings.audit_lifetime_s,
            max_rows=settings.audit_max_rows,
        )
        audit = supervise(keeper, settings.job_poll_s, what="audit log")
        self._supervisions = (*looked_after, logs, leftovers, self._webhook_supervision, audit)

    def _mirror_metrics(self) -> None:
        if time.monotonic() - self._mirrored_at >= self._settings.metrics_flush_s:
            self._mirror(self.metric_samples())
            self._mirrored_at = time.monotonic()

    def _export_need_bytes(self, record: ExportRecord) -> int:
        try:
            revision = self._store.jobs.get(record.job_id).config.base_model_revision
        except NotFoundError:  # deleted meanwhile; its run will see
            revision = None
        return memory_need_bytes(record.base_model, record.options, self._settings, revision)

    def close(self) -> None:
        """Stop looking after jobs, exports and deletions, and let go of the database."""
        for supervision in self._supervisions:
            supervision.close()
        self._deliverer.join()
        self._store.close()

    def stand(self, deployment: Deployment) -> Standing:
        """Return how this tracker stands to a deployment whose replica starts; it serves that from now on if it may."""
        standing = self._deployment.standing_for(deployment)
        if standing is Standing.SAME and deployment.deployed_at > self._deployment.deployed_at:
            self._deployment = deployment
        return standing

    def settings(self) -> Settings:
        return self._settings.without_secrets()

    def carry_out(self, request: ChangeRequest, method: str, args: tuple[Any, ...]) -> Any:
        """Carry out a call of `Tracker` that changes something: once, however often it comes, and in time or not.

        Args:
            request: Its id and its deadline.
            method: Its name.
            args: Its arguments.
        """
        change = partial(getattr(self, method), *args)
        if method in AUDITED:
            change = partial(self._audited, change, request.origin or AuditOrigin(action=method), method, args)
        return self._store.requests.once(request, method, answer_type(method), change)

    def _audited(self, change: Callable[[], Any], origin: AuditOrigin, method: str, args: tuple[Any, ...]) -> Any:
        """Make a change, and write down who has asked for it, in one transaction."""
        answer = change()
        if isinstance(answer, RefreshOutcome):  # it shows who has asked
            origin = answer.told_by(origin)
        self._store.audit.note(origin, *audited_target(method, args, answer))
        return answer

    def audit_entries(self, query: AuditQuery) -> AuditPage:
        return self._store.audit.page(query)

    def add_audit_reports(self, reports: tuple[AuditReport, ...]) -> None:
        self._store.audit.add(reports)

    def _wake_jobs(self) -> None:
        self._store.database.after_commit(self._supervision.wake)

    def _wake_exports(self) -> None:
        self._store.database.after_commit(self._export_supervision.wake)

    def _wake_webhooks(self) -> None:
        self._store.database.after_commit(self._webhook_supervision.wake)

    def _wake_deletions(self) -> None:
        self._store.database.after_commit(self._deletion_supervision.wake)

    # Datasets

    def add_dataset(self, record: DatasetRecord, storage_url: str = "") -> DatasetRecord:
        if storage_url and storage_url != self._storage.url:
            raise RedeployedError("the service has just been deployed anew with another storage; upload the file again")
        return self._store.datasets.add(record)

    def dataset(self, dataset_id: str) -> DatasetRecord:
        return self._store.datasets.get(dataset_id)

    def dataset_versions(self, dataset_id: str) -> list[DatasetRecord]:
        return self._store.datasets.versions(dataset_id)

    def datasets(
        self, owner: str | None = None, limit: int | None = None, cursor: str | None = None
    ) -> Page[DatasetRecord]:
        return self._store.datasets.page(owner, limit, cursor)

    def delete_dataset(self, dataset_id: str) -> DatasetRecord:
        dataset = self._store.datasets.delete(dataset_id)
        self._wake_deletions()
        return dataset

    # Jobs, as users see them

    def add_job(self, record: JobRecord) -> JobRecord:
        job = self._store.jobs.add(record, self._settings.max_pending_jobs)
        self._wake_jobs()
        return job

    def job_of_key(self, idempotency_key: str, owner: str = ADMIN_OWNER) -> JobRecord | None:
        return self._store.jobs.of_key(idempotency_key, owner)

    def job(self, job_id: str) -> JobRecord:
        return self._store.jobs.get(job_id)

    def jobs(self, query: JobQuery) -> JobPage:
        return self._store.jobs.page(query)

    def cancel_job(self, job_id: str) -> JobRecord:
        job = self._store.jobs.cancel(job_id)
        self._wake_jobs()
        self._wake_webhooks()
        return job

    def retry_job(self, job_id: str) -> JobRecord:
        known = self._store.jobs.get(job_id)
        has_checkpoint = known.from_job is None or has_checkpoints(self._storage, known.checkpoints_key)
        job = self._store.jobs.retry(job_id, has_checkpoint=has_checkpoint)
        self._wake_jobs()
        return job

    def pause_job(self, job_id: str) -> JobRecord:
        job = self._store.jobs.pause(job_id)
        self._wake_jobs()
        self._wake_webhooks()
        return job

    def resume_job(self, job_id: str) -> JobRecord:
        job = self._store.jobs.resume(job_id)
        self._wake_jobs()
        return job

    def delete_job(self, job_id: str) -> JobRecord:
        job = self._store.jobs.delete(job_id)
        self._wake_exports()  # its exports' runs end
        self._wake_deletions()
        return job

    def events(self, job_id: str, after: int, limit: int) -> list[JobEvent]:
        return self._store.jobs.events(job_id, after, limit)

    def metric_points(self, job_id: str, max_points: int) -> list[MetricPoint]:
        return self._store.jobs.metric_points(job_id, max_points)

    def news(self, query: NewsQuery) -> News:
        return self._store.news.since(query)

    # Exports

    def request_export(self, record: ExportRecord) -> ExportRecord:
        export = self._store.exports.request(record)
        self._wake_exports()
        return export

    def redo_export(self, export_id: str, words: str) -> ExportRecord:
        export = self._store.exports.redo(export_id, words)
        self._wake_exports()
        return export

    def export(self, export_id: str) -> ExportRecord:
        return self._store.exports.get(export_id)

    def exports(self, job_id: str, limit: int | None = None, cursor: str | None = None) -> Page[ExportRecord]:
        return self._store.exports.of_job(job_id, limit, cursor)

    def cancel_export(self, export_id: str) -> ExportRecord:
        export = self._store.exports.cancel(export_id)
        self._wake_exports()
        self._wake_deletions()
        return export

    def delete_export(self, export_id: str) -> ExportRecord:
        export = self._store.exports.delete(export_id)
        self._wake_exports()
        self._wake_deletions()
        return export

    def report_export(self, export_id: str, attempt: int, progress: int, message: str) -> bool:
        return self._store.exports.report(export_id, attempt, progress, message)

    def signing_key(self) -> bytes:
        return self._store.signing_key()

    # API keys

    def add_api_key(self, record: ApiKeyRecord) -> ApiKeyRecord:
        return self._store.api_keys.add(record)

    def api_key_of_prefix(self, prefix: str) -> ApiKeyRecord | None:
        return self._store.api_keys.of_prefix(prefix)

    def api_keys(self, limit: int | None = None, cursor: str | None = None) -> Page[ApiKeyRecord]:
        return self._store.api_keys.page(limit, cursor)

    def rotate_api_key(self, key_id: str, successor: ApiKeyRecord, grace_s: float) -> ApiKeyRecord:
        return self._store.api_keys.rotate(key_id, successor, grace_s)

    def revoke_api_key(self, key_id: str) -> ApiKeyRecord:
        return self._store.api_keys.revoke(key_id)

    # Access tokens and sessions

    def token_keys(self) -> list[PublicTokenKey]:
        return self._store.token_keys.public_keys()

    def sign_token(self, claims: TokenClaims) -> str:
        return self._store.token_keys.sign(claims)

    def rotate_token_keys(self) -> PublicTokenKey:
        return self._store.token_keys.rotate()

    def add_refresh_token(self, record: RefreshTokenRecord) -> None:
        self._store.refresh_tokens.add(record)

    def exchange_refresh_token(self, request: RefreshRequest) -> RefreshOutcome:
        return self._store.refresh_tokens.exchange(request)

    def add_session(self, record: SessionRecord) -> None:
        self._store.sessions.add(record)

    def session_of_hash(self, sha256: str) -> SessionRecord | None:
        return self._store.sessions.of_hash(sha256)

    def touch_session(self, sha256: str) -> None:
        self._store.sessions.touch(sha256)

    def end_session(self, sha256: str) -> None:
        self._store.sessions.end(sha256)

    def end_sessions(self, owner: str) -> int:
        return self._store.sessions.end_all_of(owner)

    # Webhooks

    def add_webhook(self, record: WebhookRecord, secret: str) -> WebhookRecord:
        return self._store.webhooks.add(record, secret, self._settings.max_webhooks)

    def webhooks(self, owner: str | None = None) -> list[WebhookRecord]:
        return self._store.webhooks.all(owner)

    def webhook(self, webhook_id: str) -> WebhookRecord:
        return self._store.webhooks.get(webhook_id)

    def change_webhook(self, webhook_id: str, changes: WebhookChanges) -> WebhookRecord:
        return self._store.webhooks.change(webhook_id, changes)

    def rotate_webhook_secret(self, webhook_id: str, secret: str, grace_s: float) -> WebhookRecord:
        return self._store.webhooks.rotate_secret(webhook_id, secret, grace_s)

    def delete_webhook(self, webhook_id: str) -> WebhookRecord:
        return self._store.webhooks.delete(webhook_id)

    def webhook_deliveries(self, webhook_id: str, query: DeliveryQuery) -> DeliveryPage:
        return self._store.webhooks.deliveries(webhook_id, query)

    def redeliver(self, webhook_id: str, delivery_id: str) -> DeliveryRecord:
        delivery = self._store.webhooks.redeliver(webhook_id, delivery_id)
        self._wake_webhooks()
        return delivery

    def ping_webhook(self, webhook_id: str) -> DeliveryRecord:
        delivery = self._store.webhooks.ping(webhook_id)
        self._wake_webhooks()
        return delivery

    # Limits

    def quota_state(self, owner: str) -> QuotaState:
        return self._with_statistics(self._store.quotas.state(owner))

    def _with_statistics(self, state: QuotaState) -> QuotaState:
        number = self._claims.num_open(statistics_bucket(state.owner))
        return replace(state, use=replace(state.use, statistics=number))

    def set_owner_quotas(self, owner: str, quotas: Quotas) -> QuotaState:
        state = self._store.quotas.set_own(owner, quotas)
        self._wake_jobs()  # more may run now
        return self._with_statistics(state)

    def settle_claims(self, report: ClaimReport) -> ClaimGrant | None:
        return self._claims.settle(report)

    def settle_permits(self, holder: str, request: PermitRequest) -> Grant:
        return self._rate_limiter.settle(holder, request)

    # Jobs, as their training programs tell of them

    def report(self, job_id: str, attempt: int, progress: Progress) -> RunCommand:
        try:
            return self._store.jobs.report(job_id, attempt, progress)
        except NotFoundError:
            logger.warning("job %s is gone: its attempt %d is told to stop", job_id, attempt)
            return RunCommand.STOP

    def pause(self, job_id: str, attempt: int) -> None:
        try:
            job = self._store.jobs.note_pause(job_id, attempt)
        except NotFoundError as error:
            raise FencedError(error.message) from None
        logger.info("job %s: attempt %d has paused, and the job is '%s'", job_id, attempt, job.status)
        self._wake_jobs()
        self._wake_webhooks()

    def complete(self, job_id: str, attempt: int, summary: RunSummary) -> None:
        self._end(
            job_id,
            attempt,
            status=JobStatus.COMPLETED,
            progress=100,
            message="Training completed successfully",
            phase=JobPhase.COMPLETED,
            run=RunProgress(time_left_s=0.0),
            summary=summary,
        )

    def fail(self, job_id: str, attempt: int, reason: FailureReason, message: str) -> None:
        self._end(
            job_id,
            attempt,
            status=JobStatus.FAILED,
            phase=JobPhase.FAILED,
            failure_reason=reason,
            message=message,
        )

    def _end(self, job_id: str, attempt: int, /, *, status: JobStatus, **changes: Unpack[JobChanges]) -> None:
        try:
            self._store.jobs.end(job_id, attempt, status=status, **changes)
        except NotFoundError as error:
            raise FencedError(error.message) from None
        except FencedError as error:
            logger.warning("the end as '%s' is refused: %s", status, error.message)
            raise
        self._wake_jobs()
        self._wake_webhooks()

    # What is measured

    def overview(self, owner: str | None = None) -> Overview:
        return self._store.overview(owner)

    def add_metrics(self, batch: MetricBatch) -> None:
        self._store.metrics.add(batch)

    def add_usage(self, batch: UsageBatch) -> None:
        self._store.usage.add(batch)

    def usage(self, query: UsageQuery) -> UsageReport:
        return self._store.usage.report(query)

    def metric_samples(self) -> list[Sample]:
        return [*self._store.metrics.samples(), *self._heartbeat_samples()]

    def _heartbeats(self) -> tuple[Heartbeat, ...]:
        return tuple(supervision.heartbeat() for supervision in self._supervisions)

    def _heartbeat_samples(self) -> list[Sample]:
        name = metrics.SUPERVISION_HEARTBEAT_AGE_SECONDS.name
        return [Sample(name, (("kind", beat.what),), beat.age_s) for beat in self._heartbeats()]

    def health(self) -> TrackerHealth:
        response_s, error_words = None, None
        try:
            response_s = self._store.database.ping()
        except CapacityError as error:
            error_words = words_of(error.__cause__ or error)
        return TrackerHealth(
            database=self._store.database.name,
            database_response_s=response_s,
            database_error=error_words,
            started_at=self._started_at,
            gcs="Ray GCS with Redis" if os.environ.get("RAY_REDIS_ADDRESS") else "Ray GCS",
            heartbeats=self._heartbeats(),
        )
