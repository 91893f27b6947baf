"""Jobs train on mixtures of datasets, and datasets have versions and sources."""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision: str | None = "0016"
branch_labels: str | None = None
depends_on: str | None = None

_TEXTS = ("version_of", "appended_to")


def upgrade() -> None:
    # Each one that is there is the first version of its dataset.
    op.add_column("datasets", sa.Column("version", sa.Integer, nullable=False, server_default="1"))
    op.add_column("datasets", sa.Column("last_version", sa.Integer, nullable=False, server_default="1"))
    for name in _TEXTS:
        op.add_column("datasets", sa.Column(name, sa.String(64)))
    op.add_column("datasets", sa.Column("change", sa.String(16)))
    op.add_column("datasets", sa.Column("source", sa.Text))
    op.add_column("datasets", sa.Column("source_revision", sa.String(64)))
    # No two versions have one number, whoever makes them at the same time.
    op.create_index("ix_datasets_version_of_version", "datasets", ["version_of", "version"], unique=True)
    # Empty of jobs that train on one dataset as it is: `dataset_id` says which.
    op.add_column("jobs", sa.Column("datasets", sa.JSON, nullable=False, server_default="[]"))
    op.create_table(
        "job_datasets",
        sa.Column("job_id", sa.String(64), primary_key=True),
        sa.Column("dataset_id", sa.String(64), primary_key=True),
        sa.Index("ix_job_datasets_dataset_id", "dataset_id", "job_id"),
    )


def downgrade() -> None:
    op.drop_table("job_datasets")
    with op.batch_alter_table("jobs") as batch:
        batch.drop_column("datasets")
    op.drop_index("ix_datasets_version_of_version", "datasets")
    with op.batch_alter_table("datasets") as batch:
        for name in ("source_revision", "source", "change", *reversed(_TEXTS), "last_version", "version"):
            batch.drop_column(name)
