"""RQ workers, one process each: training forks for every job, the others stay warm."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from redis import Redis
from rq import SimpleWorker, Worker
from rq.serializers import JSONSerializer

from maskloop.queue.jobs import QueueName

__all__ = ["run_worker"]

# A killed job must go on within seconds, RQ's own defaults take minutes.
MONITORING_S = 5
MAINTENANCE_S = 15
WORKER_TTL_S = 60


def run_worker(connection: Redis, queues: Sequence[QueueName]) -> None:
    """Work until SIGTERM or SIGINT; the job in hand is finished first.

    Training gets a process of its own for every job, so nothing of torch may be imported before the fork;
    the other queues keep one warm process.

    Args:
        connection: the queue's server.
        queues: which queues, the most urgent first.
    """
    kind = Worker if QueueName.TRAIN in queues else SimpleWorker
    worker = kind(
        [name.value for name in queues],
        connection=connection,
        serializer=JSONSerializer,
        job_monitoring_interval=MONITORING_S,
        maintenance_interval=MAINTENANCE_S,
        worker_ttl=WORKER_TTL_S,
    )
    logging.getLogger("rq.worker").setLevel(logging.WARNING)
    worker.work(logging_level="WARNING")
