"""Audit entries that could not be recorded: files in MASKLOOP_HOME until the database takes them."""

from __future__ import annotations

import dataclasses
import json
import logging
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from maskloop.files import write_whole
from maskloop.log import log_action
from maskloop.store.audit import Actor, ActorKind, AuditAction, AuditEntry
from maskloop.store.sessions import now

if TYPE_CHECKING:
    from maskloop.store.audit import AuditRepository

__all__ = ["AuditOutbox"]

logger = logging.getLogger(__name__)
MOST_AT_ONCE = 500
DAMAGED = ".damaged"  # appended to the name of a file that cannot be read


class AuditOutbox:
    """A folder that the processes of one home share; an entry is recorded once, whoever delivers it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep(self, entry: AuditEntry) -> None:
        """Write an entry to disk, with the time of now.

        Raises:
            OSError: the disk is full or read-only.
        """
        # Names sort by time. Without a key of its own, an entry gets one: it may be delivered twice.
        name = f"{time.time_ns():020d}-{uuid.uuid4().hex}"
        values = dataclasses.asdict(entry) | {
            "facts": dict(entry.facts) | {"happened_at": now().isoformat()},
            "key": entry.key or f"kept-{name}",
        }
        write_whole(self._folder / f"{name}.json", json.dumps(values, default=str))

    def waiting(self) -> int:
        """Return how many entries wait."""
        return len(list(self._folder.glob("*.json"))) if self._folder.is_dir() else 0

    def deliver(self, audit: AuditRepository) -> int:
        """Record what waits, oldest first; return how many entries were recorded.

        A file that cannot be read is renamed and logged.

        Raises:
            StoreError: the database does not answer; what waits goes on waiting.
        """
        made = 0
        paths = sorted(self._folder.glob("*.json"))[:MOST_AT_ONCE] if self._folder.is_dir() else []
        for path in paths:
            try:
                entry = _read(path)
            except FileNotFoundError:
                continue  # another process delivered it
            except (OSError, ValueError, KeyError, TypeError) as exc:
                log_action(logger, "audit_file_damaged", level=logging.ERROR, file=path, error=exc)
                path.rename(path.with_name(path.name + DAMAGED))
                continue
            made += audit.append(entry)
            path.unlink(missing_ok=True)
        if made:
            log_action(logger, "audit_recorded_later", entries=made)
        return made


def _read(path: Path) -> AuditEntry:
    values = json.loads(path.read_text(encoding="utf-8"))
    actor = values["actor"]
    return AuditEntry(
        project_id=int(values["project_id"]),
        action=AuditAction(values["action"]),
        actor=Actor(kind=ActorKind(actor["kind"]), name=str(actor["name"])),
        subject=str(values["subject"]),
        reason=str(values["reason"]),
        facts=dict(values["facts"]),
        key=str(values["key"]),
    )
