"""Suspicions that were shown to reviewers, and what these decided."""

from __future__ import annotations

import sqlalchemy as sa
from alembic.operations import Operations

revision = "0013"
down_revision = "0012"


def upgrade(op: Operations) -> None:
    """Make the table."""
    op.create_table(
        "suspicions",
        sa.Column(
            "suspicion_id",
            sa.BigInteger().with_variant(sa.Integer, "sqlite"),
            primary_key=True,
            autoincrement=True,
        ),
        sa.Column("project_id", sa.BigInteger, nullable=False),
        sa.Column("task_id", sa.BigInteger, nullable=False),
        sa.Column("annotation_id", sa.BigInteger, nullable=False),
        sa.Column("version_id", sa.BigInteger, nullable=False),
        sa.Column("view", sa.String, nullable=False),
        sa.Column("image_index", sa.Integer, nullable=False),
        sa.Column("image_key", sa.String, nullable=False),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("score", sa.Float, nullable=False),
        sa.Column("segment", sa.Text, nullable=False),
        sa.Column("missing", sa.Boolean, nullable=False),
        sa.Column("features", sa.JSON, nullable=False),
        sa.Column("verdict", sa.String, nullable=False),
        sa.Column("shown_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("decided_at", sa.DateTime(timezone=True)),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_suspicions_project", "suspicions", ["project_id", "verdict"])
