"""RQ jobs that can run functions of an allow-list only: who can write to the Redis must not run code here.

A job in Redis names its function, and RQ imports and calls any function that is named, callbacks included.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Mapping
from typing import Any, ClassVar, NoReturn

from redis.exceptions import RedisError
from rq.exceptions import DeserializationError, NoSuchJobError
from rq.job import Job
from rq.utils import import_attribute

from maskloop.errors import QueueError
from maskloop.log import log_action

__all__ = ["AllowedJob", "allow_functions", "delete_job"]

logger = logging.getLogger(__name__)
MAX_DATA_BYTES = 2**16  # of a job's function and arguments; ours need about 100
CALLBACK_FIELDS = ("success_callback_name", "failure_callback_name", "stopped_callback_name", "webhooks")


class AllowedJob(Job):
    """An RQ job whose function must stand in `functions`; it has no callbacks and sends no webhooks."""

    functions: ClassVar[Mapping[str, str]] = {}  # name in the queue -> dotted name of the function that runs
    _has_callbacks = False

    @property
    def func(self) -> Any:
        """The function that runs.

        Raises:
            QueueError: the job is not allowed.
        """
        reason = self.refusal()
        if reason is not None:
            raise QueueError(
                f"job {self.id}",
                expected="a job that maskloop has queued",
                got=reason,
                remedy="find out who writes to this Redis, and protect it with a password",
            )
        return import_attribute(self.functions[str(self.func_name)])

    def refusal(self) -> str | None:
        """Return why the job must not run; None where it may."""
        try:
            name, instance, args, kwargs = self.func_name, self.instance, self.args, self.kwargs
        except DeserializationError:
            return "data that is not JSON, or more than 64 KiB of it"
        if not isinstance(name, str) or name not in self.functions:
            return f"the function {str(name)[:100]!r}"
        if instance is not None:
            return "a method of an object"
        if args or not isinstance(kwargs, dict) or not all(isinstance(v, int | str) for v in kwargs.values()):
            return f"arguments that are not numbers or texts with names, for {name}"
        return "a callback or a webhook" if self._has_callbacks else None

    def restore(self, raw_data: Any) -> None:
        """Read a job's fields from Redis.

        Raises:
            NoSuchJobError: they are not those of a job; it is deleted.
        """
        fields = {as_name(key): value for key, value in raw_data.items()}
        self._has_callbacks = any(fields.get(name) for name in CALLBACK_FIELDS)
        for name in CALLBACK_FIELDS:
            fields.pop(name, None)
        try:
            fields["data"] = _inflate(fields["data"])
            super().restore({name.encode(): value for name, value in fields.items()})
        except NoSuchJobError:
            raise
        except Exception as exc:  # a hash that something else wrote: RQ's parsers raise errors of any kind
            self._refuse_fields(exc)

    def send_webhooks(self, status: Any, *, exc_string: str | None = None) -> None:
        """Send nothing: our jobs have no webhooks."""

    @property
    def success_callback(self) -> None:
        """None: our jobs have no callbacks."""

    @property
    def failure_callback(self) -> None:
        """None: our jobs have no callbacks."""

    @property
    def stopped_callback(self) -> None:
        """None: our jobs have no callbacks."""

    def _refuse_fields(self, exc: Exception) -> NoReturn:
        log_action(
            logger,
            "job_refused",
            level=logging.WARNING,
            job_id=self.id,
            reason=f"fields that cannot be read ({type(exc).__name__})",
        )
        self.connection.delete(self.key)
        raise NoSuchJobError(self.id) from exc


def allow_functions(functions: Mapping[str, str]) -> type[AllowedJob]:
    """Return a class of jobs that run these functions and no others.

    Args:
        functions: name in the queue -> dotted name of the function that runs; it is imported when it runs.
    """
    return type("AllowedJob", (AllowedJob,), {"functions": dict(functions)})


def delete_job(job: Job) -> None:
    """Delete a job and what RQ keeps of it.

    Raises:
        RedisError: the queue does not answer.
    """
    try:
        job.delete()
    except RedisError:
        raise
    except Exception:  # of a killed worker, RQ keeps an execution that it cannot find itself
        job.connection.delete(job.key, f"rq:executions:{job.id}")


def as_name(key: bytes | str) -> str:
    """Return the name of a field in Redis."""
    return key.decode("utf-8", "replace") if isinstance(key, bytes) else key


def _inflate(data: bytes) -> bytes:
    """Return a job's data uncompressed, and a longer text as none: a small text must not fill the memory."""
    inflater = zlib.decompressobj()
    try:
        plain = inflater.decompress(data, MAX_DATA_BYTES)
    except zlib.error:
        plain = data
    return b"" if inflater.unconsumed_tail or len(plain) > MAX_DATA_BYTES else plain
