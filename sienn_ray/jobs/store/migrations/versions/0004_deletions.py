"""Keep deletions until their files are gone."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision: str | None = "0003"
branch_labels: str | None = None
depends_on: str | None = None

_SEQ = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "deletions",
        sa.Column("seq", _SEQ, primary_key=True, autoincrement=True),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("job_id", sa.String(64)),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.Column("num_failures", sa.Integer, nullable=False),
        sa.Column("due_at", _MOMENT, nullable=False),
        sa.Column("error", sa.Text),
        sa.UniqueConstraint("kind", "id", name="uq_deletions_kind_id"),
    )
    op.create_index("ix_deletions_due_at", "deletions", ["due_at"])
    op.create_index("ix_deletions_job_id", "deletions", ["job_id"])


def downgrade() -> None:
    op.drop_table("deletions")
