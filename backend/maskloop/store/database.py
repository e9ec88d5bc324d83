"""The one door to the database: events in, corrections kept, trainings recorded; SQLite or PostgreSQL."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import Engine as SqlEngine
from sqlalchemy import create_engine, delete, event, func, select, update
from sqlalchemy.engine import make_url
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from maskloop.errors import StoreError
from maskloop.store.segments import segments_from_text, segments_to_text
from maskloop.store.tables import Base, CorrectionRow, EventRow, ProjectRow, PushedRow, TrainingRow
from maskloop.types import Correction, EditCounts

__all__ = ["Event", "Store", "Training"]

MAX_ATTEMPTS = 8
FIRST_RETRY_S = 2.0


@dataclass(frozen=True, kw_only=True)
class Event:
    """What an event row says."""

    event_id: int
    action: str
    project_id: int
    subject_ids: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Training:
    """What a training row says."""

    training_id: int
    project_id: int
    reason: str
    status: str
    step: int
    steps: int
    started_at: datetime | None
    finished_at: datetime | None
    outcome: dict[str, object] | None
    error: str | None


class Store:
    """Annotators' work and the loop's state, safe with several processes at once.

    Args:
        url: SQLAlchemy's address of the database.

    Raises:
        StoreError: the database cannot be opened.
    """

    def __init__(self, url: str) -> None:
        self._engine = _open(url)
        self._sessions = sessionmaker(self._engine, expire_on_commit=False)

    def close(self) -> None:
        """Give all connections back."""
        self._engine.dispose()

    # -- projects

    def save_project(self, project_id: int, label_config: str) -> None:
        """Remember a connected project, or its newer label config."""
        with self._write() as session:
            row = session.get(ProjectRow, project_id)
            if row is None:
                session.add(ProjectRow(project_id=project_id, label_config=label_config, connected_at=_now()))
            else:
                row.label_config = label_config

    def project_ids(self) -> tuple[int, ...]:
        """Return the connected projects."""
        with self._read() as session:
            return tuple(session.scalars(select(ProjectRow.project_id).order_by(ProjectRow.project_id)))

    # -- events

    def add_event(self, *, key: str, action: str, project_id: int, subject_ids: Sequence[int]) -> int | None:
        """Keep an event durably; return its number, or None where it is known already.

        Args:
            key: equal for the same event told twice.
            action: Label Studio's name of it.
            project_id: Label Studio's number.
            subject_ids: the annotations or tasks it is about.
        """
        row = EventRow(
            key=key,
            action=action,
            project_id=project_id,
            subject_ids=list(subject_ids),
            received_at=_now(),
            due_at=_now(),
        )
        try:
            with self._write() as session:
                session.add(row)
        except IntegrityError:
            return None
        return row.event_id

    def event(self, event_id: int) -> Event | None:
        """Return an event that is still to be done, or None."""
        with self._read() as session:
            row = session.get(EventRow, event_id)
            return None if row is None or row.status != "pending" else _event(row)

    def due_events(self, *, limit: int = 1000) -> tuple[Event, ...]:
        """Return pending events whose time has come, oldest first."""
        with self._read() as session:
            rows = session.scalars(
                select(EventRow)
                .where(EventRow.status == "pending", EventRow.due_at <= _now())
                .order_by(EventRow.event_id)
                .limit(limit)
            )
            return tuple(_event(row) for row in rows)

    def finish_event(self, event_id: int) -> None:
        """Mark an event as done."""
        with self._write() as session:
            session.execute(
                update(EventRow).where(EventRow.event_id == event_id).values(status="done", error=None)
            )

    def fail_event(self, event_id: int, error: str) -> str:
        """Note a failed attempt; return `pending` where it will be tried again, else `dead`."""
        with self._write() as session:
            row = session.get_one(EventRow, event_id)
            row.attempts += 1
            row.error = error[:4000]
            row.due_at = _now() + timedelta(seconds=FIRST_RETRY_S * 2**row.attempts)
            row.status = "dead" if row.attempts >= MAX_ATTEMPTS else "pending"
            return row.status

    def event_counts(self) -> dict[str, int]:
        """Return how many events there are of each status."""
        with self._read() as session:
            rows = session.execute(select(EventRow.status, func.count()).group_by(EventRow.status))
            return {status: count for status, count in rows}

    # -- corrections

    def save_correction(self, correction: Correction, *, split: str, sequence: int, result: str) -> bool:
        """Keep a correction unless a newer version of the annotation is kept already.

        Args:
            correction: what the annotator says.
            split: train or holdout.
            sequence: the number of the event that brought it.
            result: the regions as the annotator left them, JSON.

        Returns:
            Whether it was kept.
        """
        height, width = correction.size_hw
        with self._write() as session:
            row = session.get(CorrectionRow, correction.annotation_id, with_for_update=True)
            if row is not None and row.updated_at >= correction.updated_at and not row.deleted:
                return False
            session.merge(
                CorrectionRow(
                    annotation_id=correction.annotation_id,
                    project_id=correction.project_id,
                    task_id=correction.task_id,
                    split=split,
                    sequence=sequence,
                    updated_at=correction.updated_at,
                    image_key=correction.image_key,
                    height=height,
                    width=width,
                    segments=segments_to_text(correction.segments),
                    result=result,
                    kept=correction.edits.kept,
                    changed=correction.edits.changed,
                    added=correction.edits.added,
                    removed=correction.edits.removed,
                    lead_time_s=correction.lead_time_s,
                    model_version=correction.model_version,
                    deleted=False,
                )
            )
        return True

    def delete_corrections(
        self, *, annotation_ids: Sequence[int] = (), task_ids: Sequence[int] = (), project_id: int
    ) -> int:
        """Mark the corrections of deleted annotations or tasks as deleted; return how many there were."""
        with self._write() as session:
            result = session.execute(
                update(CorrectionRow)
                .where(
                    CorrectionRow.project_id == project_id,
                    CorrectionRow.annotation_id.in_(annotation_ids) | CorrectionRow.task_id.in_(task_ids),
                    CorrectionRow.deleted.is_(False),
                )
                .values(deleted=True)
            )
            return int(getattr(result, "rowcount", 0))

    def corrections(self, project_id: int, *, split: str | None = None) -> tuple[Correction, ...]:
        """Return a project's corrections, of one split or of both, by annotation number."""
        query = select(CorrectionRow).where(
            CorrectionRow.project_id == project_id, CorrectionRow.deleted.is_(False)
        )
        if split is not None:
            query = query.where(CorrectionRow.split == split)
        with self._read() as session:
            return tuple(
                _correction(row) for row in session.scalars(query.order_by(CorrectionRow.annotation_id))
            )

    def count_corrections(self, project_id: int, *, split: str, after_sequence: int = 0) -> int:
        """Return how many corrections of a split came after an event."""
        with self._read() as session:
            return (
                session.scalar(
                    select(func.count())
                    .select_from(CorrectionRow)
                    .where(
                        CorrectionRow.project_id == project_id,
                        CorrectionRow.split == split,
                        CorrectionRow.deleted.is_(False),
                        CorrectionRow.sequence > after_sequence,
                    )
                )
                or 0
            )

    def last_sequence(self, project_id: int) -> int:
        """Return the number of the newest event that brought a correction, 0 where none did."""
        with self._read() as session:
            return (
                session.scalar(
                    select(func.max(CorrectionRow.sequence)).where(CorrectionRow.project_id == project_id)
                )
                or 0
            )

    # -- trainings

    def request_training(self, project_id: int, reason: str) -> int:
        """Ask for a training; return the number of the one that waits already, or of a new one."""
        with self._write() as session:
            waiting = session.scalar(
                select(TrainingRow.training_id).where(
                    TrainingRow.project_id == project_id, TrainingRow.status == "queued"
                )
            )
            if waiting is not None:
                return waiting
            row = TrainingRow(project_id=project_id, reason=reason, requested_at=_now())
            session.add(row)
        return row.training_id

    def start_training(self, training_id: int, *, through_sequence: int) -> None:
        """Mark a training as running on the corrections up to an event."""
        self._set_training(
            training_id, status="running", started_at=_now(), through_sequence=through_sequence, error=None
        )

    def note_progress(self, training_id: int, *, step: int, steps: int) -> None:
        """Note how far a training is."""
        self._set_training(training_id, step=step, steps=steps)

    def finish_training(self, training_id: int, outcome: dict[str, object]) -> None:
        """Keep a training's verdict."""
        self._set_training(training_id, status="finished", finished_at=_now(), outcome=outcome)

    def fail_training(self, training_id: int, error: str) -> None:
        """Keep why a training failed."""
        self._set_training(training_id, status="failed", finished_at=_now(), error=error[:4000])

    def training(self, training_id: int) -> Training | None:
        """Return a training, or None."""
        with self._read() as session:
            row = session.get(TrainingRow, training_id)
            return None if row is None else _training(row)

    def trainings(self, project_id: int | None = None, *, status: str | None = None) -> tuple[Training, ...]:
        """Return trainings, oldest first."""
        query = select(TrainingRow).order_by(TrainingRow.training_id)
        if project_id is not None:
            query = query.where(TrainingRow.project_id == project_id)
        if status is not None:
            query = query.where(TrainingRow.status == status)
        with self._read() as session:
            return tuple(_training(row) for row in session.scalars(query))

    def trained_through(self, project_id: int) -> int:
        """Return the newest event that a running or finished training has seen."""
        with self._read() as session:
            return (
                session.scalar(
                    select(func.max(TrainingRow.through_sequence)).where(
                        TrainingRow.project_id == project_id, TrainingRow.status.in_(("running", "finished"))
                    )
                )
                or 0
            )

    # -- pushed predictions

    def begin_push(self, project_id: int, task_id: int, model_version: str) -> None:
        """Note that a prediction is about to be sent."""
        with contextlib.suppress(IntegrityError), self._write() as session:
            session.add(
                PushedRow(
                    project_id=project_id, task_id=task_id, model_version=model_version, prediction_id=None
                )
            )

    def finish_push(self, project_id: int, task_id: int, model_version: str, prediction_id: int) -> None:
        """Note that a prediction has arrived."""
        with self._write() as session:
            session.execute(
                update(PushedRow)
                .where(
                    PushedRow.project_id == project_id,
                    PushedRow.task_id == task_id,
                    PushedRow.model_version == model_version,
                )
                .values(prediction_id=prediction_id)
            )

    def pushed_tasks(self, project_id: int, model_version: str) -> dict[int, int | None]:
        """Return task -> prediction number of a version; None where its arrival is not known."""
        with self._read() as session:
            rows = session.execute(
                select(PushedRow.task_id, PushedRow.prediction_id).where(
                    PushedRow.project_id == project_id, PushedRow.model_version == model_version
                )
            )
            return {task_id: prediction_id for task_id, prediction_id in rows}

    def forget_pushes(self, project_id: int, task_ids: Sequence[int]) -> None:
        """Forget what was sent for tasks that are gone."""
        with self._write() as session:
            session.execute(
                delete(PushedRow).where(PushedRow.project_id == project_id, PushedRow.task_id.in_(task_ids))
            )

    # -- inside

    def _set_training(self, training_id: int, **values: object) -> None:
        with self._write() as session:
            session.execute(
                update(TrainingRow).where(TrainingRow.training_id == training_id).values(**values)
            )

    @contextlib.contextmanager
    def _read(self) -> Iterator[Session]:
        with _translated("read"), self._sessions() as session:
            yield session

    @contextlib.contextmanager
    def _write(self) -> Iterator[Session]:
        with _translated("write"), self._sessions.begin() as session:
            yield session


def _open(url: str) -> SqlEngine:
    with _translated("open"):
        address = make_url(url)
        if address.get_backend_name() == "sqlite":
            if address.database:
                Path(address.database).parent.mkdir(parents=True, exist_ok=True)
            engine = create_engine(address, connect_args={"timeout": 30})
            event.listen(engine, "connect", _tune_sqlite)
        else:
            engine = create_engine(address, pool_pre_ping=True)
        try:
            Base.metadata.create_all(engine)
        except SQLAlchemyError:
            # Two processes opening a new database at once: the second finds the tables made meanwhile.
            Base.metadata.create_all(engine)
        return engine


def _tune_sqlite(connection: object, _record: object) -> None:
    cursor = connection.cursor()  # type: ignore[attr-defined]
    # FULL: an event that was acknowledged survives a power cut.
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=30000", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


@contextlib.contextmanager
def _translated(action: str) -> Iterator[None]:
    try:
        yield
    except IntegrityError:
        raise
    except (SQLAlchemyError, OSError, ModuleNotFoundError) as exc:
        raise StoreError(
            f"database, {action}",
            expected="a database that answers",
            got=f"{type(exc).__name__}: {str(exc).splitlines()[0][:300]}",
            remedy="check MASKLOOP_DATABASE_URL, free disk space and the rights on MASKLOOP_HOME",
        ) from exc


def _now() -> datetime:
    return datetime.now(UTC)


def _event(row: EventRow) -> Event:
    return Event(
        event_id=row.event_id,
        action=row.action,
        project_id=row.project_id,
        subject_ids=tuple(row.subject_ids),
    )


def _correction(row: CorrectionRow) -> Correction:
    return Correction(
        project_id=row.project_id,
        task_id=row.task_id,
        annotation_id=row.annotation_id,
        updated_at=row.updated_at,
        image_key=row.image_key,
        size_hw=(row.height, row.width),
        segments=segments_from_text(row.segments, place=f"correction {row.annotation_id}"),
        edits=EditCounts(kept=row.kept, changed=row.changed, added=row.added, removed=row.removed),
        lead_time_s=row.lead_time_s,
        model_version=row.model_version,
    )


def _training(row: TrainingRow) -> Training:
    return Training(
        training_id=row.training_id,
        project_id=row.project_id,
        reason=row.reason,
        status=row.status,
        step=row.step,
        steps=row.steps,
        started_at=row.started_at,
        finished_at=row.finished_at,
        outcome=row.outcome,
        error=row.error,
    )
