"""How much a shadow model differs from the champion."""

from __future__ import annotations

import sqlalchemy as sa
from alembic.operations import Operations

revision = "0003"
down_revision = "0002"


def upgrade(op: Operations) -> None:
    """Make the table."""
    op.create_table(
        "shadow_counts",
        sa.Column(
            "project_id",
            sa.BigInteger().with_variant(sa.Integer, "sqlite"),
            primary_key=True,
            autoincrement=False,
        ),
        sa.Column("champion", sa.String, primary_key=True),
        sa.Column("shadow", sa.String, primary_key=True),
        sa.Column("images", sa.Integer, nullable=False),
        sa.Column("differing", sa.Integer, nullable=False),
        sa.Column("agreement", sa.Float, nullable=False),
    )
