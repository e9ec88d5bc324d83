"""What became of each predicted region, by its score; how many segments a task has and is drawn with."""

from __future__ import annotations

import sqlalchemy as sa
from alembic.operations import Operations

revision = "0007"
down_revision = "0006"


def upgrade(op: Operations) -> None:
    """Add the columns; older rows have none of it."""
    op.add_column("image_masks", sa.Column("region_outcomes", sa.JSON))
    op.add_column("scored_tasks", sa.Column("found", sa.Integer))
    op.add_column("scored_tasks", sa.Column("drawn", sa.Integer))
