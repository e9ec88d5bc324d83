"""Masks of several images of a task, versions that are set aside, projects that are away; plain names."""

from __future__ import annotations

import sqlalchemy as sa
from alembic.operations import Operations

revision = "0005"
down_revision = "0004"

KEPT_COLUMNS = (
    "version_id, image_key, image_uri, height, width, segments, kept, changed, added, removed, approximate, "
    "model_version"
)


def upgrade(op: Operations) -> None:
    """Move the masks to a table with the image in its key; rename a kind of job."""
    number = sa.BigInteger().with_variant(sa.Integer, "sqlite")
    op.create_table(
        "image_masks",
        sa.Column("version_id", number, primary_key=True, autoincrement=False),
        sa.Column("view", sa.String, primary_key=True),
        sa.Column("image_index", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("image_key", sa.String, nullable=False),
        sa.Column("image_uri", sa.Text, nullable=False),
        sa.Column("height", sa.Integer, nullable=False),
        sa.Column("width", sa.Integer, nullable=False),
        sa.Column("segments", sa.Text, nullable=False),
        sa.Column("kept", sa.Integer, nullable=False),
        sa.Column("changed", sa.Integer, nullable=False),
        sa.Column("added", sa.Integer, nullable=False),
        sa.Column("removed", sa.Integer, nullable=False),
        sa.Column("approximate", sa.Boolean, nullable=False),
        sa.Column("model_version", sa.String),
        sa.Column("reader_version", sa.Integer, nullable=False),
    )
    # Read by an older reader (0): the next comparison with Label Studio reads the versions again.
    op.execute(
        f"INSERT INTO image_masks ({KEPT_COLUMNS}, view, image_index, reader_version) "  # noqa: S608
        f"SELECT {KEPT_COLUMNS}, '', 0, 0 FROM masks"
    )
    op.drop_table("masks")
    op.create_table(
        "set_aside_versions",
        sa.Column("version_id", number, primary_key=True, autoincrement=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("reader_version", sa.Integer, nullable=False),
        sa.Column("label_config", sa.String, nullable=False),
        sa.Column("set_aside_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.add_column("projects", sa.Column("missing_since", sa.DateTime(timezone=True)))
    op.add_column(
        "projects", sa.Column("missing_checks", sa.Integer, nullable=False, server_default=sa.text("0"))
    )
    op.execute("UPDATE jobs SET kind = 'prelabel' WHERE kind = 'renewal'")
