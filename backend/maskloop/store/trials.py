"""Versions on trial: the old champion goes on drawing for its half of the tasks."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select, update

from maskloop.store.sessions import Sessions, now
from maskloop.store.tables import TrialRow

__all__ = ["Trial", "TrialRepository"]


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One trial."""

    project_id: int
    new: str  # tag of the version on trial, which is the champion meanwhile
    old: str  # tag of the champion before it
    after_version: int  # annotations that are newer count
    started_at: datetime
    ended_at: datetime | None  # None: it runs
    verdict: str  # open, better, worse, alike; overtaken: another version became the champion meanwhile
    pairs: int  # images of each version that were compared
    old_share: float | None  # of the regions kept untouched
    new_share: float | None


class TrialRepository:
    """Trials of all projects; of each project one runs at most."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    def begin(self, project_id: int, *, new: str, old: str, after_version: int) -> bool:
        """Begin a trial, in place of one that runs; return False where the version was on trial already."""
        with self._sessions.write() as session:
            if session.get(TrialRow, (project_id, new)) is not None:
                return False
            session.execute(
                update(TrialRow)
                .where(TrialRow.project_id == project_id, TrialRow.ended_at.is_(None))
                .values(ended_at=now(), verdict="overtaken")
            )
            session.add(
                TrialRow(
                    project_id=project_id,
                    new_version=new,
                    old_version=old,
                    after_version=after_version,
                    started_at=now(),
                    verdict="open",
                    pairs=0,
                )
            )
            return True

    def running(self, project_id: int) -> Trial | None:
        """Return the trial that runs."""
        query = select(TrialRow).where(TrialRow.project_id == project_id, TrialRow.ended_at.is_(None))
        with self._sessions.read() as session:
            row = session.scalar(query)
            return None if row is None else _trial(row)

    def of(self, project_id: int) -> tuple[Trial, ...]:
        """Return a project's trials, newest first."""
        query = select(TrialRow).where(TrialRow.project_id == project_id)
        with self._sessions.read() as session:
            return tuple(_trial(row) for row in session.scalars(query.order_by(TrialRow.started_at.desc())))

    def note(
        self,
        trial: Trial,
        *,
        verdict: str,
        ended: bool,
        pairs: int,
        shares: tuple[float | None, float | None],
    ) -> bool:
        """Store how a trial that runs stands; return whether it still ran."""
        values: dict[str, Any] = {"pairs": pairs, "old_share": shares[0], "new_share": shares[1]}
        if ended:
            values |= {"verdict": verdict, "ended_at": now()}
        with self._sessions.write() as session:
            changed = session.execute(
                update(TrialRow)
                .where(
                    TrialRow.project_id == trial.project_id,
                    TrialRow.new_version == trial.new,
                    TrialRow.ended_at.is_(None),
                )
                .values(**values)
            )
            return bool(getattr(changed, "rowcount", 0))


def _trial(row: TrialRow) -> Trial:
    return Trial(
        project_id=row.project_id,
        new=row.new_version,
        old=row.old_version,
        after_version=row.after_version,
        started_at=row.started_at,
        ended_at=row.ended_at,
        verdict=row.verdict,
        pairs=row.pairs,
        old_share=row.old_share,
        new_share=row.new_share,
    )
