"""Sides of images by content, perceptual hashes, judgements; existing projects keep their holdout."""

from __future__ import annotations

import sqlalchemy as sa
from alembic.operations import Operations

revision = "0010"
down_revision = "0009"


def upgrade(op: Operations) -> None:
    """Make the tables; an image that is on both sides already judges, and is learnt from no more."""
    number = sa.BigInteger().with_variant(sa.Integer, "sqlite")
    at = sa.DateTime(timezone=True)
    op.create_table(
        "image_hashes",
        sa.Column("image_key", sa.String, primary_key=True),
        sa.Column("hash", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "image_sides",
        sa.Column("side_id", number, primary_key=True, autoincrement=True),
        sa.Column("project_id", sa.BigInteger, nullable=False),
        sa.Column("image_key", sa.String, nullable=False),
        sa.Column("side", sa.String, nullable=False),
        sa.Column("placed_at", at, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("ux_image_sides", "image_sides", ["project_id", "image_key"], unique=True)
    op.create_index("ix_image_sides_new", "image_sides", ["project_id", "side_id"])
    op.create_table(
        "judgements",
        sa.Column("training_id", number, primary_key=True, autoincrement=False),
        sa.Column("project_id", sa.BigInteger, nullable=False),
        sa.Column("champion", sa.String, nullable=False),
        sa.Column("challenger", sa.String, nullable=False),
        sa.Column("images", sa.Integer, nullable=False),
        sa.Column("required", sa.Float, nullable=False),
        sa.Column("confidence", sa.Float),
        sa.Column("promote", sa.Boolean, nullable=False),
        sa.Column("at", at, nullable=False),
    )
    op.create_index("ix_judgements_project", "judgements", ["project_id", "champion"])
    op.execute(
        "INSERT INTO image_sides (project_id, image_key, side, placed_at) "
        "SELECT a.project_id, m.image_key, MIN(a.split), MIN(a.updated_at) FROM annotations a "
        "JOIN image_masks m ON m.version_id = a.version_id GROUP BY a.project_id, m.image_key"
    )
    op.execute(
        "UPDATE annotations SET split = 'neither' WHERE split = 'train' AND EXISTS ("
        "SELECT 1 FROM image_masks m JOIN image_sides s ON s.image_key = m.image_key "
        "WHERE m.version_id = annotations.version_id AND s.project_id = annotations.project_id "
        "AND s.side = 'holdout')"
    )
