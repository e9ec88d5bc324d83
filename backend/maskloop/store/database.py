"""The one door to the database; each book in it keeps one kind of thing."""

from __future__ import annotations

from maskloop.store.annotations import AnnotationBook
from maskloop.store.corrections import CorrectionBook
from maskloop.store.jobs import JobBook
from maskloop.store.projects import ProjectBook
from maskloop.store.pushes import PushLog
from maskloop.store.scores import ScoreBook
from maskloop.store.sessions import Sessions
from maskloop.store.shadows import ShadowBook
from maskloop.store.shards import ShardBook
from maskloop.store.trainings import TrainingBook

__all__ = ["Store"]


class Store:
    """Annotators' work and the loop's state, safe with several processes at once.

    Args:
        url: SQLAlchemy's address of the database.

    Raises:
        StoreError: the database cannot be opened.
    """

    def __init__(self, url: str) -> None:
        self._sessions = Sessions(url)
        self.projects = ProjectBook(self._sessions)
        self.jobs = JobBook(self._sessions)
        self.annotations = AnnotationBook(self._sessions)
        self.corrections = CorrectionBook(self._sessions)
        self.trainings = TrainingBook(self._sessions, self.jobs)
        self.pushes = PushLog(self._sessions)
        self.shadows = ShadowBook(self._sessions)
        self.scores = ScoreBook(self._sessions)
        self.shards = ShardBook(self._sessions, self.jobs)

    def close(self) -> None:
        """Give all connections back."""
        self._sessions.close()
