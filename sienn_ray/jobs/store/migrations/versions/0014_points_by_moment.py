"""Points of curves are found by when they changed, of one job and of all."""

from alembic import op

revision = "0014"
down_revision: str | None = "0013"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    op.create_index("ix_job_metric_points_job_id_created_at", "job_metric_points", ["job_id", "created_at"])
    op.create_index("ix_job_metric_points_created_at", "job_metric_points", ["created_at"])


def downgrade() -> None:
    op.drop_index("ix_job_metric_points_created_at", "job_metric_points")
    op.drop_index("ix_job_metric_points_job_id_created_at", "job_metric_points")
