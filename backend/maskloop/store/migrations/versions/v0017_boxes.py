"""Which segments were given as boxes, in place of whether an image has any.

Of an older row only the latter is known. There a segment that fills its whole bounding box counts as a box;
where none does (turned rectangles, ellipses), all count. Such rows are read again from the stored annotation
as soon as the project is compared with Label Studio, and are exact from then on.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import sqlalchemy as sa
from alembic.operations import Operations

from maskloop.mask_runs import runs_to_text

revision = "0017"
down_revision = "0016"

AT_ONCE = 100  # rows; masks are large


def upgrade(op: Operations) -> None:
    """Add the column, mark the segments of rows with boxes, and drop the flag that it replaces."""
    op.add_column("image_masks", sa.Column("boxes", sa.Integer, nullable=False, server_default="0"))
    connection = op.get_bind()
    names = ("version_id", "view", "image_index")
    rows = sa.table(
        "image_masks", *map(sa.column, (*names, "segments", "boxes", "approximate", "reader_version"))
    )
    places = connection.execute(
        sa.select(*(rows.c[name] for name in names)).where(rows.c.approximate == sa.true())
    ).all()
    for start in range(0, len(places), AT_ONCE):
        for place in places[start : start + AT_ONCE]:
            here = sa.and_(*(rows.c[name] == value for name, value in zip(names, place, strict=True)))
            segments = json.loads(connection.execute(sa.select(rows.c.segments).where(here)).scalar_one())
            marked = _marked(segments)
            text = json.dumps(marked, separators=(",", ":"))
            boxes = sum("box" in one for one in marked)
            connection.execute(
                sa.update(rows).where(here).values(segments=text, boxes=boxes, reader_version=0)
            )
    op.drop_column("image_masks", "approximate")


def _marked(segments: list[dict[str, Any]]) -> list[dict[str, Any]]:
    filled = [_fills_its_box(one) for one in segments]
    return [
        one | {"box": True} if of_this or not any(filled) else one
        for one, of_this in zip(segments, filled, strict=True)
    ]


def _fills_its_box(segment: dict[str, Any]) -> bool:
    height, width = segment["size"]
    return bool(segment["counts"] == runs_to_text(np.array([0, height * width], dtype=np.int64)))
