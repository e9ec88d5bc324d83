"""What a model version thinks of each task; and many shards of a project may wait and run."""

from __future__ import annotations

import sqlalchemy as sa
from alembic.operations import Operations

revision = "0004"
down_revision = "0003"


def upgrade(op: Operations) -> None:
    """Make the table, and loosen the rule that of each kind of job one waits and one runs."""
    op.create_table(
        "scored_tasks",
        sa.Column(
            "scored_id",
            sa.BigInteger().with_variant(sa.Integer, "sqlite"),
            primary_key=True,
            autoincrement=True,
        ),
        sa.Column("project_id", sa.BigInteger, nullable=False),
        sa.Column("model_version", sa.String, nullable=False),
        sa.Column("task_id", sa.BigInteger, nullable=False),
        sa.Column("confidence", sa.Float),
        sa.Column("signals", sa.JSON),
        sa.Column("embedding", sa.LargeBinary),
        sa.Column("regions", sa.LargeBinary),
        sa.Column("error", sa.Text),
        sa.Column("labelled", sa.Boolean, nullable=False),
        sa.Column("score", sa.Float),
        sa.Column("cluster", sa.Integer),
        sa.Column("queue", sa.Integer),
        sa.Column("at_random", sa.Boolean, nullable=False),
        sa.Column("told", sa.Boolean, nullable=False),
        sqlite_autoincrement=True,
    )
    of_task = ["project_id", "model_version", "task_id"]
    op.create_index("ux_scored_tasks", "scored_tasks", of_task, unique=True)
    op.create_index(
        "ix_scored_tasks_untold", "scored_tasks", ["project_id", "model_version", "told", "task_id"]
    )
    for status in ("waiting", "running"):
        where = sa.text(f"status = '{status}' AND kind NOT IN ('event', 'shard')")
        op.drop_index(f"ux_jobs_{status}", "jobs")
        op.create_index(
            f"ux_jobs_{status}",
            "jobs",
            ["kind", "project_id"],
            unique=True,
            sqlite_where=where,
            postgresql_where=where,
        )
