"""Settings in the audit trail: what changed since such a process started last; no secret is kept.

A secret is told as a mark: its HMAC by a key that lies in MASKLOOP_HOME. A replaced password is seen, and
nobody who reads the trail can try passwords against it. Marks of another home's key are taken as the same.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import hmac
import logging
import os
import re
import secrets
import socket
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from maskloop.errors import MaskloopError
from maskloop.log import log_action
from maskloop.store.audit import INSTALLATION, Actor, AuditAction, AuditEntry
from maskloop_studio.projects.audit_trail import command_line_actor

if TYPE_CHECKING:
    from maskloop.settings import Settings
    from maskloop.store.audit import AuditRepository
    from maskloop_studio.services import Services

__all__ = ["note_settings", "note_settings_beside", "record_settings"]

logger = logging.getLogger(__name__)
SUBJECT = "environment"
KEY_FILE = "audit.key"  # in MASKLOOP_HOME
KEY_BYTES = 32
MARK_DIGITS = 16  # hex
# A value, and of what is hidden in it: the number of its key ("no": none could be kept) and its mark.
SHOWN = re.compile(r"(?P<bare>.*?)(?: \((?P<key>\w+) mark(?: (?P<mark>\w+))?\))?", re.DOTALL)
BEFORE_MARKS = "set, not recorded"  # what older records say of a secret


def record_settings(
    settings: Settings, audit: AuditRepository, *, actor: Actor, process: str | None = None
) -> bool:
    """Record which settings differ from those that were recorded last.

    Args:
        settings: of this process.
        audit: gets the record.
        actor: who started the process.
        process: what has these settings, where it is not the scheduler: each is compared with itself.

    Returns:
        Whether there was anything to record.

    Raises:
        StoreError: the database does not answer.
    """
    key = _home_key(settings.home)
    present = {
        name: _plain(value, name, key) for name, value in settings if value != _default_of(settings, name)
    }
    subject = SUBJECT if process is None else f"{SUBJECT} of {process}"
    before = next(
        (
            dict(found.entry.facts.get("settings", {}))
            for found in audit.each(INSTALLATION)
            if found.entry.subject == subject
        ),
        None,
    )
    known = before or {}
    changed = {
        name: [known.get(name), present.get(name)]
        for name in sorted({*known, *present})
        if not _is_same(known.get(name), present.get(name))
    }
    if before is not None and not changed:
        return False
    return audit.append(
        AuditEntry(
            project_id=INSTALLATION,
            action=AuditAction.SETTING,
            actor=actor,
            subject=subject,
            reason="first seen" if before is None else f"changed: {', '.join(changed)}",
            facts={"changed": changed, "settings": present},
        )
    )


def note_settings(services: Services, *, process: str, **given: object) -> None:
    """Record the settings of a process that starts; a database that is away is one line of the log.

    Args:
        services: of this process.
        process: what it is, without its machine, which is added.
        given: settings that the command line gave in place of the environment's.
    """
    place = f"{process} on {socket.gethostname()}"
    settings = services.settings.model_copy(update=given)
    try:
        record_settings(settings, services.store.audit, actor=command_line_actor(), process=place)
    except MaskloopError as exc:
        log_action(logger, "settings_not_recorded", level=logging.WARNING, process=process, error=exc)


def note_settings_beside(services: Services, *, process: str, **given: object) -> None:
    """Do `note_settings` in a thread: a database that is away must not keep a process from answering."""
    note = functools.partial(note_settings, services, process=process, **given)
    threading.Thread(target=note, name="settings", daemon=True).start()


def _default_of(settings: Settings, name: str) -> object:
    field = type(settings).model_fields[name]
    return field.get_default(call_default_factory=True, validated_data={})


def _plain(value: object, name: str, key: bytes | None) -> Any:
    """Return a setting as plain values, the same ones after a round trip through JSON."""
    if isinstance(value, SecretStr):
        return f"set ({_mark_of(value.get_secret_value(), name, key)})"
    if isinstance(value, Mapping):
        return {str(one): _plain(part, name, key) for one, part in value.items()}
    if isinstance(value, frozenset | set):
        return sorted(str(one) for one in value)
    if isinstance(value, list | tuple):
        return [_plain(one, name, key) for one in value]
    is_plain = isinstance(value, bool | int | float) or value is None
    return value if is_plain else _without_login(str(value), name, key)


def _without_login(text: str, name: str, key: bytes | None) -> str:
    """Return an address without user, password and query, which may hold a password as well."""
    head, mark, rest = text.partition("://")
    if not mark:
        return text
    place, question, query = rest.partition("?")
    host, slash, path = place.partition("/")
    login, at, bare = host.rpartition("@")
    shown = f"{head}://{bare}{slash}{path}"
    return f"{shown} ({_mark_of(f'{login}{question}{query}', name, key)})" if at or question else shown


def _mark_of(secret: str, name: str, key: bytes | None) -> str:
    if key is None:
        return "no mark"
    number = hashlib.sha256(key).hexdigest()[:4]
    digest = hmac.new(key, f"{name}\0{secret}".encode(), hashlib.sha256).hexdigest()
    return f"{number} mark {digest[:MARK_DIGITS]}"


def _is_same(before: object, after: object) -> bool:
    """Return whether two recorded values are equal, as far as marks of the same key tell."""
    if not (isinstance(before, str) and isinstance(after, str)):
        return before == after
    if before == BEFORE_MARKS:
        return after.startswith("set (")
    old, new = (SHOWN.fullmatch(one) for one in (before, after))
    if old is None or new is None or old["bare"] != new["bare"]:
        return before == after
    both_hidden = old["key"] is not None and new["key"] is not None
    return before == after or (both_hidden and old["key"] != new["key"])


def _home_key(home: Path) -> bytes | None:
    """Return the home's key, made by the first process that needs it; None where it cannot be kept."""
    path = home / KEY_FILE
    try:
        with contextlib.suppress(FileNotFoundError):
            return _checked(path.read_bytes())
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=home, prefix=f"{KEY_FILE}.") as partial:  # readable by us alone
            partial.write(secrets.token_bytes(KEY_BYTES))
            partial.flush()
            with contextlib.suppress(FileExistsError):  # another process was first
                os.link(partial.name, path)
        return _checked(path.read_bytes())
    except OSError as exc:
        log_action(logger, "secrets_without_mark", level=logging.WARNING, file=path, error=exc)
        return None


def _checked(key: bytes) -> bytes:
    if len(key) != KEY_BYTES:
        raise OSError(f"expected {KEY_BYTES} bytes, got {len(key)}: remove it, a new one is made")
    return key
