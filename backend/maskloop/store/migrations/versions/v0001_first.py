"""The first form: events, corrections, trainings and what was pushed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic.operations import Operations

revision = "0001"
down_revision = None

Time = sa.DateTime(timezone=True)


def upgrade(op: Operations) -> None:
    """Make the tables."""
    op.create_table(
        "projects",
        sa.Column("project_id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("label_config", sa.Text, nullable=False),
        sa.Column("options", sa.JSON, nullable=False),
        sa.Column("connected_at", Time, nullable=False),
    )
    op.create_table(
        "events",
        sa.Column("event_id", sa.Integer, primary_key=True),
        sa.Column("key", sa.String, nullable=False, unique=True),
        sa.Column("action", sa.String, nullable=False),
        sa.Column("project_id", sa.Integer, nullable=False),
        sa.Column("subject_ids", sa.JSON, nullable=False),
        sa.Column("received_at", Time, nullable=False),
        sa.Column("status", sa.String, nullable=False),
        sa.Column("due_at", Time, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("error", sa.Text),
    )
    op.create_index("ix_events_status_due", "events", ["status", "due_at"])
    op.create_table(
        "corrections",
        sa.Column("annotation_id", sa.Integer, primary_key=True, autoincrement=False),
        *(sa.Column(name, sa.Integer, nullable=False) for name in ("project_id", "task_id")),
        sa.Column("split", sa.String, nullable=False),
        sa.Column("sequence", sa.Integer, nullable=False),
        sa.Column("updated_at", Time, nullable=False),
        sa.Column("image_key", sa.String, nullable=False),
        *(sa.Column(name, sa.Integer, nullable=False) for name in ("height", "width")),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("segments", "result")),
        *(sa.Column(name, sa.Integer, nullable=False) for name in ("kept", "changed", "added", "removed")),
        sa.Column("lead_time_s", sa.Float),
        sa.Column("model_version", sa.String),
        *(sa.Column(name, sa.Boolean, nullable=False) for name in ("ground_truth", "approximate", "deleted")),
    )
    op.create_index("ix_corrections_project_split", "corrections", ["project_id", "split", "deleted"])
    op.create_table(
        "trainings",
        sa.Column("training_id", sa.Integer, primary_key=True),
        sa.Column("project_id", sa.Integer, nullable=False),
        sa.Column("reason", sa.String, nullable=False),
        sa.Column("status", sa.String, nullable=False),
        sa.Column("requested_at", Time, nullable=False),
        sa.Column("started_at", Time),
        sa.Column("finished_at", Time),
        *(sa.Column(name, sa.Integer, nullable=False) for name in ("through_sequence", "step", "steps")),
        sa.Column("outcome", sa.JSON),
        sa.Column("error", sa.Text),
    )
    op.create_index("ix_trainings_project_status", "trainings", ["project_id", "status"])
    waiting = sa.text("status = 'queued'")
    op.create_index(
        "ux_trainings_waiting",
        "trainings",
        ["project_id"],
        unique=True,
        sqlite_where=waiting,
        postgresql_where=waiting,
    )
    op.create_table(
        "pushed_predictions",
        sa.Column("pushed_id", sa.Integer, primary_key=True),
        *(sa.Column(name, sa.Integer, nullable=False) for name in ("project_id", "task_id")),
        sa.Column("model_version", sa.String, nullable=False),
        sa.Column("prediction_id", sa.Integer),
        sa.UniqueConstraint("project_id", "task_id", "model_version"),
    )
