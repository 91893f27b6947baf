"""There is an audit log, whose entries the database lets nobody change."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision: str | None = "0011"
branch_labels: str | None = None
depends_on: str | None = None

_SEQ = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_WORDS = "entries of the audit log are never changed, and go by its retention only"
# Entries go once the horizon has passed them, which only rises.
_SQLITE_REFUSES = f"BEGIN SELECT RAISE(ABORT, '{_WORDS}'); END"
_DELETE = "BEFORE DELETE ON audit_entries"
_SQLITE = (
    f"CREATE TRIGGER audit_entries_stay BEFORE UPDATE ON audit_entries {_SQLITE_REFUSES}",
    f"CREATE TRIGGER audit_entries_go_in_order {_DELETE} "  # nosec B608 # all of it is written here
    f"WHEN OLD.seq > (SELECT max(seq) FROM audit_horizon) {_SQLITE_REFUSES}",
    f"CREATE TRIGGER audit_horizon_rises BEFORE UPDATE ON audit_horizon WHEN NEW.seq < OLD.seq {_SQLITE_REFUSES}",
)
_REFUSES = f"RAISE EXCEPTION '{_WORDS}'"
_FUNCTION = "RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
_POSTGRESQL = (
    f"CREATE FUNCTION refuse_audit_change() {_FUNCTION} {_REFUSES}; END $$",
    f"CREATE FUNCTION audit_entry_may_go() {_FUNCTION} "  # nosec B608 # all of it is written here
    f"IF OLD.seq > (SELECT max(seq) FROM audit_horizon) THEN {_REFUSES}; END IF; RETURN OLD; END $$",
    "CREATE TRIGGER audit_entries_stay BEFORE UPDATE ON audit_entries "
    "FOR EACH ROW EXECUTE FUNCTION refuse_audit_change()",
    f"CREATE TRIGGER audit_entries_go_in_order {_DELETE} FOR EACH ROW EXECUTE FUNCTION audit_entry_may_go()",
    "CREATE TRIGGER audit_horizon_rises BEFORE UPDATE ON audit_horizon FOR EACH ROW WHEN (NEW.seq < OLD.seq) "
    "EXECUTE FUNCTION refuse_audit_change()",
)


def upgrade() -> None:
    op.create_table(
        "audit_entries",
        sa.Column("seq", _SEQ, primary_key=True, autoincrement=True),
        sa.Column("id", sa.String(64), nullable=False, unique=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, index=True),
        sa.Column("principal_kind", sa.String(16), nullable=False),
        sa.Column("principal_id", sa.Text),
        sa.Column("principal_name", sa.Text),
        sa.Column("owner", sa.Text),
        sa.Column("client", sa.Text),
        sa.Column("request_id", sa.Text),
        sa.Column("action", sa.Text),
        sa.Column("request", sa.Text),
        sa.Column("target_kind", sa.Text),
        sa.Column("target_id", sa.Text),
        sa.Column("status", sa.Integer),
        sa.Column("num_requests", sa.Integer, nullable=False),
        sa.Column("previous_hash", sa.String(64), nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
        # Numbers of entries that have gone aren't given again.
        sqlite_autoincrement=True,
    )
    op.create_index("ix_audit_entries_target", "audit_entries", ["target_id", "seq"])
    horizon = op.create_table(
        "audit_horizon",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
    )
    op.bulk_insert(horizon, [{"id": 1, "seq": 0, "hash": ""}])
    for statement in _SQLITE if op.get_bind().dialect.name == "sqlite" else _POSTGRESQL:
        op.execute(statement)


def downgrade() -> None:
    op.drop_table("audit_entries")
    op.drop_table("audit_horizon")
    if op.get_bind().dialect.name != "sqlite":
        op.execute("DROP FUNCTION refuse_audit_change()")
        op.execute("DROP FUNCTION audit_entry_may_go()")
