"""Log lines: one event a line, an action in snake_case with its facts, as text or as JSON."""

from __future__ import annotations

import json
import logging
import math
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Literal, TypeAlias

__all__ = ["LogForm", "configure_logging", "escape_controls", "log_action", "log_failures"]

LogForm: TypeAlias = Literal["text", "json"]
MAX_FACT_CHARACTERS = 2000
MAX_CAUSES = 3  # that log_failures prints
MAX_SUBJECTS = 10
CONTINUED = "    | "  # starts each further line of one entry, so that none can pass for an entry


def configure_logging(form: LogForm = "text", *, level: int = logging.INFO) -> None:
    """Write log entries to standard error; libraries log warnings and errors only.

    Args:
        form: "text", or "json" for one JSON object a line.
        level: the least level of maskloop's own entries.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonFormatter() if form == "json" else _TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    for name in ("maskloop", "maskloop_studio"):
        logging.getLogger(name).setLevel(level)


def log_action(
    logger: logging.Logger,
    action: str,
    *,
    level: int = logging.INFO,
    exc_info: bool = False,
    **facts: object,
) -> None:
    """Log one event with all its facts.

    Args:
        logger: the module's logger.
        action: what happened, in snake_case: "model_loaded".
        level: logging.INFO and the like.
        exc_info: add the traceback of the exception that is being handled.
        facts: what the event is about, such as `job_id`, `model_version`, `duration_s`.
    """
    _write(logger, action, facts, level=level, exc_info=exc_info)


def log_failures(
    logger: logging.Logger,
    action: str,
    failures: Sequence[tuple[int | None, object]],
    *,
    level: int = logging.WARNING,
    **facts: object,
) -> None:
    """Log many failures of one request as one line; nothing where there are none.

    Args:
        logger: the module's logger.
        action: what did not happen, in snake_case: "tasks_not_predicted".
        failures: (number, error) pairs, such as a task's number, None where it has none, and its error.
        level: logging.WARNING and the like.
        facts: what all failures have in common.
    """
    if not failures:
        return
    causes = Counter(str(error) for _, error in failures).most_common(MAX_CAUSES)
    known = sorted({subject for subject, _ in failures if isinstance(subject, int)})
    subjects = ", ".join(map(str, known[:MAX_SUBJECTS]))
    errors = "; ".join(f"{text} ({count} times)" if count > 1 else text for text, count in causes)
    more = ", ..." if len(known) > MAX_SUBJECTS else ""
    summary = {"count": len(failures), "subjects": subjects + more, "errors": errors}
    _write(logger, action, {**facts, **summary}, level=level)


def escape_controls(text: str) -> str:
    r"""Return text with control, bidirectional and invisible characters written as `\x1b`, `\u202e`."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )


def _write(
    logger: logging.Logger,
    action: str,
    facts: Mapping[str, object],
    *,
    level: int,
    exc_info: bool = False,
) -> None:
    if not logger.isEnabledFor(level):
        return
    text = " ".join((action, *(f"{name}={_fact_text(value)}" for name, value in facts.items())))
    logger.log(level, "%s", text, exc_info=exc_info, extra={"action": action, "facts": facts})


def _fact_text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    text = escape_controls(_shortened(str(value)))
    return '"' + text.replace('"', "'") + '"' if text == "" or any(c in text for c in ' "=') else text


def _fact_json(value: object) -> object:
    if isinstance(value, bool | int) or value is None:
        return value
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else str(value)
    return _shortened(str(value))


def _shortened(text: str) -> str:
    if len(text) <= MAX_FACT_CHARACTERS:
        return text
    return f"{text[:MAX_FACT_CHARACTERS]}... ({len(text)} characters)"


class _TextFormatter(logging.Formatter):
    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        return escape_controls(super().formatMessage(record))

    def formatException(self, ei: object) -> str:  # noqa: N802 - logging's name
        lines = super().formatException(ei).split("\n")  # type: ignore[arg-type]
        return "\n".join(CONTINUED + escape_controls(line) for line in lines)


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        action, facts = getattr(record, "action", None), getattr(record, "facts", None)
        entry: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
        }
        if action is None:
            entry["message"] = _shortened(record.getMessage())
        else:
            entry["action"] = action
        if isinstance(facts, Mapping):
            entry |= {name: _fact_json(value) for name, value in facts.items()}
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry)  # escapes every control and non-ASCII character
