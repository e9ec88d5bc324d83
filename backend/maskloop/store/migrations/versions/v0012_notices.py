"""The outbox of notices."""

from __future__ import annotations

import sqlalchemy as sa
from alembic.operations import Operations

revision = "0012"
down_revision = "0011"


def upgrade(op: Operations) -> None:
    """Add the table."""
    number = sa.BigInteger().with_variant(sa.Integer, "sqlite")
    at = sa.DateTime(timezone=True)
    op.create_table(
        "notices",
        sa.Column("notice_id", number, primary_key=True, autoincrement=True),
        sa.Column("key", sa.String, nullable=False),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("project_id", sa.BigInteger),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("facts", sa.Text, nullable=False),
        sa.Column("created_at", at, nullable=False),
        sa.Column("due_at", at, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("ended_at", at),
        sa.Column("error", sa.Text),
    )
    op.create_index("ux_notices_key", "notices", ["key"], unique=True)
    op.create_index("ix_notices_due", "notices", ["ended_at", "due_at"])
