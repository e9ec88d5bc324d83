"""The steps from one form of the database to the next (Alembic), taken by themselves when it is opened."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sqlalchemy import Connection, inspect, text

from maskloop.errors import StoreError

__all__ = ["HEAD", "bring_up_to_date", "revision_of"]

HEAD = "0018"  # the form that tables.py describes
BASELINE = "0001"  # the form of databases from before there were steps


def revision_of(connection: Connection) -> str | None:
    """Return the form of the database, or None where it is empty."""
    tables = inspect(connection).get_table_names()
    if "alembic_version" in tables:
        found: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
        return found
    return BASELINE if "projects" in tables else None


def bring_up_to_date(connection: Connection) -> None:
    """Take the steps that are missing, all in the connection's transaction.

    Raises:
        StoreError: the database is newer than this maskloop.
    """
    found = revision_of(connection)
    if found == HEAD:
        return
    # Not through Alembic's commands: those keep what they work on in globals, and MLflow migrates its own
    # database in other threads of the same process.
    from alembic.operations import Operations
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory

    steps = ScriptDirectory(str(Path(__file__).parent))
    known = {step.revision for step in steps.walk_revisions()}
    if found is not None and found not in known:
        raise StoreError(
            "database",
            expected=f"form {HEAD} or an earlier one",
            got=f"form {found}, of a newer maskloop",
            remedy="install that maskloop, or restore the backup from before it",
        )

    def missing(revision: Any, _context: MigrationContext) -> Any:
        return steps._upgrade_revs(HEAD, revision)

    context = MigrationContext.configure(connection, opts={"fn": missing})
    if found == BASELINE:
        context.stamp(steps, BASELINE)
    context.run_migrations(op=Operations(context))
