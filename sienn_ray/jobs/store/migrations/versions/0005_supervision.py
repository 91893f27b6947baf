"""Keep losses since the last progress, and the end of a failed run's log."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision: str | None = "0004"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("num_losses", sa.Integer, nullable=False, server_default="0"))
    op.add_column("jobs", sa.Column("loss_step", sa.BigInteger, nullable=False, server_default="0"))
    op.add_column("jobs", sa.Column("log_tail", sa.Text))
    op.add_column("exports", sa.Column("num_losses", sa.Integer, nullable=False, server_default="0"))
    op.add_column("exports", sa.Column("loss_progress", sa.Integer, nullable=False, server_default="0"))


def downgrade() -> None:
    for table, names in {
        "exports": ("loss_progress", "num_losses"),
        "jobs": ("log_tail", "loss_step", "num_losses"),
    }.items():
        with op.batch_alter_table(table) as batch:
            for name in names:
                batch.drop_column(name)
