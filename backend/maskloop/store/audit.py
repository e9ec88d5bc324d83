"""The audit trail: an append-only list of records for each project, each with the SHA-256 of the one before.

A record is kept as the very text that is hashed: JSON with sorted keys, without spaces, in ASCII. Whoever may
write the database can also make a whole chain anew: keep a printed head elsewhere, and compare with it.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from maskloop.store.sessions import Sessions
from maskloop.store.tables import AuditRow

__all__ = [
    "INSTALLATION",
    "MASKLOOP",
    "Actor",
    "ActorKind",
    "AuditAction",
    "AuditCheck",
    "AuditEntry",
    "AuditRecord",
    "AuditRepository",
    "add_entry",
]

INSTALLATION = 0  # in place of a project's number: records about all projects
START = "0" * 64  # what the first record of a chain has as the hash before it
LOCK = 0x61756474  # any number, the same in all processes
MAX_WORDS = 1000  # characters of a subject, a reason, a name
MAX_FACTS = 64_000  # characters of JSON
PAGE = 500  # records that are read at once


class AuditAction(StrEnum):
    """What was done."""

    PROMOTED = "promoted"
    ROLLED_BACK = "rolled_back"
    REFUSED = "refused"  # by the gate
    WAITING = "waiting"  # passed the gate, waits for a promotion by hand
    SHADOW = "shadow"  # the same, and predicts beside the champion
    CHAMPION_FOUND = "champion_found"  # changed in the registry itself, past maskloop
    SETTING = "setting"
    EXPORTED = "exported"
    IMPORTED = "imported"
    DELETED = "deleted"
    CONNECTED = "connected"
    DISCONNECTED = "disconnected"
    FROZEN = "frozen"  # a snapshot was made
    REQUESTED = "requested"  # a job, by a person
    RETRIED = "retried"
    CANCELLED = "cancelled"
    DROPPED = "dropped"


class ActorKind(StrEnum):
    """What kind of actor did it."""

    STUDIO_USER = "label_studio_user"
    COMMAND_LINE = "command_line"
    DASHBOARD = "dashboard"  # by its login's user
    SCHEDULE = "schedule"
    MASKLOOP = "maskloop"  # by itself: the gate, pruning, a project that is gone
    UNKNOWN = "unknown"  # done past maskloop, or before there was an audit trail


@dataclass(frozen=True, kw_only=True)
class Actor:
    """Who did it."""

    kind: ActorKind
    name: str = ""  # user@machine, a user's number or address in Label Studio, a job


MASKLOOP = Actor(kind=ActorKind.MASKLOOP)


@dataclass(frozen=True, kw_only=True)
class AuditEntry:
    """What is to be recorded."""

    project_id: int  # or INSTALLATION
    action: AuditAction
    actor: Actor
    subject: str = ""  # what it was done to: a version's tag, a setting
    reason: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict, hash=False)  # plain values
    key: str | None = None  # an entry with a key that its project has already is not recorded again


@dataclass(frozen=True, kw_only=True)
class AuditRecord:
    """One link of a chain."""

    number: int  # 1, 2, 3 ... of its project
    at: datetime  # aware; the database server's clock where there is one
    entry: AuditEntry
    digest: str  # SHA-256 of the kept text, hex

    def as_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        return _content(self.entry, self.number, self.at) | {"sha256": self.digest}


@dataclass(frozen=True, kw_only=True)
class AuditCheck:
    """What comparing a chain with its hashes came to."""

    records: int  # that were read
    head: str  # hash of the last record; zeros where there is none
    trouble: str | None = None  # the first break, in words

    @property
    def intact(self) -> bool:
        """Whether no break was found."""
        return self.trouble is None


class AuditRepository:
    """Records what was done; there is no way to change or delete a record, and the database refuses both."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    def append(self, entry: AuditEntry) -> bool:
        """Record an entry; return whether it is new. Many processes may do so at once.

        Raises:
            StoreError: the database does not answer.
        """
        with self._sessions.write() as session:
            return add_entry(session, entry, at=self._sessions.clock(session))

    def newest(self, project_id: int, *, limit: int, below: int | None = None) -> tuple[AuditRecord, ...]:
        """Return a project's newest records, newest first; one that cannot be read is left out.

        Args:
            project_id: Label Studio's number, or INSTALLATION.
            limit: how many at the most.
            below: only records with smaller numbers.
        """
        rows = self._newest_rows(project_id, limit=limit, below=below)
        return tuple(record for row in rows if (record := _read(row)) is not None)

    def each(self, project_id: int) -> Iterator[AuditRecord]:
        """Yield a project's records, newest first; one that cannot be read is left out."""
        below: int | None = None
        while rows := self._newest_rows(project_id, limit=PAGE, below=below):
            yield from (record for row in rows if (record := _read(row)) is not None)
            below = rows[-1].number

    def has(self, project_id: int, key: str) -> bool:
        """Return whether a project has a record with this key."""
        with self._sessions.read() as session:
            return _has_key(session, project_id, key)

    def verify(self, project_id: int, *, head: str | None = None) -> AuditCheck:
        """Compare a project's chain with its hashes, record by record, up to the first break.

        Args:
            project_id: Label Studio's number, or INSTALLATION.
            head: a hash that was printed earlier and must still be in the chain: records that were cut off
                at the end, or a chain that was made anew, are found by this alone.
        """
        count, before, seen = 0, START, head is None
        while rows := self._page(project_id, above=count):
            for row in rows:
                trouble = _break_of(row, count + 1, before)
                if trouble is not None:
                    return AuditCheck(records=count, head=before, trouble=trouble)
                count, before = row.number, row.digest
                seen = seen or before == head
        trouble = None if seen else f"no record has the hash {head}: records are missing or were made anew"
        return AuditCheck(records=count, head=before, trouble=trouble)

    def _newest_rows(self, project_id: int, *, limit: int, below: int | None) -> list[AuditRow]:
        query = select(AuditRow).where(AuditRow.project_id == project_id)
        if below is not None:
            query = query.where(AuditRow.number < below)
        with self._sessions.read() as session:
            return list(session.scalars(query.order_by(AuditRow.number.desc()).limit(limit)))

    def _page(self, project_id: int, *, above: int) -> list[AuditRow]:
        query = select(AuditRow).where(AuditRow.project_id == project_id, AuditRow.number > above)
        with self._sessions.read() as session:
            return list(session.scalars(query.order_by(AuditRow.number).limit(PAGE)))


def add_entry(session: Session, entry: AuditEntry, *, at: datetime) -> bool:
    """Record an entry in a transaction that also changes what it tells of; return whether it is new.

    Args:
        session: of the transaction; other processes that record wait for its end.
        entry: what is recorded.
        at: the time, by `Sessions.clock`.
    """
    _lock(session)
    if entry.key is not None and _has_key(session, entry.project_id, entry.key):
        return False
    last = session.scalars(
        select(AuditRow)
        .where(AuditRow.project_id == entry.project_id)
        .order_by(AuditRow.number.desc())
        .limit(1)
    ).first()
    number, before = (last.number + 1, last.digest) if last is not None else (1, START)
    record = _canonical(_content(entry, number, at) | {"before": before})
    session.add(
        AuditRow(
            project_id=entry.project_id,
            number=number,
            key=entry.key,
            record=record,
            digest=_sha256(record),
        )
    )
    return True


def _lock(session: Session) -> None:
    """Let one process at a time append; SQLite's writers wait for each other anyway."""
    if session.get_bind().dialect.name == "postgresql":
        session.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})


def _has_key(session: Session, project_id: int, key: str) -> bool:
    query = (
        select(func.count())
        .select_from(AuditRow)
        .where(AuditRow.project_id == project_id, AuditRow.key == key)
    )
    return bool(session.scalar(query))


def _break_of(row: AuditRow, number: int, before: str) -> str | None:
    """Return what is wrong with a record that follows the one with the hash `before`; None where nothing."""
    place = f"record {number}"
    if row.number != number:
        return f"{place}: missing, the next one is {row.number}"
    if _sha256(row.record) != row.digest:
        return f"{place}: its text or its hash was changed"
    content = _parsed(row.record)
    if content.get("before") != before:
        return f"{place}: does not follow from the record before it"
    if (content.get("project"), content.get("number"), content.get("key")) != (
        row.project_id,
        number,
        row.key,
    ):
        return f"{place}: belongs elsewhere (project {content.get('project')}, {content.get('number')})"
    return None


def _read(row: AuditRow) -> AuditRecord | None:
    content = _parsed(row.record)
    try:
        actor = Actor(kind=ActorKind(content["actor"]["kind"]), name=str(content["actor"]["name"]))
        entry = AuditEntry(
            project_id=row.project_id,
            action=AuditAction(content["action"]),
            actor=actor,
            subject=str(content["subject"]),
            reason=str(content["reason"]),
            facts=dict(content["facts"]),
            key=row.key,
        )
        at = datetime.fromisoformat(content["at"])
    except (KeyError, TypeError, ValueError):
        return None  # changed by hand: `verify` names it
    return AuditRecord(number=row.number, at=at, entry=entry, digest=row.digest)


def _parsed(record: str) -> dict[str, Any]:
    try:
        content = json.loads(record)
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _content(entry: AuditEntry, number: int, at: datetime) -> dict[str, Any]:
    facts = _finite(dict(entry.facts))
    size = len(_canonical(facts))
    return {
        "project": entry.project_id,
        "number": number,
        "at": at.isoformat(),
        "action": entry.action.value,
        "actor": {"kind": entry.actor.kind.value, "name": entry.actor.name[:MAX_WORDS]},
        "subject": entry.subject[:MAX_WORDS],
        "reason": entry.reason[:MAX_WORDS],
        "facts": facts if size <= MAX_FACTS else {"left_out_characters": size},
        "key": entry.key,
    }


def _finite(value: Any) -> Any:
    """Return plain values with None in place of what JSON has no word for: NaN and infinity."""
    if isinstance(value, Mapping):
        return {str(name): _finite(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _canonical(content: Mapping[str, Any]) -> str:
    return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False, default=str)


def _sha256(record: str) -> str:
    return hashlib.sha256(record.encode()).hexdigest()
