"""Jobs in RQ. In a module of its own: to import Redis's client takes as long as to start a server."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import timedelta

from redis import Redis
from redis.exceptions import RedisError
from rq import Queue
from rq.exceptions import DuplicateJobError, NoSuchJobError
from rq.job import Job, JobStatus
from rq.serializers import JSONSerializer
from rq.utils import now

from maskloop.errors import QueueError
from maskloop.queue.allowed_job import AllowedJob, delete_job
from maskloop.queue.spec import JobSpec, QueueName

__all__ = ["RqQueue"]

ENDED = (JobStatus.FINISHED, JobStatus.FAILED, JobStatus.STOPPED, JobStatus.CANCELED)
CLAIM_PATIENCE = timedelta(seconds=10)  # from RQ's start of a job until it is claimed in the database


class RqQueue:
    """Jobs in RQ on a Redis or Valkey; arguments travel as JSON, and workers run allowed functions only."""

    def __init__(self, connection: Redis) -> None:
        self._connection = connection
        self._queues = {
            name: Queue(name.value, connection=connection, serializer=JSONSerializer, job_class=AllowedJob)
            for name in QueueName
        }

    def enqueue(self, spec: JobSpec) -> bool:
        """See JobQueue.

        Raises:
            QueueError: the queue cannot be reached.
        """
        with _translated(f"queue {spec.queue.value}, job {spec.job_id}"):
            return self._enqueue(spec)

    def lengths(self) -> dict[str, int]:
        """See JobQueue.

        Raises:
            QueueError: the queue cannot be reached.
        """
        with _translated("queue, its lengths"):
            return {name.value: queue.count for name, queue in self._queues.items()}

    def _enqueue(self, spec: JobSpec) -> bool:
        for _ in range(2):
            try:
                self._queues[spec.queue].enqueue_call(
                    spec.function,
                    kwargs=dict(spec.arguments),
                    job_id=spec.job_id,
                    unique=True,
                    timeout=spec.timeout_s,
                    result_ttl=0,
                    failure_ttl=24 * 3600,
                )
            except DuplicateJobError:
                if not self._forget(spec):
                    return False
            else:
                return True
        return False

    def _forget(self, spec: JobSpec) -> bool:
        """Delete a job of RQ's that has ended or is lost; return whether the job may be queued now."""
        try:
            job = AllowedJob.fetch(spec.job_id, connection=self._connection, serializer=JSONSerializer)
        except NoSuchJobError:
            return True
        if job.get_status() not in ENDED and not self._is_lost(job, spec):
            return False
        delete_job(job)
        return True

    def _is_lost(self, job: Job, spec: JobSpec) -> bool:
        status = job.get_status()
        if status is JobStatus.QUEUED:
            # A worker that is killed between taking a job off its queue and starting it loses the job.
            return self._queues[spec.queue].get_job_position(spec.job_id) is None
        # A job that is queued has no owner in the database, so the worker that RQ waits for has died. RQ
        # itself would wait until the job's timeout.
        begun = job.started_at
        return status is JobStatus.STARTED and (begun is None or now() - begun > CLAIM_PATIENCE)


@contextlib.contextmanager
def _translated(place: str) -> Iterator[None]:
    try:
        yield
    except RedisError as exc:
        raise QueueError(
            place,
            expected="a Redis or Valkey that answers",
            got=f"{type(exc).__name__}: {exc}",
            remedy="start `maskloop up`, or check MASKLOOP_REDIS_URL; the job is queued when it is back",
        ) from exc
