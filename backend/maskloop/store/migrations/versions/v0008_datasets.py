"""Snapshots that were made, and the numbers of labels in exports."""

from __future__ import annotations

import sqlalchemy as sa
from alembic.operations import Operations

revision = "0008"
down_revision = "0007"


def upgrade(op: Operations) -> None:
    """Make both tables; labels get their numbers at the first snapshot."""
    number = sa.BigInteger().with_variant(sa.Integer, "sqlite")
    op.create_table(
        "categories",
        sa.Column("project_id", number, primary_key=True, autoincrement=False),
        sa.Column("category_id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("label", sa.String, nullable=False),
    )
    op.create_index("ux_categories_label", "categories", ["project_id", "label"], unique=True)
    op.create_table(
        "datasets",
        sa.Column("dataset_id", number, primary_key=True, autoincrement=True),
        sa.Column("digest", sa.String, nullable=False),
        sa.Column("project_id", sa.BigInteger),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("images", sa.Integer, nullable=False),
        sa.Column("objects", sa.Integer, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_datasets_name", "datasets", ["name"])
    op.create_index("ix_datasets_project", "datasets", ["project_id"])
