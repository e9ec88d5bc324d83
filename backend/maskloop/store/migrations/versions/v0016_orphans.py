"""How many annotations without a task Label Studio counts in a project."""

from __future__ import annotations

import sqlalchemy as sa
from alembic.operations import Operations

revision = "0016"
down_revision = "0015"


def upgrade(op: Operations) -> None:
    """Add the columns."""
    for name in ("orphans_submitted", "orphans_skipped"):
        op.add_column("projects", sa.Column(name, sa.Integer, nullable=False, server_default="0"))
