"""The database's tables (SQLAlchemy 2, declarative); the repositories in this folder read and write them.

A change here needs a step in `migrations/`; a test compares what the steps build with these classes.
"""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    Dialect,
    Float,
    Index,
    Integer,
    LargeBinary,
    Text,
    TypeDecorator,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

__all__ = [
    "AnnotationRow",
    "AuditRow",
    "Base",
    "CategoryRow",
    "DatasetRow",
    "DriftRow",
    "ImageHashRow",
    "ImageSideRow",
    "JobRow",
    "JudgementRow",
    "LabelConfigRow",
    "MasksRow",
    "NoticeRow",
    "ProjectRow",
    "PushedRow",
    "ScoredRow",
    "SecretRow",
    "SetAsideRow",
    "ShadowRow",
    "SuspicionRow",
    "TrainingRow",
    "TrialRow",
    "UtcDateTime",
    "VersionRow",
]

# SQLite numbers rows by itself only where the column is called INTEGER.
RowNumber = BigInteger().with_variant(Integer, "sqlite")


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


class NoticeRow(Base):
    """A message to MASKLOOP_NOTIFY_URL: it waits, arrived, or was given up."""

    __tablename__ = "notices"
    __table_args__ = (
        Index("ux_notices_key", "key", unique=True),
        Index("ix_notices_due", "ended_at", "due_at"),
    )

    notice_id: Mapped[int] = mapped_column(RowNumber, primary_key=True, autoincrement=True)
    key: Mapped[str]  # of the event: it is told once
    kind: Mapped[str]
    project_id: Mapped[int | None] = mapped_column(BigInteger)
    text: Mapped[str] = mapped_column(Text)
    facts: Mapped[str] = mapped_column(Text)  # JSON
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    due_at: Mapped[datetime] = mapped_column(UtcDateTime)  # not sent before
    attempts: Mapped[int] = mapped_column(default=0)  # that went wrong
    ended_at: Mapped[datetime | None] = mapped_column(UtcDateTime, default=None)  # it arrived or was given up
    error: Mapped[str | None] = mapped_column(Text, default=None)  # of the last attempt


class ProjectRow(Base):
    """A Label Studio project that maskloop works for."""

    __tablename__ = "projects"

    project_id: Mapped[int] = mapped_column(RowNumber, primary_key=True, autoincrement=False)
    label_config: Mapped[str] = mapped_column(Text)
    options: Mapped[dict[str, object]] = mapped_column(JSON, default=dict)  # from the backend's extra_params
    connected_at: Mapped[datetime] = mapped_column(UtcDateTime)
    watermark: Mapped[datetime | None] = mapped_column(UtcDateTime, default=None)  # reconciled up to here
    listed_at: Mapped[datetime | None] = mapped_column(UtcDateTime, default=None)  # when all was compared
    missing_since: Mapped[datetime | None] = mapped_column(UtcDateTime, default=None)  # first 404 in a row
    missing_checks: Mapped[int] = mapped_column(default=0)  # 404s in a row
    # Annotations without a task that Label Studio counts but lists nowhere, as the last listing showed.
    orphans_submitted: Mapped[int] = mapped_column(default=0)
    orphans_skipped: Mapped[int] = mapped_column(default=0)


class JobRow(Base):
    """One piece of work: inbox, outbox and dead-letter list in one table; the queue holds its number only."""

    __tablename__ = "jobs"
    __table_args__ = (
        Index("ix_jobs_status_due", "status", "due_at"),
        Index("ix_jobs_project_kind", "project_id", "kind", "status"),
        # Of each project and kind at most one job waits and at most one runs, also when several processes
        # ask at the same moment; events and shards are not limited.
        *(
            Index(
                f"ux_jobs_{status}",
                "kind",
                "project_id",
                unique=True,
                sqlite_where=text(f"status = '{status}' AND kind NOT IN ('event', 'shard')"),
                postgresql_where=text(f"status = '{status}' AND kind NOT IN ('event', 'shard')"),
            )
            for status in ("waiting", "running")
        ),
        {"sqlite_autoincrement": True},  # a number is never given twice: folders are named after it
    )

    job_id: Mapped[int] = mapped_column(RowNumber, primary_key=True, autoincrement=True)
    kind: Mapped[str]  # event, prelabel, shard, training, sync
    project_id: Mapped[int] = mapped_column(BigInteger)
    action: Mapped[str]  # an event's name in Label Studio, a shard's model version, or the reason
    subject_ids: Mapped[list[int]] = mapped_column(JSON)  # annotations or tasks of an event, tasks of a shard
    key: Mapped[str | None] = mapped_column(unique=True)  # the same event sent twice has the same key
    status: Mapped[str] = mapped_column(default="waiting")
    attempts: Mapped[int] = mapped_column(default=0)  # that ended in an error
    lapses: Mapped[int] = mapped_column(default=0)  # that ended with their worker
    error: Mapped[str | None] = mapped_column(Text, default=None)
    due_at: Mapped[datetime] = mapped_column(UtcDateTime)  # not begun before
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    started_at: Mapped[datetime | None] = mapped_column(UtcDateTime, default=None)
    finished_at: Mapped[datetime | None] = mapped_column(UtcDateTime, default=None)
    owner: Mapped[str | None] = mapped_column(default=None)  # the worker that has it
    lease_until: Mapped[datetime | None] = mapped_column(UtcDateTime, default=None)  # then others may take it
    done: Mapped[int] = mapped_column(default=0)
    total: Mapped[int] = mapped_column(default=0)
    # how it goes while it runs: a training's loss, images a second and the like
    details: Mapped[dict[str, float] | None] = mapped_column(JSON(none_as_null=True), default=None)
    cancel_requested: Mapped[bool] = mapped_column(default=False)
    outcome: Mapped[dict[str, object] | None] = mapped_column(JSON, default=None)


class AnnotationRow(Base):
    """One annotation as it stands now."""

    __tablename__ = "annotations"
    __table_args__ = (
        Index("ix_annotations_dataset", "project_id", "state", "split", "version_id"),
        Index("ix_annotations_stream", "project_id", "state", "annotation_id"),
        Index("ix_annotations_task", "project_id", "task_id"),
    )

    annotation_id: Mapped[int] = mapped_column(RowNumber, primary_key=True, autoincrement=False)
    project_id: Mapped[int] = mapped_column(BigInteger)
    task_id: Mapped[int] = mapped_column(BigInteger)
    split: Mapped[str]  # train, holdout or neither: the side of its images
    version_id: Mapped[int] = mapped_column(BigInteger)  # the newest
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)  # of that version
    state: Mapped[str]  # submitted, skipped or deleted
    deleted_at: Mapped[datetime | None] = mapped_column(UtcDateTime, default=None)


class VersionRow(Base):
    """An annotation as it was saved at one time; never changed, never deleted."""

    __tablename__ = "annotation_versions"
    __table_args__ = (
        Index("ux_versions_said", "annotation_id", "updated_at", "digest", unique=True),
        {"sqlite_autoincrement": True},
    )

    version_id: Mapped[int] = mapped_column(RowNumber, primary_key=True, autoincrement=True)
    annotation_id: Mapped[int] = mapped_column(BigInteger)
    project_id: Mapped[int] = mapped_column(BigInteger)
    task_id: Mapped[int] = mapped_column(BigInteger)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)
    state: Mapped[str]  # submitted or skipped
    content: Mapped[str] = mapped_column("said", Text)  # Label Studio's JSON
    digest: Mapped[str]  # SHA-256 of it
    label_config: Mapped[str]  # digest of the label config it was made under
    lead_time_s: Mapped[float | None] = mapped_column(Float)
    annotator: Mapped[int | None] = mapped_column(
        BigInteger
    )  # user number; None: an older maskloop stored it
    ground_truth: Mapped[bool] = mapped_column(default=False)
    taken_at: Mapped[datetime] = mapped_column(UtcDateTime)


class LabelConfigRow(Base):
    """A label config that annotations were made under."""

    __tablename__ = "label_configs"

    digest: Mapped[str] = mapped_column(primary_key=True)  # SHA-256 of the text
    text: Mapped[str] = mapped_column(Text)


class MasksRow(Base):
    """The masks of a version on one image; can be derived again from the version and the image."""

    __tablename__ = "image_masks"

    version_id: Mapped[int] = mapped_column(RowNumber, primary_key=True, autoincrement=False)
    view: Mapped[str] = mapped_column(primary_key=True, default="")  # which of the task's images
    image_index: Mapped[int] = mapped_column(primary_key=True, autoincrement=False, default=0)  # its page
    image_key: Mapped[str]  # SHA-256 of the image file
    image_uri: Mapped[str] = mapped_column(Text)  # where it can be had again
    height: Mapped[int]
    width: Mapped[int]
    segments: Mapped[str] = mapped_column(Text)
    kept: Mapped[int]
    changed: Mapped[int]
    added: Mapped[int]
    removed: Mapped[int]
    # label -> kind of edit -> regions; None: counted by origin, not by a comparison of geometry
    label_edits: Mapped[dict[str, dict[str, int]] | None] = mapped_column(JSON(none_as_null=True))
    # [label, score, outcome] of each predicted region; None: an older maskloop stored it, or as above
    region_outcomes: Mapped[list[tuple[str, float, str]] | None] = mapped_column(JSON(none_as_null=True))
    boxes: Mapped[int] = mapped_column(default=0, server_default="0")  # segments that were given as boxes
    # predicted segments that the annotator deleted; None: an older maskloop stored it, or as above
    deleted: Mapped[str | None] = mapped_column(Text)
    model_version: Mapped[str | None]  # whose prediction was corrected
    reader_version: Mapped[int] = mapped_column(default=0)  # of the code that read the regions


class SetAsideRow(Base):
    """A version that could not be read: nothing is learnt from it, and nothing is judged by it."""

    __tablename__ = "set_aside_versions"

    version_id: Mapped[int] = mapped_column(RowNumber, primary_key=True, autoincrement=False)
    reason: Mapped[str] = mapped_column(Text)
    reader_version: Mapped[int]  # of the code that tried to read it
    label_config: Mapped[str]  # digest of the project's label config at that time
    set_aside_at: Mapped[datetime] = mapped_column(UtcDateTime)


class TrainingRow(Base):
    """Which versions a training learnt from; its job has the rest."""

    __tablename__ = "trainings"
    __table_args__ = (Index("ix_trainings_project", "project_id", "through_version"),)

    training_id: Mapped[int] = mapped_column(RowNumber, primary_key=True, autoincrement=False)  # its job
    project_id: Mapped[int] = mapped_column(BigInteger)
    through_version: Mapped[int] = mapped_column(BigInteger)  # versions up to here were in the snapshot


class ImageHashRow(Base):
    """The perceptual hash of an image, by which copies are found."""

    __tablename__ = "image_hashes"

    image_key: Mapped[str] = mapped_column(primary_key=True)  # SHA-256 of the image file
    hash: Mapped[bytes] = mapped_column(LargeBinary)


class ImageSideRow(Base):
    """On which side an image of a project is: it is learnt from, it judges, or neither."""

    __tablename__ = "image_sides"
    __table_args__ = (
        Index("ux_image_sides", "project_id", "image_key", unique=True),
        Index("ix_image_sides_new", "project_id", "side_id"),
        {"sqlite_autoincrement": True},  # processes read the rows that are newer than those they know
    )

    side_id: Mapped[int] = mapped_column(RowNumber, primary_key=True, autoincrement=True)
    project_id: Mapped[int] = mapped_column(BigInteger)
    image_key: Mapped[str]
    side: Mapped[str]  # train, holdout or neither
    placed_at: Mapped[datetime] = mapped_column(UtcDateTime)


class JudgementRow(Base):
    """A challenger that was judged on the holdout: each one uses up a part of what the holdout can prove."""

    __tablename__ = "judgements"
    __table_args__ = (Index("ix_judgements_project", "project_id", "champion"),)

    training_id: Mapped[int] = mapped_column(RowNumber, primary_key=True, autoincrement=False)  # its job
    project_id: Mapped[int] = mapped_column(BigInteger)
    champion: Mapped[str]  # tags
    challenger: Mapped[str]
    images: Mapped[int]  # that judged
    required: Mapped[float] = mapped_column(Float)  # confidence, 0..1
    confidence: Mapped[float | None] = mapped_column(Float)
    promote: Mapped[bool]
    at: Mapped[datetime] = mapped_column(UtcDateTime)


class PushedRow(Base):
    """A prediction that was sent to Label Studio, or is about to be."""

    __tablename__ = "pushed_predictions"
    __table_args__ = (
        Index("ux_pushed_predictions", "project_id", "model_version", "task_id", unique=True),
        {"sqlite_autoincrement": True},
    )

    pushed_id: Mapped[int] = mapped_column(RowNumber, primary_key=True, autoincrement=True)
    project_id: Mapped[int] = mapped_column(BigInteger)
    task_id: Mapped[int] = mapped_column(BigInteger)
    model_version: Mapped[str]
    prediction_id: Mapped[int | None] = mapped_column(BigInteger)  # None: whether it arrived is not known yet


class ScoredRow(Base):
    """A model version's prediction of a task, and the task's place in the queue."""

    __tablename__ = "scored_tasks"
    __table_args__ = (
        Index("ux_scored_tasks", "project_id", "model_version", "task_id", unique=True),
        Index("ix_scored_tasks_untold", "project_id", "model_version", "told", "task_id"),
        {"sqlite_autoincrement": True},
    )

    scored_id: Mapped[int] = mapped_column(RowNumber, primary_key=True, autoincrement=True)
    project_id: Mapped[int] = mapped_column(BigInteger)
    model_version: Mapped[str]
    task_id: Mapped[int] = mapped_column(BigInteger)
    confidence: Mapped[float | None] = mapped_column(Float)  # None: it could not be predicted
    signals: Mapped[dict[str, float | None] | None] = mapped_column(JSON(none_as_null=True))
    embedding: Mapped[bytes | None] = mapped_column(LargeBinary)  # float16
    regions: Mapped[bytes | None] = mapped_column(LargeBinary)  # compressed JSON, until they are pushed
    found: Mapped[int | None]  # segments on its images; None: an older maskloop stored it
    drawn: Mapped[int | None]  # of these: segments that annotators are shown
    error: Mapped[str | None] = mapped_column(Text)  # why it has no prediction, or was not taken
    labelled: Mapped[bool] = mapped_column(default=False)  # it had an annotation: only its embedding counts
    score: Mapped[float | None] = mapped_column(Float)  # as arranged; None: not arranged yet
    cluster: Mapped[int | None] = mapped_column(Integer)  # the group of alike images it is in
    queue: Mapped[int | None] = mapped_column(Integer)  # the cluster that Label Studio shows
    at_random: Mapped[bool] = mapped_column(default=False)  # drawn by chance
    # Label Studio has score, cluster and regions. The column keeps its name, so that an older version that
    # still runs on another machine can go on.
    pushed: Mapped[bool] = mapped_column("told", default=False)
    look: Mapped[bytes | None] = mapped_column(LargeBinary)  # float32: sharpness, light, colour
    made_by: Mapped[str | None]  # tag of the version that drew its regions; None: model_version itself


class ShadowRow(Base):
    """How a version that predicts beside the champion compares with it."""

    __tablename__ = "shadow_counts"

    project_id: Mapped[int] = mapped_column(RowNumber, primary_key=True, autoincrement=False)
    champion: Mapped[str] = mapped_column(primary_key=True)  # tags
    shadow: Mapped[str] = mapped_column(primary_key=True)
    images: Mapped[int]  # predicted by both
    differing: Mapped[int]  # of them, where the two predictions differ
    agreement: Mapped[float] = mapped_column(Float)  # sum over the images, each 0..1


class AuditRow(Base):
    """One record of the audit trail; triggers of the database refuse to change or delete it."""

    __tablename__ = "audit_records"
    __table_args__ = (Index("ux_audit_records_key", "project_id", "key", unique=True),)

    project_id: Mapped[int] = mapped_column(
        RowNumber, primary_key=True, autoincrement=False
    )  # 0: all projects
    number: Mapped[int] = mapped_column(RowNumber, primary_key=True, autoincrement=False)  # 1, 2, 3 ...
    key: Mapped[str | None]  # what is recorded once has one
    record: Mapped[str] = mapped_column(Text)  # canonical JSON, as it was hashed
    digest: Mapped[str]  # SHA-256 of it


class SuspicionRow(Base):
    """An annotation that is probably wrong, as it was shown, and what a reviewer decided."""

    __tablename__ = "suspicions"
    __table_args__ = (
        Index("ix_suspicions_project", "project_id", "verdict"),
        {"sqlite_autoincrement": True},  # a reviewer may still have an old number
    )

    suspicion_id: Mapped[int] = mapped_column(RowNumber, primary_key=True, autoincrement=True)
    project_id: Mapped[int] = mapped_column(BigInteger)
    task_id: Mapped[int] = mapped_column(BigInteger)
    annotation_id: Mapped[int] = mapped_column(BigInteger)
    version_id: Mapped[int] = mapped_column(BigInteger)  # of the annotation, as it was judged
    view: Mapped[str]  # which of the task's images
    image_index: Mapped[int]  # its page
    image_key: Mapped[str]  # SHA-256 of the image file
    kind: Mapped[str]
    score: Mapped[float] = mapped_column(Float)
    segment: Mapped[str] = mapped_column(Text)  # the region, or the object that has none
    missing: Mapped[bool]
    features: Mapped[dict[str, float]] = mapped_column(JSON)  # as they were, to learn from
    verdict: Mapped[str]  # open, right or wrong
    shown_at: Mapped[datetime] = mapped_column(UtcDateTime)
    decided_at: Mapped[datetime | None] = mapped_column(UtcDateTime, default=None)


class DriftRow(Base):
    """How one signal of drift stands for a version."""

    __tablename__ = "drift_signals"

    project_id: Mapped[int] = mapped_column(RowNumber, primary_key=True, autoincrement=False)
    model_version: Mapped[str] = mapped_column(primary_key=True)  # tag
    signal: Mapped[str] = mapped_column(primary_key=True)  # images, scores or corrections
    known: Mapped[int]  # images that say how the others should be
    images: Mapped[int]  # that were watched
    evidence: Mapped[float] = mapped_column(Float)  # base-10 logarithm
    threshold: Mapped[float] = mapped_column(Float)  # of the evidence, at which the alarm is raised
    strange_share: Mapped[float | None] = mapped_column(Float)  # of the last images
    alarms: Mapped[int]
    first_alarm: Mapped[int | None]  # which image raised the first alarm, from 1
    last_alarm: Mapped[int | None]
    tasks: Mapped[list[int]] = mapped_column(JSON)  # to label
    stamp: Mapped[str]  # what it was measured from
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)


class TrialRow(Base):
    """A version on trial: the champion before it goes on drawing for its half of the tasks."""

    __tablename__ = "trials"

    project_id: Mapped[int] = mapped_column(RowNumber, primary_key=True, autoincrement=False)
    new_version: Mapped[str] = mapped_column(primary_key=True)  # tag
    old_version: Mapped[str]
    after_version: Mapped[int] = mapped_column(BigInteger)  # newer versions of annotations count
    started_at: Mapped[datetime] = mapped_column(UtcDateTime)
    ended_at: Mapped[datetime | None] = mapped_column(UtcDateTime, default=None)
    verdict: Mapped[str]  # open, better, worse, alike or overtaken
    pairs: Mapped[int]  # images of each version that were compared
    old_share: Mapped[float | None] = mapped_column(Float, default=None)  # of regions kept untouched
    new_share: Mapped[float | None] = mapped_column(Float, default=None)


class SecretRow(Base):
    """A secret that all processes share."""

    __tablename__ = "secrets"

    name: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[str] = mapped_column(Text)


class CategoryRow(Base):
    """The number of a label in every export of a project; rows are never changed or deleted."""

    __tablename__ = "categories"
    __table_args__ = (Index("ux_categories_label", "project_id", "label", unique=True),)

    project_id: Mapped[int] = mapped_column(RowNumber, primary_key=True, autoincrement=False)
    category_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)  # from 1
    label: Mapped[str]


class DatasetRow(Base):
    """A snapshot that was made; its rows are in a folder that is named by their digest."""

    __tablename__ = "datasets"
    __table_args__ = (
        Index("ix_datasets_name", "name"),
        Index("ix_datasets_project", "project_id"),
        {"sqlite_autoincrement": True},
    )

    dataset_id: Mapped[int] = mapped_column(RowNumber, primary_key=True, autoincrement=True)
    digest: Mapped[str]
    project_id: Mapped[int | None] = mapped_column(BigInteger)  # None: made from a folder
    name: Mapped[str]  # empty: none was given
    reason: Mapped[str] = mapped_column(Text)
    images: Mapped[int]
    objects: Mapped[int]
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
