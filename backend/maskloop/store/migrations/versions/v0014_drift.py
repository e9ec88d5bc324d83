"""How the signals of drift stand, and how the images of predicted tasks look."""

from __future__ import annotations

import sqlalchemy as sa
from alembic.operations import Operations

revision = "0014"
down_revision = "0013"


def upgrade(op: Operations) -> None:
    """Add the table and the column."""
    number = sa.BigInteger().with_variant(sa.Integer, "sqlite")
    op.create_table(
        "drift_signals",
        sa.Column("project_id", number, primary_key=True, autoincrement=False),
        sa.Column("model_version", sa.String, primary_key=True),
        sa.Column("signal", sa.String, primary_key=True),
        sa.Column("known", sa.Integer, nullable=False),
        sa.Column("images", sa.Integer, nullable=False),
        sa.Column("evidence", sa.Float, nullable=False),
        sa.Column("threshold", sa.Float, nullable=False),
        sa.Column("strange_share", sa.Float),
        sa.Column("alarms", sa.Integer, nullable=False),
        sa.Column("first_alarm", sa.Integer),
        sa.Column("last_alarm", sa.Integer),
        sa.Column("tasks", sa.JSON, nullable=False),
        sa.Column("stamp", sa.String, nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.add_column("scored_tasks", sa.Column("look", sa.LargeBinary))
