"""How often, and how much, the shadow model's predictions differ from the champion's."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError

from maskloop.store.sessions import Sessions
from maskloop.store.tables import ShadowRow

__all__ = ["ShadowCount", "ShadowRepository"]


@dataclass(frozen=True, kw_only=True)
class ShadowCount:
    """What became of comparing two versions."""

    champion: str  # tag
    shadow: str  # tag
    images: int  # predicted by both
    differing: int  # of them, where the predictions differ
    agreement: float  # 0..1, mean over the images


class ShadowRepository:
    """Counters by project and pair of versions."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    def note(self, project_id: int, champion: str, shadow: str, *, agreement: float, differs: bool) -> None:
        """Count one image that both predicted; many processes may do so at once."""
        try:
            if not self._add(project_id, champion, shadow, agreement, differs):
                self._begin(project_id, champion, shadow, agreement, differs)
        except IntegrityError:  # another process began the row in between
            self._add(project_id, champion, shadow, agreement, differs)

    def of(self, project_id: int) -> tuple[ShadowCount, ...]:
        """Return a project's counts."""
        query = select(ShadowRow).where(ShadowRow.project_id == project_id)
        with self._sessions.read() as session:
            return tuple(
                ShadowCount(
                    champion=row.champion,
                    shadow=row.shadow,
                    images=row.images,
                    differing=row.differing,
                    agreement=row.agreement / row.images,
                )
                for row in session.scalars(query.order_by(ShadowRow.shadow, ShadowRow.champion))
            )

    def _add(self, project_id: int, champion: str, shadow: str, agreement: float, differs: bool) -> bool:
        with self._sessions.write() as session:
            changed = session.execute(
                update(ShadowRow)
                .where(
                    ShadowRow.project_id == project_id,
                    ShadowRow.champion == champion,
                    ShadowRow.shadow == shadow,
                )
                .values(
                    images=ShadowRow.images + 1,
                    differing=ShadowRow.differing + int(differs),
                    agreement=ShadowRow.agreement + agreement,
                )
                .returning(ShadowRow.images)
            )
            return changed.first() is not None

    def _begin(self, project_id: int, champion: str, shadow: str, agreement: float, differs: bool) -> None:
        with self._sessions.write() as session:
            session.add(
                ShadowRow(
                    project_id=project_id,
                    champion=champion,
                    shadow=shadow,
                    images=1,
                    differing=int(differs),
                    agreement=agreement,
                )
            )
