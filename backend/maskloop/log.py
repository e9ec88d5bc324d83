"""One line per change of state: an action and its fields, never a secret."""

from __future__ import annotations

import logging
import sys

__all__ = ["configure_logging", "log_action"]


def configure_logging(level: int = logging.INFO) -> None:
    """Write maskloop's log to standard error, and quieten libraries that talk too much."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s %(message)s"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    for name in ("maskloop", "maskloop_studio"):
        logging.getLogger(name).setLevel(level)


def log_action(logger: logging.Logger, action: str, *, level: int = logging.INFO, **fields: object) -> None:
    """Log one change of state.

    Args:
        logger: the module's logger.
        action: what happened, one word or two.
        level: how important it is.
        fields: what it happened to, such as `job_id`, `model_version`, `duration_s`.
    """
    text = " ".join(f"{key}={_shown(value)}" for key, value in fields.items())
    logger.log(
        level, "%s %s", action, text, extra={"action": action, **{f"field_{k}": v for k, v in fields.items()}}
    )


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    text = str(value).replace("\n", " ")
    return f'"{text}"' if " " in text else text
