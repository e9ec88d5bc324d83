"""How the signals of drift stand, for the version of each project that serves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import delete, select

from maskloop.store.sessions import Sessions, now
from maskloop.store.tables import DriftRow

__all__ = ["DriftRepository", "DriftState"]


@dataclass(frozen=True, kw_only=True)
class DriftState:
    """One signal of one version."""

    model_version: str  # tag
    signal: str  # images, scores or corrections
    known: int  # images that say how the others should be
    images: int  # that were watched
    evidence: float  # base-10 logarithm; the alarm is at `threshold`
    threshold: float
    strange_share: float | None  # of the last 100 images; one in twenty is by chance
    alarms: int  # since the version serves
    first_alarm: int | None  # which image raised the first one, from 1
    last_alarm: int | None  # the same of the last one
    tasks: tuple[int, ...] = ()  # to label, where there is an alarm
    stamp: str = ""  # what it was measured from
    updated_at: datetime = field(default_factory=now)


class DriftRepository:
    """States by project, version and signal."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    def save(self, project_id: int, model_version: str, states: Sequence[DriftState]) -> None:
        """Store the states of the version that serves, in place of all earlier ones of the project."""
        with self._sessions.write() as session:
            session.execute(delete(DriftRow).where(DriftRow.project_id == project_id))
            session.add_all(
                DriftRow(
                    project_id=project_id,
                    model_version=model_version,
                    signal=one.signal,
                    known=one.known,
                    images=one.images,
                    evidence=one.evidence,
                    threshold=one.threshold,
                    strange_share=one.strange_share,
                    alarms=one.alarms,
                    first_alarm=one.first_alarm,
                    last_alarm=one.last_alarm,
                    tasks=list(one.tasks),
                    stamp=one.stamp,
                    updated_at=one.updated_at,
                )
                for one in states
            )

    def of(self, project_id: int, model_version: str) -> tuple[DriftState, ...]:
        """Return the states of a version, by signal."""
        query = select(DriftRow).where(
            DriftRow.project_id == project_id, DriftRow.model_version == model_version
        )
        with self._sessions.read() as session:
            return tuple(_state(row) for row in session.scalars(query.order_by(DriftRow.signal)))

    def newest(self) -> dict[int, tuple[DriftState, ...]]:
        """Return project -> the states that were measured last."""
        found: dict[int, list[DriftState]] = {}
        with self._sessions.read() as session:
            for row in session.scalars(select(DriftRow).order_by(DriftRow.project_id, DriftRow.signal)):
                found.setdefault(row.project_id, []).append(_state(row))
        return {project_id: tuple(states) for project_id, states in found.items()}


def _state(row: DriftRow) -> DriftState:
    return DriftState(
        model_version=row.model_version,
        signal=row.signal,
        known=row.known,
        images=row.images,
        evidence=row.evidence,
        threshold=row.threshold,
        strange_share=row.strange_share,
        alarms=row.alarms,
        first_alarm=row.first_alarm,
        last_alarm=row.last_alarm,
        tasks=tuple(row.tasks),
        stamp=row.stamp,
        updated_at=row.updated_at,
    )
