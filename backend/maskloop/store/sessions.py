"""Opening the database (SQLite or PostgreSQL), and its sessions; SQLAlchemy's errors end here."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import Engine as SqlEngine
from sqlalchemy import create_engine, event, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from maskloop.errors import StoreError
from maskloop.store.tables import Base

__all__ = ["Sessions", "now"]


class Sessions:
    """Reading and writing, each in a transaction of its own.

    Args:
        url: SQLAlchemy's address of the database.

    Raises:
        StoreError: the database cannot be opened.
    """

    def __init__(self, url: str) -> None:
        self._engine = _open(url)
        self._make = sessionmaker(self._engine, expire_on_commit=False)

    @contextlib.contextmanager
    def read(self) -> Iterator[Session]:
        """Give a session to read with."""
        with _translated("read"), self._make() as session:
            yield session

    @contextlib.contextmanager
    def write(self) -> Iterator[Session]:
        """Give a session that is committed at the end, or rolled back by an error."""
        with _translated("write"), self._make.begin() as session:
            if self._engine.dialect.name == "sqlite":
                # A transaction that reads before it writes would fail where another one wrote in between.
                session.execute(text("BEGIN IMMEDIATE"))
            yield session

    def close(self) -> None:
        """Give all connections back."""
        self._engine.dispose()


def now() -> datetime:
    """Return the time, aware, UTC."""
    return datetime.now(UTC)


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
