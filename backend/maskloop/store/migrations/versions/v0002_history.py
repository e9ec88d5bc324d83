"""Jobs in one table, and every version of an annotation as it was said, with its masks beside it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa
from alembic.operations import Operations

revision = "0002"
down_revision = "0001"

Time = sa.DateTime(timezone=True)
Number = sa.BigInteger().with_variant(sa.Integer, "sqlite")
SUBJECT = ("annotation_id", "project_id", "task_id")
BATCH = 500


def upgrade(op: Operations) -> None:
    """Make the new tables, carry everything over, drop the old ones."""
    _add_jobs(op)
    _add_annotations(op)
    _change_projects(op)
    op.rename_table("trainings", "old_trainings")
    op.rename_table("pushed_predictions", "old_pushed")
    for index in ("ix_trainings_project_status", "ux_trainings_waiting"):
        op.drop_index(index, "old_trainings")
    _add_trainings_and_pushes(op)
    connection = op.get_bind()
    versions = _carry_corrections(connection)
    _carry_jobs(connection, versions)
    connection.execute(
        sa.text(
            "INSERT INTO pushed_predictions (project_id, task_id, model_version, prediction_id) "
            "SELECT project_id, task_id, model_version, prediction_id FROM old_pushed ORDER BY pushed_id"
        )
    )
    for table in ("old_trainings", "old_pushed", "events", "corrections"):
        op.drop_table(table)
    _mend_numbers(connection)


def _add_jobs(op: Operations) -> None:
    op.create_table(
        "jobs",
        sa.Column("job_id", Number, primary_key=True, autoincrement=True),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("project_id", sa.BigInteger, nullable=False),
        sa.Column("action", sa.String, nullable=False),
        sa.Column("subject_ids", sa.JSON, nullable=False),
        sa.Column("key", sa.String, unique=True),
        sa.Column("status", sa.String, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("lapses", sa.Integer, nullable=False),
        sa.Column("error", sa.Text),
        sa.Column("due_at", Time, nullable=False),
        sa.Column("created_at", Time, nullable=False),
        sa.Column("started_at", Time),
        sa.Column("finished_at", Time),
        sa.Column("owner", sa.String),
        sa.Column("lease_until", Time),
        sa.Column("done", sa.Integer, nullable=False),
        sa.Column("total", sa.Integer, nullable=False),
        sa.Column("cancel_requested", sa.Boolean, nullable=False),
        sa.Column("outcome", sa.JSON),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_jobs_status_due", "jobs", ["status", "due_at"])
    op.create_index("ix_jobs_project_kind", "jobs", ["project_id", "kind", "status"])
    for status in ("waiting", "running"):
        where = sa.text(f"status = '{status}' AND kind <> 'event'")
        op.create_index(
            f"ux_jobs_{status}",
            "jobs",
            ["kind", "project_id"],
            unique=True,
            sqlite_where=where,
            postgresql_where=where,
        )


def _add_annotations(op: Operations) -> None:
    op.create_table(
        "annotations",
        sa.Column("annotation_id", Number, primary_key=True, autoincrement=False),
        *(sa.Column(name, sa.BigInteger, nullable=False) for name in ("project_id", "task_id")),
        sa.Column("split", sa.String, nullable=False),
        sa.Column("version_id", sa.BigInteger, nullable=False),
        sa.Column("updated_at", Time, nullable=False),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("deleted_at", Time),
    )
    op.create_index("ix_annotations_dataset", "annotations", ["project_id", "state", "split", "version_id"])
    op.create_index("ix_annotations_stream", "annotations", ["project_id", "state", "annotation_id"])
    op.create_index("ix_annotations_task", "annotations", ["project_id", "task_id"])
    op.create_table(
        "annotation_versions",
        sa.Column("version_id", Number, primary_key=True, autoincrement=True),
        *(
            sa.Column(name, sa.BigInteger, nullable=False)
            for name in ("annotation_id", "project_id", "task_id")
        ),
        sa.Column("updated_at", Time, nullable=False),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("said", sa.Text, nullable=False),
        *(sa.Column(name, sa.String, nullable=False) for name in ("digest", "label_config")),
        sa.Column("lead_time_s", sa.Float),
        sa.Column("ground_truth", sa.Boolean, nullable=False),
        sa.Column("taken_at", Time, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "ux_versions_said", "annotation_versions", ["annotation_id", "updated_at", "digest"], unique=True
    )
    op.create_table(
        "label_configs",
        sa.Column("digest", sa.String, primary_key=True),
        sa.Column("text", sa.Text, nullable=False),
    )
    op.create_table(
        "masks",
        sa.Column("version_id", Number, primary_key=True, autoincrement=False),
        sa.Column("image_key", sa.String, nullable=False),
        sa.Column("image_uri", sa.Text, nullable=False),
        *(sa.Column(name, sa.Integer, nullable=False) for name in ("height", "width")),
        sa.Column("segments", sa.Text, nullable=False),
        *(sa.Column(name, sa.Integer, nullable=False) for name in ("kept", "changed", "added", "removed")),
        sa.Column("approximate", sa.Boolean, nullable=False),
        sa.Column("model_version", sa.String),
    )
    op.create_table(
        "secrets",
        sa.Column("name", sa.String, primary_key=True),
        sa.Column("value", sa.Text, nullable=False),
    )


def _change_projects(op: Operations) -> None:
    op.add_column("projects", sa.Column("watermark", Time))
    op.add_column("projects", sa.Column("listed_at", Time))
    if op.get_bind().dialect.name != "sqlite":  # there every INTEGER has 64 bits
        op.alter_column("projects", "project_id", type_=sa.BigInteger)


def _add_trainings_and_pushes(op: Operations) -> None:
    op.create_table(
        "trainings",
        sa.Column("training_id", Number, primary_key=True, autoincrement=False),
        *(sa.Column(name, sa.BigInteger, nullable=False) for name in ("project_id", "through_version")),
    )
    op.create_index("ix_trainings_project", "trainings", ["project_id", "through_version"])
    op.create_table(
        "pushed_predictions",
        sa.Column("pushed_id", Number, primary_key=True, autoincrement=True),
        *(sa.Column(name, sa.BigInteger, nullable=False) for name in ("project_id", "task_id")),
        sa.Column("model_version", sa.String, nullable=False),
        sa.Column("prediction_id", sa.BigInteger),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "ux_pushed_predictions", "pushed_predictions", ["project_id", "model_version", "task_id"], unique=True
    )


def _carry_corrections(connection: sa.Connection) -> dict[int, int]:
    """Carry corrections over in the order they came; return event -> last version that it brought."""
    configs = {
        row.project_id: (hashlib.sha256(row.label_config.encode()).hexdigest(), row.label_config)
        for row in connection.execute(sa.text("SELECT project_id, label_config FROM projects"))
    }
    for digest, config in {**{value[0]: value[1] for value in configs.values()}}.items():
        _insert(connection, "label_configs", [{"digest": digest, "text": config}])
    last: dict[int, int] = {}
    number = 0
    for rows in _pages(connection, "SELECT * FROM corrections ORDER BY sequence, annotation_id"):
        versions, annotations, masks = [], [], []
        for row in rows:
            number += 1
            last[row.sequence] = number
            said = json.dumps({"result": json.loads(row.result)}, separators=(",", ":"))
            common = {
                key: getattr(row, key) for key in ("annotation_id", "project_id", "task_id", "updated_at")
            }
            state = "deleted" if row.deleted else "submitted"
            annotations.append(
                {**common, "split": row.split, "version_id": number, "state": state}
                | {"deleted_at": row.updated_at if row.deleted else None}
            )
            versions.append(
                {**common, "version_id": number, "state": "submitted", "said": said}
                | {"digest": hashlib.sha256(said.encode()).hexdigest()}
                | {"label_config": configs.get(row.project_id, ("", ""))[0], "lead_time_s": row.lead_time_s}
                | {"ground_truth": row.ground_truth, "taken_at": row.updated_at}
            )
            names = ("image_key", "height", "width", "segments", "kept", "changed", "added", "removed")
            masks.append(
                {"version_id": number, "image_uri": "", "approximate": row.approximate}
                | {name: getattr(row, name) for name in names}
                | {"model_version": row.model_version}
            )
        for table, made in (
            ("annotation_versions", versions),
            ("annotations", annotations),
            ("masks", masks),
        ):
            _insert(connection, table, made)
    return last


def _carry_jobs(connection: sa.Connection, versions: dict[int, int]) -> None:
    plain = {"lapses": 0, "cancel_requested": False, "owner": None, "lease_until": None}
    statuses = {"queued": "waiting", "running": "waiting", "finished": "done", "failed": "dead"}
    waiting: set[int] = set()  # projects: a running training and one that waits become one
    for rows in _pages(connection, "SELECT * FROM old_trainings ORDER BY training_id"):
        jobs, trainings = [], []
        for row in rows:
            status = statuses[row.status]
            if status == "waiting" and row.project_id in waiting:
                status = "dropped"
            elif status == "waiting":
                waiting.add(row.project_id)
            jobs.append(
                {**plain, "job_id": row.training_id, "kind": "training", "project_id": row.project_id}
                | {"action": row.reason, "subject_ids": "[]", "key": None, "status": status, "attempts": 0}
                | {"error": row.error, "due_at": row.requested_at, "created_at": row.requested_at}
                | {"started_at": row.started_at, "finished_at": row.finished_at, "done": row.step}
                | {"total": row.steps, "outcome": row.outcome}
            )
            seen = (made for came, made in versions.items() if came <= row.through_sequence)
            trainings.append(
                {"training_id": row.training_id, "project_id": row.project_id}
                | {"through_version": max(seen, default=0)}
            )
        _insert(connection, "jobs", jobs)
        _insert(connection, "trainings", trainings)
    first = (connection.scalar(sa.text("SELECT max(job_id) FROM jobs")) or 0) + 1
    for rows in _pages(connection, "SELECT * FROM events ORDER BY event_id"):
        jobs = [
            {**plain, "job_id": first + place, "kind": "event", "project_id": row.project_id}
            | {"action": row.action, "subject_ids": row.subject_ids, "key": row.key}
            | {"status": "waiting" if row.status == "pending" else row.status, "attempts": row.attempts}
            | {"error": row.error, "due_at": row.due_at, "created_at": row.received_at, "started_at": None}
            | {"finished_at": row.received_at if row.status == "done" else None, "done": 0, "total": 0}
            | {"outcome": None}
            for place, row in enumerate(rows)
        ]
        _insert(connection, "jobs", jobs)
        first += len(jobs)


def _mend_numbers(connection: sa.Connection) -> None:
    if connection.dialect.name != "postgresql":
        return
    for table, column in (("jobs", "job_id"), ("annotation_versions", "version_id")):
        connection.execute(
            sa.text(
                f"SELECT setval(pg_get_serial_sequence('{table}', '{column}'), "  # noqa: S608 - our own names
                f"(SELECT coalesce(max({column}), 0) + 1 FROM {table}), false)"
            )
        )


def _pages(connection: sa.Connection, query: str) -> Iterator[list[Any]]:
    """Give the rows as the database keeps them, so that they can be put back unread."""
    offset = 0
    while True:
        rows = list(connection.execute(sa.text(f"{query} LIMIT {BATCH} OFFSET {offset}")))
        if not rows:
            return
        yield rows
        offset += BATCH


def _insert(connection: sa.Connection, table: str, rows: list[dict[str, Any]]) -> None:
    if not rows:
        return
    names = list(rows[0])
    query = f"INSERT INTO {table} ({', '.join(names)}) VALUES ({', '.join(':' + name for name in names)})"  # noqa: S608
    adapted = [{name: _plain(connection, value) for name, value in row.items()} for row in rows]
    connection.execute(sa.text(query), adapted)


def _plain(connection: sa.Connection, value: Any) -> Any:
    # PostgreSQL reads JSON columns back as values, SQLite as text.
    return json.dumps(value) if isinstance(value, (dict, list)) else value
