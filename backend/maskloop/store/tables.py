"""The database's tables (SQLAlchemy 2, declarative); `database.py` holds everything done with them."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import JSON, DateTime, Dialect, Index, Text, TypeDecorator, UniqueConstraint, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

__all__ = ["Base", "CorrectionRow", "EventRow", "ProjectRow", "PushedRow", "TrainingRow"]


class UtcDateTime(TypeDecorator[datetime]):
    """An aware datetime, kept as UTC; SQLite would forget the time zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Turn an aware datetime into UTC."""
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Give the time zone back."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Base(DeclarativeBase):
    """All tables."""


class ProjectRow(Base):
    """A Label Studio project that maskloop works for."""

    __tablename__ = "projects"

    project_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    label_config: Mapped[str] = mapped_column(Text)
    options: Mapped[dict[str, object]] = mapped_column(JSON, default=dict)  # from the backend's extra_params
    connected_at: Mapped[datetime] = mapped_column(UtcDateTime)


class EventRow(Base):
    """Something Label Studio told us, until it is done; the queue only carries its number."""

    __tablename__ = "events"
    __table_args__ = (Index("ix_events_status_due", "status", "due_at"),)

    event_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    key: Mapped[str] = mapped_column(unique=True)  # the same event told twice has the same key
    action: Mapped[str]
    project_id: Mapped[int]
    subject_ids: Mapped[list[int]] = mapped_column(JSON)  # annotation or task numbers
    received_at: Mapped[datetime] = mapped_column(UtcDateTime)
    status: Mapped[str] = mapped_column(default="pending")  # pending, done, dead
    due_at: Mapped[datetime] = mapped_column(UtcDateTime)  # not tried again before
    attempts: Mapped[int] = mapped_column(default=0)
    error: Mapped[str | None] = mapped_column(Text, default=None)


class CorrectionRow(Base):
    """The newest version of one annotation."""

    __tablename__ = "corrections"
    __table_args__ = (Index("ix_corrections_project_split", "project_id", "split", "deleted"),)

    annotation_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    project_id: Mapped[int]
    task_id: Mapped[int]
    split: Mapped[str]  # train or holdout, by a hash of the task
    sequence: Mapped[int]  # the event that brought it, so that "new since" can be asked
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)
    image_key: Mapped[str]
    height: Mapped[int]
    width: Mapped[int]
    segments: Mapped[str] = mapped_column(Text)
    result: Mapped[str] = mapped_column(Text)  # the regions as the annotator left them (JSON)
    kept: Mapped[int]
    changed: Mapped[int]
    added: Mapped[int]
    removed: Mapped[int]
    lead_time_s: Mapped[float | None]
    model_version: Mapped[str | None]
    ground_truth: Mapped[bool] = mapped_column(default=False)
    approximate: Mapped[bool] = mapped_column(default=False)
    deleted: Mapped[bool] = mapped_column(default=False)


class TrainingRow(Base):
    """One training of one project, from the wish to the verdict."""

    __tablename__ = "trainings"
    __table_args__ = (
        Index("ix_trainings_project_status", "project_id", "status"),
        # Of each project at most one waits, whoever asks at the same moment.
        Index(
            "ux_trainings_waiting",
            "project_id",
            unique=True,
            sqlite_where=text("status = 'queued'"),
            postgresql_where=text("status = 'queued'"),
        ),
    )

    training_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    project_id: Mapped[int]
    reason: Mapped[str]
    status: Mapped[str] = mapped_column(default="queued")  # queued, running, finished, failed
    requested_at: Mapped[datetime] = mapped_column(UtcDateTime)
    started_at: Mapped[datetime | None] = mapped_column(UtcDateTime, default=None)
    finished_at: Mapped[datetime | None] = mapped_column(UtcDateTime, default=None)
    through_sequence: Mapped[int] = mapped_column(default=0)  # corrections up to here were in the snapshot
    step: Mapped[int] = mapped_column(default=0)
    steps: Mapped[int] = mapped_column(default=0)
    outcome: Mapped[dict[str, object] | None] = mapped_column(JSON, default=None)
    error: Mapped[str | None] = mapped_column(Text, default=None)


class PushedRow(Base):
    """A prediction that was sent to Label Studio, or is about to be."""

    __tablename__ = "pushed_predictions"
    __table_args__ = (UniqueConstraint("project_id", "task_id", "model_version"),)

    pushed_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    project_id: Mapped[int]
    task_id: Mapped[int]
    model_version: Mapped[str]
    prediction_id: Mapped[int | None]  # None: sent, but whether it arrived is not known yet
