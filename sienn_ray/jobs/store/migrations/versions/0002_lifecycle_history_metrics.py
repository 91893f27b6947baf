"""Keep how jobs end and begin, what happens to them, what they are found by, and what is measured."""

import json

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision: str | None = "0001"
branch_labels: str | None = None
depends_on: str | None = None

_SEQ = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.add_column("datasets", sa.Column("duplicate_of", sa.String(64)))
    _add_job_columns()
    _fill_job_columns()
    _constrain_jobs()
    _create_history()
    _create_metrics()
    _seed_counters()


def _add_job_columns() -> None:
    for column in (
        sa.Column("validation_dataset_id", sa.String(36)),
        sa.Column("name", sa.Text),
        sa.Column("labels", sa.JSON, nullable=False, server_default="{}"),
        sa.Column("idempotency_key", sa.String(255)),
        sa.Column("request_hash", sa.String(64)),
        sa.Column("attempt_base", sa.Integer, nullable=False, server_default="0"),
        sa.Column("started_at", _MOMENT),
        sa.Column("ended_at", _MOMENT),
        sa.Column("base_model", sa.Text),
    ):
        op.add_column("jobs", column)


def _fill_job_columns() -> None:
    """An end is the last change of an ended job; when a run had started isn't known."""
    jobs = sa.table(
        "jobs",
        sa.column("config", sa.JSON),
        sa.column("base_model"),
        sa.column("status"),
        sa.column("ended_at"),
        sa.column("updated_at"),
    )
    op.execute(sa.update(jobs).values(base_model=sa.func.coalesce(jobs.c.config["base_model"].as_string(), "")))
    op.execute(sa.update(jobs).where(jobs.c.status.in_(["completed", "failed"])).values(ended_at=jobs.c.updated_at))


def _constrain_jobs() -> None:
    with op.batch_alter_table("jobs") as batch:
        batch.alter_column("base_model", existing_type=sa.Text, nullable=False)
        batch.create_foreign_key("fk_jobs_validation_dataset_id", "datasets", ["validation_dataset_id"], ["id"])
        # Those of two columns, which follow, do their work.
        batch.drop_index("ix_jobs_status")
        batch.drop_index("ix_jobs_dataset_id")
    op.create_index("ix_jobs_idempotency_key", "jobs", ["idempotency_key"], unique=True)
    op.create_index("ix_jobs_status_ended_at", "jobs", ["status", "ended_at", "started_at"])
    for column in ("status", "dataset_id", "validation_dataset_id", "base_model", "name"):
        op.create_index(f"ix_jobs_{column}_seq", "jobs", [column, "seq"])


def _create_history() -> None:
    op.create_table(
        "job_labels",
        sa.Column("job_id", sa.String(36), primary_key=True),
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("value", sa.Text, nullable=False),
        sa.Index("ix_job_labels_key_value", "key", "value", "job_id"),
    )
    op.create_table(
        "job_events",
        sa.Column("seq", _SEQ, primary_key=True, autoincrement=True),
        sa.Column("job_id", sa.String(36), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("data", sa.JSON, nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.Index("ix_job_events_job_id_seq", "job_id", "seq"),
        sqlite_autoincrement=True,  # else SQLite would use the numbers of deleted events again
    )
    op.create_table(
        "job_metric_points",
        sa.Column("job_id", sa.String(36), primary_key=True),
        sa.Column("step", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("epoch", sa.Integer, nullable=False),
        sa.Column("loss", sa.Double),
        sa.Column("eval_loss", sa.Double),
        sa.Column("learning_rate", sa.Double),
        sa.Column("tokens_per_s", sa.Double),
        sa.Column("created_at", _MOMENT, nullable=False),
    )


def _create_metrics() -> None:
    op.create_table(
        "metric_values",
        sa.Column("name", sa.String(128), primary_key=True),
        sa.Column("labels", sa.Text, primary_key=True),
        sa.Column("value", sa.Double, nullable=False),
    )
    op.create_table(
        "metric_gauges",
        sa.Column("source", sa.String(64), primary_key=True),
        sa.Column("name", sa.String(128), primary_key=True),
        sa.Column("labels", sa.Text, primary_key=True),
        sa.Column("value", sa.Double, nullable=False),
        sa.Column("updated_at", _MOMENT, nullable=False),
    )
    op.create_table(
        "metric_sources",
        sa.Column("source", sa.String(64), primary_key=True),
        sa.Column("last_number", sa.BigInteger, nullable=False),
        sa.Column("updated_at", _MOMENT, nullable=False),
    )


def _seed_counters() -> None:
    """Jobs that have ever entered each status; one with an attempt has been running."""
    jobs = sa.table("jobs", sa.column("status"), sa.column("attempt"))
    entered = {
        "pending": sa.true(),
        "running": jobs.c.attempt > 0,
        "completed": jobs.c.status == "completed",
        "failed": jobs.c.status == "failed",
        "cancelled": sa.false(),
    }
    values = sa.table("metric_values", sa.column("name"), sa.column("labels"), sa.column("value"))
    for status, condition in entered.items():
        labels = json.dumps({"status": status}, separators=(",", ":"))
        number = sa.select(sa.literal("sienn_jobs_total"), sa.literal(labels), sa.func.count()).where(condition)
        op.execute(sa.insert(values).from_select(["name", "labels", "value"], number.select_from(jobs)))


def downgrade() -> None:
    for table in ("metric_sources", "metric_gauges", "metric_values", "job_metric_points", "job_events", "job_labels"):
        op.drop_table(table)
    op.execute("DELETE FROM jobs WHERE status = 'cancelled'")
    for index in ("idempotency_key", "status_ended_at"):
        op.drop_index(f"ix_jobs_{index}", "jobs")
    for column in ("status", "dataset_id", "validation_dataset_id", "base_model", "name"):
        op.drop_index(f"ix_jobs_{column}_seq", "jobs")
    with op.batch_alter_table("jobs") as batch:
        batch.drop_constraint("fk_jobs_validation_dataset_id", type_="foreignkey")
        for column in (
            "base_model",
            "ended_at",
            "started_at",
            "attempt_base",
            "request_hash",
            "idempotency_key",
            "labels",
            "name",
            "validation_dataset_id",
        ):
            batch.drop_column(column)
        batch.create_index("ix_jobs_status", ["status"])
        batch.create_index("ix_jobs_dataset_id", ["dataset_id"])
    op.drop_column("datasets", "duplicate_of")
