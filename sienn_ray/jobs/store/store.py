"""The job database and what is in it. SQL is nowhere but in the modules behind this one."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from sienn_ray.access.quotas import Quotas
from sienn_ray.jobs.schema import Overview, utc_now
from sienn_ray.jobs.store import overview
from sienn_ray.jobs.store.api_key_store import ApiKeyStore
from sienn_ray.jobs.store.attempt_logs import AttemptLogStore
from sienn_ray.jobs.store.audit_store import AuditStore
from sienn_ray.jobs.store.database import Database
from sienn_ray.jobs.store.dataset_store import DatasetStore
from sienn_ray.jobs.store.deletion_store import DeletionStore
from sienn_ray.jobs.store.delivery_store import DeliveryStore
from sienn_ray.jobs.store.export_store import ExportStore
from sienn_ray.jobs.store.job_store import JobStore
from sienn_ray.jobs.store.metric_store import MetricStore
from sienn_ray.jobs.store.news_store import NewsStore
from sienn_ray.jobs.store.quota_checks import QuotaChecks
from sienn_ray.jobs.store.quota_store import QuotaStore
from sienn_ray.jobs.store.refresh_token_store import RefreshTokenStore
from sienn_ray.jobs.store.request_store import RequestStore
from sienn_ray.jobs.store.session_store import SessionStore
from sienn_ray.jobs.store.signing_key import signing_key
from sienn_ray.jobs.store.sweep_store import SweepStore
from sienn_ray.jobs.store.token_key_store import TokenKeyStore
from sienn_ray.jobs.store.usage_store import UsageStore
from sienn_ray.jobs.store.webhook_store import WebhookStore


class Store:
    """Datasets, jobs, exports, deletions, keys and metrics in one database; safe to use from several threads.

    The database may be away: every call then fails until it is there.

    Args:
        url: SQLAlchemy URL; see `Database`.
        clock: The time.
        export_lifetime_s: Seconds that a completed export is kept.
        token_key_lifetime_s: Age at which a key that signs access tokens gets a successor.
        token_key_secret: Encrypts those keys, if there is one.
        quotas: Bounds on what one owner has, unless an admin has set others for it.
        usage_retention_days: Days that usage is kept.
    """

    def __init__(
        self,
        url: str,
        clock: Callable[[], datetime] = utc_now,
        export_lifetime_s: float = 7 * 86400.0,
        token_key_lifetime_s: float = float("inf"),
        token_key_secret: str | None = None,
        quotas: Quotas | None = None,
        usage_retention_days: int = 400,
    ) -> None:
        self._clock = clock
        self.database = Database(url)
        checks = QuotaChecks(quotas or Quotas())
        self.datasets = DatasetStore(self.database, clock, checks)
        self.jobs = JobStore(self.database, clock, checks)
        self.exports = ExportStore(self.database, clock, export_lifetime_s, checks)
        self.quotas = QuotaStore(self.database, clock, checks)
        self.deletions = DeletionStore(self.database, clock)
        self.attempt_logs = AttemptLogStore(self.database, clock)
        self.sweep = SweepStore(self.database, clock)
        self.requests = RequestStore(self.database, clock)
        self.metrics = MetricStore(self.database, clock)
        self.api_keys = ApiKeyStore(self.database, clock)
        self.token_keys = TokenKeyStore(self.database, token_key_secret, token_key_lifetime_s, clock)
        self.refresh_tokens = RefreshTokenStore(self.database, clock)
        self.sessions = SessionStore(self.database, clock)
        self.audit = AuditStore(self.database, clock)
        self.webhooks = WebhookStore(self.database, clock)
        self.webhook_deliveries = DeliveryStore(self.database, clock)
        self.usage = UsageStore(self.database, clock, usage_retention_days)
        self.news = NewsStore(self.database)

    def overview(self, owner: str | None = None) -> Overview:
        """Numbers over all jobs and datasets, or those of one owner."""
        with self.database.reading() as connection:
            return overview.read(connection, self._clock(), owner)

    def signing_key(self) -> bytes:
        """Return the key that signs links to downloads; made at first use."""
        return signing_key(self.database)

    def close(self) -> None:
        """Let go of the database."""
        self.database.close()
