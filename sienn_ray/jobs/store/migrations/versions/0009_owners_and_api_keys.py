"""Datasets and jobs get an owner, the admin's for all that were there, and there are API keys."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision: str | None = "0008"
branch_labels: str | None = None
depends_on: str | None = None

_OWNED = ("datasets", "jobs")


def _owner() -> sa.Column[str]:
    return sa.Column("owner", sa.String(255), nullable=False, server_default="admin")


def upgrade() -> None:
    for table in _OWNED:
        op.add_column(table, _owner())
        op.create_index(f"ix_{table}_owner", table, ["owner", "seq"])
    op.add_column("deleted_ends", _owner())
    # Two owners may come with the same key.
    op.drop_index("ix_jobs_idempotency_key", "jobs")
    op.create_index("ix_jobs_owner_idempotency_key", "jobs", ["owner", "idempotency_key"], unique=True)
    op.create_table(
        "api_keys",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("prefix", sa.String(32), nullable=False, unique=True),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("owner", sa.String(255), nullable=False),
        sa.Column("scopes", sa.JSON, nullable=False),
        sa.Column("rate_limits", sa.Text),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True)),
        sa.Column("revoked_at", sa.DateTime(timezone=True)),
    )


def downgrade() -> None:
    op.drop_table("api_keys")
    op.drop_index("ix_jobs_owner_idempotency_key", "jobs")
    op.create_index("ix_jobs_idempotency_key", "jobs", ["idempotency_key"], unique=True)
    for table in _OWNED:
        op.drop_index(f"ix_{table}_owner", table)
    for table in (*_OWNED, "deleted_ends"):
        with op.batch_alter_table(table) as batch:
            batch.drop_column("owner")
