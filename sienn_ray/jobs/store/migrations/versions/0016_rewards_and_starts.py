"""Curves have rewards, and a job says which other one it starts from."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision: str | None = "0015"
branch_labels: str | None = None
depends_on: str | None = None

_REWARDS = [
    f"{prefix}rewards_{name}" for prefix in ("", "eval_") for name in ("chosen", "rejected", "margins", "accuracies")
]


def upgrade() -> None:
    for name in _REWARDS:
        op.add_column("job_metric_points", sa.Column(name, sa.Double))
    op.add_column("jobs", sa.Column("from_job", sa.String(64)))
    op.add_column("jobs", sa.Column("lineage", sa.JSON, nullable=False, server_default="[]"))
    op.add_column("jobs", sa.Column("start_key", sa.Text))
    op.create_index("ix_jobs_from_job", "jobs", ["from_job"])


def downgrade() -> None:
    op.drop_index("ix_jobs_from_job", "jobs")
    with op.batch_alter_table("jobs") as jobs:
        jobs.drop_column("start_key")
        jobs.drop_column("lineage")
        jobs.drop_column("from_job")
    with op.batch_alter_table("job_metric_points") as points:
        for name in _REWARDS:
            points.drop_column(name)
