"""The annotations of a project that cannot be read, as lines for a person."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from maskloop.store.annotations import AnnotationRepository

__all__ = ["set_aside_lines"]

MAX_SHOWN = 20
MAX_REASON = 500  # characters


def set_aside_lines(project_id: int, annotations: AnnotationRepository) -> Iterator[str]:
    """Yield how many annotations cannot be read, and why; nothing where all can."""
    count = annotations.count_set_aside(project_id)
    if not count:
        return
    yield f"project {project_id}: {count} annotations cannot be read; nothing is learnt from them"
    for one in annotations.set_aside(project_id, limit=MAX_SHOWN):
        yield f"  annotation {one.annotation_id} of task {one.task_id}: {one.reason[:MAX_REASON]}"
    if count > MAX_SHOWN:
        yield f"  and {count - MAX_SHOWN} more"
