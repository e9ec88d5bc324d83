"""The database: one repository for each kind of row."""

from __future__ import annotations

from pathlib import Path

from maskloop.store.annotations import AnnotationRepository
from maskloop.store.audit import AuditRepository
from maskloop.store.audit_outbox import AuditOutbox
from maskloop.store.corrections import CorrectionRepository
from maskloop.store.datasets import DatasetRepository
from maskloop.store.drifts import DriftRepository
from maskloop.store.edit_rows import EditRowRepository
from maskloop.store.holdout import HoldoutRepository
from maskloop.store.jobs import JobRepository
from maskloop.store.loop_counts import LoopCountsRepository
from maskloop.store.notices import NoticeRepository
from maskloop.store.overview import OverviewRepository
from maskloop.store.projects import ProjectRepository
from maskloop.store.pushes import PushRepository
from maskloop.store.reviews import ReviewRepository
from maskloop.store.scores import ScoreRepository
from maskloop.store.sessions import Sessions
from maskloop.store.shadows import ShadowRepository
from maskloop.store.shards import ShardRepository
from maskloop.store.trainings import TrainingRepository
from maskloop.store.trials import TrialRepository

__all__ = ["Store"]


class Store:
    """Annotations and the state of the loop; several processes may use it at the same time.

    Args:
        url: SQLAlchemy's address of the database.
        audit_folder: keeps audit entries while the database is away; by default they are logged only.

    Raises:
        StoreError: the database cannot be opened.
    """

    def __init__(self, url: str, *, audit_folder: Path | None = None) -> None:
        self._sessions = Sessions(url)
        self.scope = url  # tells installations apart, for `tracing`; it may hold a password
        self.projects = ProjectRepository(self._sessions)
        self.jobs = JobRepository(self._sessions)
        self.annotations = AnnotationRepository(self._sessions)
        self.corrections = CorrectionRepository(self._sessions)
        self.datasets = DatasetRepository(self._sessions)
        self.drifts = DriftRepository(self._sessions)
        self.edit_rows = EditRowRepository(self._sessions)
        self.holdout = HoldoutRepository(self._sessions)
        self.trainings = TrainingRepository(self._sessions, self.jobs)
        self.trials = TrialRepository(self._sessions)
        self.pushes = PushRepository(self._sessions)
        self.shadows = ShadowRepository(self._sessions)
        self.scores = ScoreRepository(self._sessions)
        self.loop_counts = LoopCountsRepository(self._sessions)
        self.overview = OverviewRepository(self._sessions)
        self.notices = NoticeRepository(self._sessions)
        self.audit = AuditRepository(self._sessions)
        self.audit_outbox = None if audit_folder is None else AuditOutbox(audit_folder)
        self.reviews = ReviewRepository(self._sessions)
        self.shards = ShardRepository(self._sessions, self.jobs)

    def close(self) -> None:
        """Give all connections back."""
        self._sessions.close()
