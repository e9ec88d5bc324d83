"""Tasks that a request could not predict: a prelabelling job brings their predictions later."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from maskloop.errors import StoreError
from maskloop.log import log_action
from maskloop.store.jobs import JobKind

if TYPE_CHECKING:
    from maskloop.errors import MaskloopError
    from maskloop.store.database import Store
    from maskloop_studio.serving.outbox import Outbox

__all__ = ["BackgroundPredictions"]

logger = logging.getLogger(__name__)
FIRST_RETRY_S = 15.0  # what failed a moment ago fails now as well; the job's own back-off follows
SHOWN_CHARS = 200


class BackgroundPredictions:
    """Asks for prelabelling jobs; safe from any thread, and never waits for the queue."""

    def __init__(self, *, store: Callable[[], Store], outbox: Outbox) -> None:
        """Args:
        store: the database; opened at the first use.
        outbox: puts jobs on the queue.
        """
        self._store, self._outbox = store, outbox

    def predict_left(self, project_id: int, *, left: int, of: int) -> None:
        """Ask for the predictions of tasks that a deadline cut off, at once.

        Args:
            project_id: Label Studio's number.
            left: tasks without an answer.
            of: tasks of the request.
        """
        self._want(project_id, f"{left} of {of} tasks of a request were left at its deadline", quiet_s=0.0)

    def predict_failed(self, project_id: int, failed: int, error: MaskloopError) -> None:
        """Ask for the predictions of tasks that failed, after a moment.

        Args:
            project_id: Label Studio's number.
            failed: tasks.
            error: of the first of them.
        """
        reason = f"{failed} tasks could not be predicted: {error}"
        self._want(project_id, reason[:SHOWN_CHARS], quiet_s=FIRST_RETRY_S)

    def _want(self, project_id: int, reason: str, *, quiet_s: float) -> None:
        try:
            job_id = self._store().jobs.request(JobKind.PRELABEL, project_id, reason, quiet_s=quiet_s)
        except StoreError as exc:
            # The answer must not be lost with it; `maskloop prelabel` and the next such job find the tasks.
            log_action(
                logger,
                "predictions_not_queued",
                level=logging.ERROR,
                project_id=project_id,
                reason=reason,
                error=exc,
            )
            return
        if not quiet_s:  # else the scheduler queues it when it is due
            self._outbox.put([(JobKind.PRELABEL, job_id)])
