"""The regions of a prediction that annotators deleted, for trainings."""

from __future__ import annotations

import sqlalchemy as sa
from alembic.operations import Operations

revision = "0018"
down_revision = "0017"


def upgrade(op: Operations) -> None:
    """Add the column; of older rows it is not known, and their predictions may be gone."""
    op.add_column("image_masks", sa.Column("deleted", sa.Text))
