"""Edits of predicted regions by label and kind, and who made an annotation; older rows have neither."""

from __future__ import annotations

import sqlalchemy as sa
from alembic.operations import Operations

revision = "0006"
down_revision = "0005"


def upgrade(op: Operations) -> None:
    """Add the columns; nothing is derived for older rows, whose counts by origin stay."""
    op.add_column("image_masks", sa.Column("label_edits", sa.JSON))
    op.add_column("annotation_versions", sa.Column("annotator", sa.BigInteger))
