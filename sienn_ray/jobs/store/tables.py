"""The tables of the job database, as queries see them. The migrations make them.

Nothing refers to `jobs` by a foreign key: SQLite changes a table by making it anew, and dropping the old one would take
the rows that refer to it along.
"""

from __future__ import annotations

from datetime import UTC, datetime

import sqlalchemy as sa


class UtcDateTime(sa.TypeDecorator[datetime]):
    """A point in time in UTC. SQLite keeps no zone, and PostgreSQL answers in the zone of its server."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:  # noqa: ARG002
        """Return the value that the database gets."""
        return value.astimezone(UTC) if value else None

    def process_result_value(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:  # noqa: ARG002
        """Return the moment for a value of the database."""
        if value is None or value.tzinfo is UTC:
            return value
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def safe_text(text: str) -> str:
    """Text of any origin. PostgreSQL takes no NUL and no driver a lone surrogate; both become U+FFFD."""
    if text.isascii() and "\0" not in text:
        return text
    return text.replace("\0", "\ufffd").encode("utf-16", "surrogatepass").decode("utf-16", "replace")


class SafeText(sa.TypeDecorator[str]):
    """A column of safe text."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: sa.Dialect) -> str | None:  # noqa: ARG002
        """Return the value that the database gets."""
        return None if value is None else safe_text(value)


metadata = sa.MetaData()

# `seq` is the order of arrival.
datasets = sa.Table(
    "datasets",
    metadata,
    sa.Column("seq", sa.BigInteger, primary_key=True),
    sa.Column("id", SafeText),
    sa.Column("filename", SafeText),
    sa.Column("size_bytes", sa.BigInteger),
    sa.Column("sha256", SafeText),
    sa.Column("format", SafeText),
    sa.Column("num_rows", sa.BigInteger),
    sa.Column("columns", sa.JSON),
    sa.Column("preview", sa.JSON),
    sa.Column("status", SafeText),
    sa.Column("created_at", UtcDateTime),
    sa.Column("duplicate_of", SafeText),
    sa.Column("owner", SafeText),
    sa.Column("reading", sa.JSON),
    sa.Column("version", sa.Integer),
    # Of a first version: the number of the newest, which no other one gets, even if that one is deleted.
    sa.Column("last_version", sa.Integer),
    sa.Column("version_of", SafeText),
    sa.Column("appended_to", SafeText),
    sa.Column("change", SafeText),
    sa.Column("source", SafeText),
    sa.Column("source_revision", SafeText),
)
jobs = sa.Table(
    "jobs",
    metadata,
    sa.Column("seq", sa.BigInteger, primary_key=True),
    sa.Column("id", SafeText),
    sa.Column("dataset_id", SafeText),
    sa.Column("config", sa.JSON),
    sa.Column("status", SafeText),
    sa.Column("progress", sa.Integer),
    sa.Column("message", SafeText),
    sa.Column("failure_reason", SafeText),
    sa.Column("attempt", sa.Integer),
    sa.Column("submission_id", SafeText),
    sa.Column("facts", sa.JSON),
    sa.Column("created_at", UtcDateTime),
    sa.Column("updated_at", UtcDateTime),
    sa.Column("validation_dataset_id", SafeText),
    sa.Column("name", SafeText),
    sa.Column("labels", sa.JSON),
    sa.Column("idempotency_key", SafeText),
    sa.Column("request_hash", SafeText),
    sa.Column("attempt_base", sa.Integer),
    sa.Column("started_at", UtcDateTime),
    sa.Column("ended_at", UtcDateTime),
    # `config`'s, once more, to be searched for.
    sa.Column("base_model", SafeText),
    sa.Column("num_losses", sa.Integer),
    sa.Column("loss_step", sa.BigInteger),
    sa.Column("log_tail", SafeText),
    sa.Column("owner", SafeText),
    sa.Column("priority", sa.Integer),
    sa.Column("key_id", SafeText),
    # The summary's, once more, to be added up.
    sa.Column("adapter_bytes", sa.BigInteger),
    sa.Column("from_job", SafeText),
    sa.Column("lineage", sa.JSON),
    sa.Column("start_key", SafeText),
    sa.Column("datasets", sa.JSON),
)
# The datasets of mixtures, once more, to be searched for.
job_datasets = sa.Table(
    "job_datasets",
    metadata,
    sa.Column("job_id", SafeText, primary_key=True),
    sa.Column("dataset_id", SafeText, primary_key=True),
)
# The last turn of each owner in a queue; see `queue.py`.
queue_turns = sa.Table(
    "queue_turns",
    metadata,
    sa.Column("kind", SafeText, primary_key=True),
    sa.Column("owner", SafeText, primary_key=True),
    sa.Column("turn", sa.BigInteger),
)
# The labels of `jobs`, once more, to be searched for.
job_labels = sa.Table(
    "job_labels",
    metadata,
    sa.Column("job_id", SafeText, primary_key=True),
    sa.Column("key", SafeText, primary_key=True),
    sa.Column("value", SafeText),
)
job_events = sa.Table(
    "job_events",
    metadata,
    sa.Column("seq", sa.BigInteger, primary_key=True),
    sa.Column("job_id", SafeText),
    sa.Column("kind", SafeText),
    sa.Column("message", SafeText),
    sa.Column("data", sa.JSON),
    sa.Column("created_at", UtcDateTime),
)
exports = sa.Table(
    "exports",
    metadata,
    sa.Column("seq", sa.BigInteger, primary_key=True),
    sa.Column("id", SafeText),
    sa.Column("job_id", SafeText),
    sa.Column("base_model", SafeText),
    sa.Column("job_name", SafeText),
    sa.Column("options", sa.JSON),
    sa.Column("status", SafeText),
    sa.Column("progress", sa.Integer),
    sa.Column("message", SafeText),
    sa.Column("failure_reason", SafeText),
    sa.Column("attempt", sa.Integer),
    sa.Column("file_name", SafeText),
    sa.Column("size_bytes", sa.BigInteger),
    sa.Column("sha256", SafeText),
    sa.Column("created_at", UtcDateTime),
    sa.Column("updated_at", UtcDateTime),
    sa.Column("ended_at", UtcDateTime),
    sa.Column("expires_at", UtcDateTime),
    sa.Column("num_losses", sa.Integer),
    sa.Column("loss_progress", sa.Integer),
)
# Tombstones: files that are yet to be deleted, of a record that is gone or that doesn't want them any more.
deletions = sa.Table(
    "deletions",
    metadata,
    sa.Column("seq", sa.BigInteger, primary_key=True),
    sa.Column("kind", SafeText),
    sa.Column("id", SafeText),
    sa.Column("job_id", SafeText),
    sa.Column("created_at", UtcDateTime),
    sa.Column("num_failures", sa.Integer),
    sa.Column("due_at", UtcDateTime),
    sa.Column("error", SafeText),
)
# Logs of attempts that are yet to be copied to storage, once these have ended.
attempt_logs = sa.Table(
    "attempt_logs",
    metadata,
    sa.Column("seq", sa.BigInteger, primary_key=True),
    sa.Column("job_id", SafeText),
    sa.Column("attempt", sa.Integer),
    sa.Column("submission_id", SafeText),
    sa.Column("num_tries", sa.Integer),
    sa.Column("due_at", UtcDateTime),
)
# Answers to changes that were asked for, for those who ask again.
change_requests = sa.Table(
    "change_requests",
    metadata,
    sa.Column("seq", sa.BigInteger, primary_key=True),
    sa.Column("id", SafeText),
    sa.Column("method", SafeText),
    sa.Column("answer", sa.JSON),
    sa.Column("created_at", UtcDateTime),
)
# How jobs ended that were deleted within the last day, for the rate of success.
deleted_ends = sa.Table(
    "deleted_ends",
    metadata,
    sa.Column("seq", sa.BigInteger, primary_key=True),
    sa.Column("status", SafeText),
    sa.Column("ended_at", UtcDateTime),
    sa.Column("owner", SafeText),
)
# API keys, without their secrets.
api_keys = sa.Table(
    "api_keys",
    metadata,
    sa.Column("id", SafeText, primary_key=True),
    sa.Column("prefix", SafeText),
    sa.Column("sha256", SafeText),
    sa.Column("name", SafeText),
    sa.Column("owner", SafeText),
    sa.Column("scopes", sa.JSON),
    sa.Column("rate_limits", SafeText),
    sa.Column("created_at", UtcDateTime),
    sa.Column("expires_at", UtcDateTime),
    sa.Column("revoked_at", UtcDateTime),
    sa.Column("tokens_per_minute", sa.BigInteger),
    sa.Column("max_open_answers", sa.Integer),
)
# Limits of single owners, in place of those that settings say for all.
owner_limits = sa.Table(
    "owner_limits",
    metadata,
    sa.Column("owner", SafeText, primary_key=True),
    sa.Column("max_stored_bytes", sa.BigInteger),
    sa.Column("max_pending_jobs", sa.Integer),
    sa.Column("max_running_jobs", sa.Integer),
    sa.Column("max_open_exports", sa.Integer),
    sa.Column("max_exports", sa.Integer),
    sa.Column("max_statistics", sa.Integer),
    sa.Column("updated_at", UtcDateTime),
)
# What was used, by day, key and model. Empty text stands for none, since a key's columns can't be null.
usage = sa.Table(
    "usage",
    metadata,
    sa.Column("day", sa.Date, primary_key=True),
    sa.Column("owner", SafeText, primary_key=True),
    sa.Column("key_id", SafeText, primary_key=True),
    sa.Column("base_model", SafeText, primary_key=True),
    sa.Column("adapter_id", SafeText, primary_key=True),
    sa.Column("num_requests", sa.BigInteger),
    sa.Column("num_answers", sa.BigInteger),
    sa.Column("prompt_tokens", sa.BigInteger),
    sa.Column("completion_tokens", sa.BigInteger),
    sa.Column("engine_s", sa.Double),
    sa.Column("training_cpu_s", sa.Double),
    sa.Column("training_gpu_s", sa.Double),
    sa.Column("uploaded_bytes", sa.BigInteger),
    sa.Column("downloaded_bytes", sa.BigInteger),
)
# Keys that all replicas of the ingress sign links with, as hex.
signing_keys = sa.Table(
    "signing_keys",
    metadata,
    sa.Column("purpose", SafeText, primary_key=True),
    sa.Column("value", SafeText),
)
# Keys that access tokens are signed with.
token_keys = sa.Table(
    "token_keys",
    metadata,
    sa.Column("kid", SafeText, primary_key=True),
    sa.Column("x", SafeText),
    sa.Column("y", SafeText),
    sa.Column("private_jwk", SafeText),
    sa.Column("created_at", UtcDateTime),
    sa.Column("retired_at", UtcDateTime),
)
# Refresh tokens, without what proves them; those that were used stay until their family ends, to be known again.
refresh_tokens = sa.Table(
    "refresh_tokens",
    metadata,
    sa.Column("sha256", SafeText, primary_key=True),
    sa.Column("family", SafeText),
    sa.Column("client_id", SafeText),
    sa.Column("scopes", sa.JSON),
    sa.Column("created_at", UtcDateTime),
    sa.Column("expires_at", UtcDateTime),
    sa.Column("used_at", UtcDateTime),
    sa.Column("revoked_at", UtcDateTime),
)
# Sessions of browsers, without what their cookies prove them with.
sessions = sa.Table(
    "sessions",
    metadata,
    sa.Column("sha256", SafeText, primary_key=True),
    sa.Column("owner", SafeText),
    sa.Column("scopes", sa.JSON),
    sa.Column("client_id", SafeText),
    sa.Column("binding", SafeText),
    sa.Column("created_at", UtcDateTime),
    sa.Column("seen_at", UtcDateTime),
    sa.Column("expires_at", UtcDateTime),
    sa.Column("ended_at", UtcDateTime),
)
webhooks = sa.Table(
    "webhooks",
    metadata,
    sa.Column("seq", sa.BigInteger, primary_key=True),
    sa.Column("id", SafeText),
    sa.Column("owner", SafeText),
    sa.Column("url", SafeText),
    sa.Column("events", sa.JSON),
    sa.Column("description", SafeText),
    sa.Column("is_active", sa.Boolean),
    sa.Column("inactive_reason", SafeText),
    sa.Column("failing_since", UtcDateTime),
    sa.Column("secret", SafeText),
    sa.Column("old_secret", SafeText),
    sa.Column("old_secret_until", UtcDateTime),
    sa.Column("created_at", UtcDateTime),
    sa.Column("updated_at", UtcDateTime),
)
# What is yet to be sent to webhooks, and what was. `num_tries` counts attempts since it was asked for last.
webhook_deliveries = sa.Table(
    "webhook_deliveries",
    metadata,
    sa.Column("seq", sa.BigInteger, primary_key=True),
    sa.Column("id", SafeText),
    sa.Column("webhook_id", SafeText),
    sa.Column("event", SafeText),
    sa.Column("body", SafeText),
    sa.Column("status", SafeText),
    sa.Column("num_attempts", sa.Integer),
    sa.Column("num_tries", sa.Integer),
    sa.Column("created_at", UtcDateTime),
    sa.Column("due_at", UtcDateTime),
    sa.Column("attempted_at", UtcDateTime),
    sa.Column("response_status", sa.Integer),
    sa.Column("response_text", SafeText),
    sa.Column("duration_s", sa.Double),
    sa.Column("error", SafeText),
    sa.Column("ended_at", UtcDateTime),
)
# Entries are added, and go from the oldest on; the database refuses all else.
audit_entries = sa.Table(
    "audit_entries",
    metadata,
    sa.Column("seq", sa.BigInteger, primary_key=True),
    sa.Column("id", SafeText),
    sa.Column("created_at", UtcDateTime),
    sa.Column("principal_kind", SafeText),
    sa.Column("principal_id", SafeText),
    sa.Column("principal_name", SafeText),
    sa.Column("owner", SafeText),
    sa.Column("client", SafeText),
    sa.Column("request_id", SafeText),
    sa.Column("action", SafeText),
    sa.Column("request", SafeText),
    sa.Column("target_kind", SafeText),
    sa.Column("target_id", SafeText),
    sa.Column("status", sa.Integer),
    sa.Column("num_requests", sa.Integer),
    sa.Column("previous_hash", SafeText),
    sa.Column("hash", SafeText),
)
# The last entry that has gone: its hash is the one that the oldest of the others goes on from.
audit_horizon = sa.Table(
    "audit_horizon",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("seq", sa.BigInteger),
    sa.Column("hash", SafeText),
)
job_metric_points = sa.Table(
    "job_metric_points",
    metadata,
    sa.Column("job_id", SafeText, primary_key=True),
    sa.Column("step", sa.BigInteger, primary_key=True),
    sa.Column("attempt", sa.Integer),
    sa.Column("epoch", sa.Integer),
    sa.Column("loss", sa.Double),
    sa.Column("eval_loss", sa.Double),
    sa.Column("learning_rate", sa.Double),
    sa.Column("tokens_per_s", sa.Double),
    sa.Column("created_at", UtcDateTime),
    sa.Column("rewards_chosen", sa.Double),
    sa.Column("rewards_rejected", sa.Double),
    sa.Column("rewards_margins", sa.Double),
    sa.Column("rewards_accuracies", sa.Double),
    sa.Column("eval_rewards_chosen", sa.Double),
    sa.Column("eval_rewards_rejected", sa.Double),
    sa.Column("eval_rewards_margins", sa.Double),
    sa.Column("eval_rewards_accuracies", sa.Double),
)
# Counters and histograms of all processes. `labels` is JSON with sorted keys, so that equal ones are equal text.
metric_values = sa.Table(
    "metric_values",
    metadata,
    sa.Column("name", SafeText, primary_key=True),
    sa.Column("labels", SafeText, primary_key=True),
    sa.Column("value", sa.Double),
)
metric_gauges = sa.Table(
    "metric_gauges",
    metadata,
    sa.Column("source", SafeText, primary_key=True),
    sa.Column("name", SafeText, primary_key=True),
    sa.Column("labels", SafeText, primary_key=True),
    sa.Column("value", sa.Double),
    sa.Column("updated_at", UtcDateTime),
)
# The last batch of each process that counts.
metric_sources = sa.Table(
    "metric_sources",
    metadata,
    sa.Column("source", SafeText, primary_key=True),
    sa.Column("last_number", sa.BigInteger),
    sa.Column("updated_at", UtcDateTime),
)
