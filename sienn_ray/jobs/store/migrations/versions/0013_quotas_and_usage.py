"""Jobs get a priority and the key they came with, owners limits and turns, keys limits on answers; usage is counted."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision: str | None = "0012"
branch_labels: str | None = None
depends_on: str | None = None

_COUNTS = ("num_requests", "num_answers", "prompt_tokens", "completion_tokens", "uploaded_bytes", "downloaded_bytes")
_SECONDS = ("engine_s", "training_cpu_s", "training_gpu_s")


def upgrade() -> None:
    op.add_column("jobs", sa.Column("priority", sa.Integer, nullable=False, server_default="0"))
    op.add_column("jobs", sa.Column("key_id", sa.String(64)))
    # Of completed jobs; `facts` has it too, but is large.
    op.add_column("jobs", sa.Column("adapter_bytes", sa.BigInteger, nullable=False, server_default="0"))
    jobs = sa.table("jobs", sa.column("status", sa.Text), sa.column("facts", sa.JSON), sa.column("adapter_bytes"))
    size = sa.cast(jobs.c.facts["adapter_size_bytes"].as_string(), sa.BigInteger)
    op.execute(sa.update(jobs).where(jobs.c.status == "completed").values(adapter_bytes=sa.func.coalesce(size, 0)))
    op.create_index("ix_jobs_owner_adapter_bytes", "jobs", ["owner", "adapter_bytes"])
    # All that the order of the queue is made of.
    op.create_index("ix_jobs_queue", "jobs", ["status", "owner", "priority", "created_at", "seq", "id"])
    op.add_column("api_keys", sa.Column("tokens_per_minute", sa.BigInteger))
    op.add_column("api_keys", sa.Column("max_open_answers", sa.Integer))
    op.create_table(
        "queue_turns",
        sa.Column("kind", sa.String(16), primary_key=True),
        sa.Column("owner", sa.String(255), primary_key=True),
        sa.Column("turn", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "owner_limits",
        sa.Column("owner", sa.String(255), primary_key=True),
        sa.Column("max_stored_bytes", sa.BigInteger),
        sa.Column("max_pending_jobs", sa.Integer),
        sa.Column("max_running_jobs", sa.Integer),
        sa.Column("max_open_exports", sa.Integer),
        sa.Column("max_exports", sa.Integer),
        sa.Column("max_statistics", sa.Integer),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_table(
        "usage",
        sa.Column("day", sa.Date, primary_key=True),
        sa.Column("owner", sa.String(255), primary_key=True),
        sa.Column("key_id", sa.String(64), primary_key=True),
        sa.Column("base_model", sa.Text, primary_key=True),
        sa.Column("adapter_id", sa.String(64), primary_key=True),
        *(sa.Column(name, sa.BigInteger, nullable=False, server_default="0") for name in _COUNTS[:4]),
        *(sa.Column(name, sa.Double, nullable=False, server_default="0") for name in _SECONDS),
        *(sa.Column(name, sa.BigInteger, nullable=False, server_default="0") for name in _COUNTS[4:]),
    )
    op.create_index("ix_usage_owner_day", "usage", ["owner", "day"])


def downgrade() -> None:
    op.drop_table("usage")
    op.drop_table("owner_limits")
    op.drop_table("queue_turns")
    with op.batch_alter_table("api_keys") as batch:
        batch.drop_column("max_open_answers")
        batch.drop_column("tokens_per_minute")
    op.drop_index("ix_jobs_queue", "jobs")
    op.drop_index("ix_jobs_owner_adapter_bytes", "jobs")
    with op.batch_alter_table("jobs") as batch:
        batch.drop_column("adapter_bytes")
        batch.drop_column("key_id")
        batch.drop_column("priority")
