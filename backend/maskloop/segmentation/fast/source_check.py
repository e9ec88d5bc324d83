"""Whether transformers' code is the one that our own was written against: by its text, not its version."""

from __future__ import annotations

import functools
import hashlib
import inspect
import logging
import threading
from collections.abc import Sequence
from typing import Any

__all__ = ["fingerprint", "is_known"]

_LOG = logging.getLogger(__name__)
_READING = threading.Lock()  # one thread loads a model while another predicts; linecache knows no threads


def fingerprint(parts: Sequence[Any]) -> str:
    """Return 16 hex digits of the source of functions and classes; layout, comments and docs do not count.

    Raises:
        OSError: there is no source to read.
    """
    text = "\n".join(_bare_source(part) for part in parts)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@functools.cache
def is_known(what: str, parts: tuple[Any, ...], known: frozenset[str]) -> bool:
    """Return whether these parts of transformers are among the known ones; says so once where they are not.

    Args:
        what: is switched off otherwise, for the log.
        parts: functions and classes that ours stands in for.
        known: their fingerprints in the versions that were tested.
    """
    try:
        with _READING:
            found = fingerprint(parts)
    except (OSError, TypeError, SyntaxError) as exc:
        found = f"no source ({exc})"
    if found in known:
        return True
    _LOG.warning(
        "acceleration of %s is off: transformers' code is not the one it was written for",
        what,
        extra={"action": "acceleration_off", "part": what, "fingerprint": found},
    )
    return False


def _bare_source(part: Any) -> str:
    source = inspect.getsource(inspect.unwrap(part) if inspect.isfunction(part) else part)
    kept: list[str] = []
    quoted = False
    for line in (raw.strip() for raw in source.splitlines()):
        quotes = line.count('"""')
        if not quoted and quotes == 0 and line and not line.startswith("#"):
            kept.append(line)
        quoted ^= quotes % 2 == 1
    return "\n".join(kept)
