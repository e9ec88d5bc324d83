"""The audit trail, which the database itself keeps from being changed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic.operations import Operations

revision = "0011"
down_revision = "0010"

REFUSAL = "audit_records: records are never changed or deleted"


def upgrade(op: Operations) -> None:
    """Add the table and its triggers; the history of champions is copied when a project is next looked at."""
    number = sa.BigInteger().with_variant(sa.Integer, "sqlite")
    op.create_table(
        "audit_records",
        sa.Column("project_id", number, primary_key=True, autoincrement=False),
        sa.Column("number", number, primary_key=True, autoincrement=False),
        sa.Column("key", sa.String),
        sa.Column("record", sa.Text, nullable=False),
        sa.Column("digest", sa.String, nullable=False),
    )
    op.create_index("ux_audit_records_key", "audit_records", ["project_id", "key"], unique=True)
    if op.get_bind().dialect.name == "sqlite":
        for event in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER audit_records_no_{event.lower()} BEFORE {event} ON audit_records "
                f"BEGIN SELECT RAISE(ABORT, '{REFUSAL}'); END"
            )
        return
    op.execute(
        "CREATE FUNCTION audit_records_refuse() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN RAISE EXCEPTION '{REFUSAL}'; END $$"
    )
    for event, each in (("UPDATE OR DELETE", "ROW"), ("TRUNCATE", "STATEMENT")):
        name = event.split()[0].lower()
        op.execute(
            f"CREATE TRIGGER audit_records_no_{name} BEFORE {event} ON audit_records "
            f"FOR EACH {each} EXECUTE FUNCTION audit_records_refuse()"
        )
