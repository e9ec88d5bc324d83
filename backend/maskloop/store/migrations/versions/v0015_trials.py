"""Versions on trial, and which version made a stored prediction."""

from __future__ import annotations

import sqlalchemy as sa
from alembic.operations import Operations

revision = "0015"
down_revision = "0014"


def upgrade(op: Operations) -> None:
    """Add the table and the column."""
    number = sa.BigInteger().with_variant(sa.Integer, "sqlite")
    at = sa.DateTime(timezone=True)
    op.create_table(
        "trials",
        sa.Column("project_id", number, primary_key=True, autoincrement=False),
        sa.Column("new_version", sa.String, primary_key=True),
        sa.Column("old_version", sa.String, nullable=False),
        sa.Column("after_version", sa.BigInteger, nullable=False),
        sa.Column("started_at", at, nullable=False),
        sa.Column("ended_at", at),
        sa.Column("verdict", sa.String, nullable=False),
        sa.Column("pairs", sa.Integer, nullable=False),
        sa.Column("old_share", sa.Float),
        sa.Column("new_share", sa.Float),
    )
    op.add_column("scored_tasks", sa.Column("made_by", sa.String))
