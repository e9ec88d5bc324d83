"""What has to happen again and again: queue what waits in the database without a job."""

from __future__ import annotations

import logging
import threading

from maskloop.errors import MaskloopError
from maskloop.log import log_action
from maskloop_studio.jobs import sweep

__all__ = ["run_scheduler"]

logger = logging.getLogger(__name__)
INTERVAL_S = 5.0


def run_scheduler(stop: threading.Event) -> None:
    """Sweep until told to stop; a database or queue that is away is waited for."""
    while not stop.is_set():
        try:
            sweep()
        except MaskloopError as exc:
            log_action(logger, "sweep failed", level=logging.WARNING, error=exc)
        stop.wait(INTERVAL_S)
