"""Whether the queue's server still has a job after it was killed, or when its memory is full."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

from redis import Redis
from redis.exceptions import ResponseError

from maskloop.queue.valkey import ask_queue

__all__ = ["QueueDurability", "queue_durability"]

KEEPS_ALL = "noeviction"


@dataclass(frozen=True, kw_only=True)
class QueueDurability:
    """What a server promises of the jobs that it was given."""

    appends: bool  # each write goes to an append-only file
    fsync: str | None  # "always", "everysec" or "no"; None: the server does not tell, as hosted ones do not
    evicts_by: str | None  # the policy by which jobs are deleted where memory is full; None: never


def queue_durability(connection: Redis) -> QueueDurability:
    """Ask the queue's server how it keeps jobs.

    Source: https://redis.io/docs/latest/operate/oss_and_stack/management/persistence/

    Raises:
        QueueError: it does not answer.
    """
    return ask_queue(lambda: _ask(connection))


def _ask(connection: Redis) -> QueueDurability:
    persistence: Any = connection.info("persistence")
    memory: Any = connection.info("memory")
    settings: Any = {}
    with contextlib.suppress(ResponseError):  # CONFIG is closed on hosted servers, and by an access list
        settings = connection.config_get("appendfsync")
    policy = memory.get("maxmemory_policy", KEEPS_ALL)
    is_bounded = int(memory.get("maxmemory", 0)) > 0
    return QueueDurability(
        appends=bool(int(persistence.get("aof_enabled", 0))),
        fsync=settings.get("appendfsync"),
        evicts_by=policy if is_bounded and policy != KEEPS_ALL else None,
    )
