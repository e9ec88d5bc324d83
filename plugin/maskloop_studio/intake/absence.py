"""When a project that Label Studio does not find counts as deleted: one 404 is no proof.

A project is away after the first 404, and deleted only after several over a time. Label Studio answers 404
also while a backup is restored, or where a token lost its access for a while.
"""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from maskloop.log import log_action

if TYPE_CHECKING:
    from maskloop.store.projects import Absence, ProjectRepository

__all__ = ["MIN_ABSENCE", "MIN_CHECKS", "is_deleted", "note_missing"]

logger = logging.getLogger(__name__)
MIN_CHECKS = 3  # 404s in a row
MIN_ABSENCE = timedelta(hours=1)  # from the first to the last of them


def is_deleted(absence: Absence, at: datetime) -> bool:
    """Return whether a project that was away so often, for so long, counts as deleted.

    Args:
        absence: what was counted.
        at: the time of the last 404 (aware).
    """
    return absence.checks >= MIN_CHECKS and at - absence.since >= MIN_ABSENCE


def note_missing(project_id: int, projects: ProjectRepository, *, at: datetime) -> bool:
    """Store that Label Studio does not find a project; return whether it counts as deleted now.

    Args:
        project_id: Label Studio's number.
        projects: where connected projects are stored; one that is not connected never counts as deleted.
        at: when Label Studio answered (aware).
    """
    absence = projects.note_missing(project_id, at=at)
    if absence is None:
        return False
    deleted = is_deleted(absence, at)
    if not deleted:
        log_action(
            logger,
            "project_away",
            level=logging.WARNING,
            project_id=project_id,
            checks=absence.checks,
            since=absence.since.isoformat(),
            deleted_after_checks=MIN_CHECKS,
            deleted_after_s=MIN_ABSENCE.total_seconds(),
        )
    return deleted
