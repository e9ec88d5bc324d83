"""Checks whether a part of maskloop is alive on this machine, for containers and service managers."""

from __future__ import annotations

import json
import urllib.error
import urllib.request

from maskloop.errors import ResourceError
from maskloop.queue.valkey import connect_queue
from maskloop.queue.workers import has_live_scheduler, has_live_worker
from maskloop.settings import Settings
from maskloop_studio.labelstudio.basic_auth import authorization

__all__ = ["check_health"]

TIMEOUT_S = 5.0
ANY_ADDRESS = ("0.0.0.0", "::", "")  # noqa: S104 - the request comes from this machine


def check_health(settings: Settings, *, worker: bool = False, scheduler: bool = False) -> None:
    """Return where the part is alive; without a choice the part is the server.

    Raises:
        ResourceError: it is not.
        QueueError: the queue, where workers register, does not answer.
    """
    if not worker and not scheduler:
        _check_server(settings)
        return
    connection = connect_queue(settings)
    try:
        if worker and not has_live_worker(connection):
            raise _dead("a worker of this machine", "none with a fresh sign of life", "see its log")
        if scheduler and not has_live_scheduler(connection):
            raise _dead("a scheduler of this machine", "none with a fresh sign of life", "see its log")
    finally:
        connection.close()


def _check_server(settings: Settings) -> None:
    host = "127.0.0.1" if settings.host in ANY_ADDRESS else settings.host
    url = f"http://{host}:{settings.port}/health"
    request = urllib.request.Request(url, headers=authorization(settings))
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:  # noqa: S310
            status = json.load(answer).get("status")
    except (urllib.error.URLError, OSError, ValueError) as exc:
        raise _dead(f"an answer of {url}", str(exc), "start it, or see its log") from exc
    if status != "UP":
        raise _dead(f"status UP of {url}", repr(status), "is another program listening there?")


def _dead(expected: str, got: str, remedy: str) -> ResourceError:
    return ResourceError("health", expected=expected, got=got, remedy=remedy)
