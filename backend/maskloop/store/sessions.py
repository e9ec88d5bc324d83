"""Opening the database (SQLite or PostgreSQL), and its sessions; SQLAlchemy's errors end here."""

from __future__ import annotations

import contextlib
import random
import sqlite3
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import Engine as SqlEngine
from sqlalchemy import create_engine, event, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from maskloop.errors import StoreError, first_line
from maskloop.store.migrations import HEAD, bring_up_to_date, revision_of

__all__ = ["Sessions", "now"]

MIGRATION_LOCK = 0x6D61736B  # any number, the same in all processes
MAX_CAUSE = 300  # characters of a database's error, which may hold a whole statement
WAIT_S = 30  # for another writer
PLAIN_POSTGRES = ("postgres", "postgresql")


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

    def clock(self, session: Session) -> datetime:
        """Return the time that all processes agree on: the database server's, where there is one."""
        if self._engine.dialect.name == "postgresql":
            at: datetime = session.execute(text("SELECT clock_timestamp()")).scalar_one()
            return at
        return now()

    def close(self) -> None:
        """Give all connections back."""
        self._engine.dispose()


def now() -> datetime:
    """Return the time, aware, UTC."""
    return datetime.now(UTC)


def _open(url: str) -> SqlEngine:
    with _translated("open"):
        address = _with_driver(make_url(url))
        if address.get_backend_name() == "sqlite":
            if address.database:
                Path(address.database).parent.mkdir(parents=True, exist_ok=True)
            engine = create_engine(address, connect_args={"timeout": WAIT_S})
            event.listen(engine, "connect", _tune_sqlite)
        else:
            engine = create_engine(address, pool_pre_ping=True)
        try:
            with engine.connect() as connection:
                current = revision_of(connection)
            if current != HEAD:
                _migrate(engine, current)
        except BaseException:
            engine.dispose()
            raise
        return engine


def _migrate(engine: SqlEngine, current: str | None) -> None:
    """Bring the database to today's form; of several processes that try at once the first does it."""
    sqlite = engine.dialect.name == "sqlite"
    if sqlite and current is not None and engine.url.database:
        _back_up(Path(engine.url.database), current)
    with engine.connect() as connection, connection.begin():
        if sqlite:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        else:
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": MIGRATION_LOCK})
        bring_up_to_date(connection)


def _back_up(path: Path, current: str) -> None:
    target = path.with_name(f"{path.name}.before-{HEAD}-was-{current}")
    if not target.exists():
        with (
            contextlib.closing(sqlite3.connect(path)) as source,
            contextlib.closing(sqlite3.connect(target)) as copy,
        ):
            source.backup(copy)


def _with_driver(address: URL) -> URL:
    """Take our driver where the address names none: SQLAlchemy would look for an older one."""
    return address.set(drivername="postgresql+psycopg") if address.drivername in PLAIN_POSTGRES else address


def _tune_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    cursor = connection.cursor()
    _use_wal(cursor)
    # FULL: an event that was acknowledged survives a power cut.
    for pragma in ("synchronous=FULL", f"busy_timeout={WAIT_S * 1000}", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _use_wal(cursor: sqlite3.Cursor) -> None:
    """Turn the write-ahead log on; a busy timeout does not cover this one, so it is waited for here.

    Several processes that open a new file at once each hold the lock that the others want: SQLite then
    answers one of them "locked" at once, since waiting would never end.
    """
    deadline = time.monotonic() + WAIT_S
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as exc:
            busy = exc.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
            if not busy or time.monotonic() > deadline:
                raise
            time.sleep(random.uniform(0.005, 0.05))
        else:
            return


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
            got=first_line(exc)[:MAX_CAUSE],
            remedy="check MASKLOOP_DATABASE_URL, free disk space and the rights on MASKLOOP_HOME",
        ) from exc
