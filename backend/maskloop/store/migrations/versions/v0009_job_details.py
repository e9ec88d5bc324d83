"""How a job goes while it runs: a training's loss, images a second, memory."""

from __future__ import annotations

import sqlalchemy as sa
from alembic.operations import Operations

revision = "0009"
down_revision = "0008"


def upgrade(op: Operations) -> None:
    """Add the column; jobs of before have none."""
    op.add_column("jobs", sa.Column("details", sa.JSON))
