"""Redis and PostgreSQL beside the loop, killed as well and started again by this harness."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections.abc import Callable
from typing import Protocol

import psycopg
from tests.services import PostgresServer, RedisServer

DOWN_S = (0.2, 3.0)


class _Server(Protocol):
    def start(self) -> None: ...
    def kill(self) -> None: ...


class Outsider:
    """A server that is down for a moment after each kill."""

    def __init__(self, server: _Server, *, seed: int) -> None:
        self._server = server
        self._rng = random.Random(f"outsider:{seed}:{type(server).__name__}")
        self._due: float | None = None  # when to start it again

    def kill(self) -> bool:
        """Kill it, unless it is down already."""
        if self._due is not None:
            return False
        self._due = time.monotonic() + self._rng.uniform(*DOWN_S)
        self._server.kill()
        return True

    def watch(self) -> None:
        """Start it again when it is time; from the main thread only, whose end ends it."""
        if self._due is not None and time.monotonic() >= self._due:
            # PostgreSQL refuses as long as a child of the one before lives: then the next call tries again.
            with contextlib.suppress(RuntimeError):
                self._server.start()
                self._due = None


def kill_backend(server: PostgresServer, database: str, *, seed: int) -> Callable[[], bool]:
    """Return what kills one of PostgreSQL's processes: all connections break, and it recovers by itself."""
    rng = random.Random(f"backend:{seed}")

    def kill() -> bool:
        query = "SELECT pid FROM pg_stat_activity WHERE datname = %s AND pid <> pg_backend_pid() ORDER BY pid"
        try:
            with psycopg.connect(
                server.url(database).replace("+psycopg", ""), connect_timeout=5
            ) as connection:
                pids = [pid for (pid,) in connection.execute(query, [database])]
            if not pids:
                return False
            os.kill(rng.choice(pids), signal.SIGKILL)
        except (psycopg.Error, ProcessLookupError):
            return False
        return True

    return kill


def outsiders(
    redis: RedisServer, postgres: PostgresServer, database: str, *, seed: int
) -> tuple[dict[str, Callable[[], bool]], Callable[[], None]]:
    """Return victim -> how to kill it, and what has to be called again and again."""
    queue, books = Outsider(redis, seed=seed), Outsider(postgres, seed=seed)
    victims = {
        "redis": queue.kill,
        "postgres": books.kill,
        "postgres backend": kill_backend(postgres, database, seed=seed),
    }

    def watch() -> None:
        queue.watch()
        books.watch()

    return victims, watch
