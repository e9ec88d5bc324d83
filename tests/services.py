"""Real servers for tests and benchmarks: a PostgreSQL and a Redis on Unix sockets in a temporary folder.

Neither listens on a network address; both end with the process that started them, also when that is killed.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType

import psycopg
from redis import Redis
from redis.exceptions import RedisError

from maskloop.processes import end, spawn

__all__ = ["TEMPLATE", "PostgresServer", "RedisServer", "find_postgres", "find_redis"]

START_TIMEOUT_S = 60.0
POLL_S = 0.05
TEMPLATE = "maskloop_template"  # an empty database with all tables
# What a power cut would lose, a test does not need.
POSTGRES_OPTIONS = {
    "listen_addresses": "",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "max_connections": "200",
    "shared_buffers": "64MB",
    "autovacuum_naptime": "10min",
    "timezone": "Asia/Kathmandu",  # far from UTC, so that a lost time zone shows
}


def find_postgres() -> Path | None:
    """Return the folder with PostgreSQL's programs: on the PATH, or where Debian puts the newest version."""
    on_path = shutil.which("postgres")
    places = [Path(on_path).resolve().parent] if on_path else []
    versions = Path("/usr/lib/postgresql").glob("*/bin")
    places += sorted(versions, key=lambda place: -int(place.parent.name))
    return next(
        (place for place in places if (place / "postgres").exists() and (place / "initdb").exists()), None
    )


def find_redis() -> Path | None:
    """Return a redis-server or valkey-server on the PATH."""
    found = shutil.which("redis-server") or shutil.which("valkey-server")
    return Path(found) if found else None


class _Server:
    """A program in a short-named folder of its own: a socket's path may have 107 bytes."""

    def __init__(self, prefix: str, *, durable: bool = False) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix=prefix))
        self.durable = durable
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self):
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self) -> None:
        """Start the program on what its folder holds, and return when it answers."""
        raise NotImplementedError

    def stop(self) -> None:
        """End the program; its folder stays, so that it can be started again."""
        if self.process is not None:
            end(self.process)
            self.process = None

    def kill(self) -> None:
        """End it as a crash does: SIGKILL to it and all its children."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None

    def _wait(self, answers: Callable[[], bool], log_path: Path) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not answers():
            if self.process is None or self.process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"{type(self).__name__} does not answer:\n{log_path.read_text()[-2000:]}")
            time.sleep(POLL_S)


class PostgresServer(_Server):
    """PostgreSQL for one test session; a database of its own for every test, copied from a template.

    Args:
        durable: keep fsync on, for tests that kill the server.
    """

    def __init__(self, *, durable: bool = False) -> None:
        super().__init__("maskloop-pg-", durable=durable)
        self._numbers = itertools.count(1)
        self._programs = find_postgres()
        # PostgreSQL refuses to run as root.
        self._owner = _unprivileged() if os.geteuid() == 0 else None
        self._data = self.folder / "data"

    def start(self) -> None:
        """See _Server; the first start makes an empty database cluster."""
        assert self._programs is not None, "install postgresql first"
        if not self._data.exists():
            if self._owner is not None:
                os.chown(self.folder, self._owner.pw_uid, self._owner.pw_gid)
            options = [
                "--username=tester",
                "--auth=trust",
                "--encoding=UTF8",
                "--no-sync",
                "--locale=C.UTF-8",
            ]
            made = subprocess.run(
                self._as_owner([str(self._programs / "initdb"), *options, "-D", str(self._data)]),
                capture_output=True,
                text=True,
                cwd=self.folder,
                check=False,
            )
            assert made.returncode == 0, made.stderr
        options = POSTGRES_OPTIONS | {"unix_socket_directories": str(self.folder)}
        if self.durable:
            options |= {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"}
        command = [str(self._programs / "postgres"), "-D", str(self._data)]
        command += [f"--{name}={value}" for name, value in options.items()]
        log_path = self.folder / "postgres.log"
        self.process = spawn(self._as_owner(command), log_path=log_path, cwd=self.folder)
        self._wait(self.is_alive, log_path)

    def stop(self) -> None:
        """End it at once, with its connections: SIGTERM would wait for them."""
        if self.process is not None:
            self.process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(10)
        super().stop()

    def is_alive(self) -> bool:
        """Return whether it takes connections."""
        try:
            psycopg.connect(self._address("postgres"), connect_timeout=5).close()
        except psycopg.OperationalError:
            return False
        return True

    def url(self, name: str) -> str:
        """Return SQLAlchemy's address of a database."""
        return f"postgresql+psycopg://tester@/{name}?host={self.folder}"

    def create(self, name: str | None = None, *, template: str = "template0") -> str:
        """Make a database, a copy of `template`, and return its name."""
        name = name or f"test_{next(self._numbers)}"
        self.run(f'CREATE DATABASE "{name}" TEMPLATE "{template}" STRATEGY file_copy')
        return name

    def drop(self, name: str) -> None:
        """Remove a database, whoever is still connected."""
        self.run(f'DROP DATABASE "{name}" WITH (FORCE)')

    @contextlib.contextmanager
    def database(self, *, template: str = TEMPLATE) -> Iterator[str]:
        """Give the address of a new database that is gone afterwards."""
        name = self.create(template=template)
        yield self.url(name)
        self.drop(name)

    def run(self, statement: str) -> None:
        """Run one statement of the administrator's."""
        with psycopg.connect(self._address("postgres"), autocommit=True) as connection:
            connection.execute(statement)  # type: ignore[call-overload]

    def ask(self, query: str) -> object:
        """Return the first value that a query of the administrator's gives."""
        with psycopg.connect(self._address("postgres"), autocommit=True) as connection:
            row = connection.execute(query).fetchone()  # type: ignore[call-overload]
        return None if row is None else row[0]

    def _address(self, name: str) -> str:
        return f"host={self.folder} dbname={name} user=tester"

    def _as_owner(self, command: list[str]) -> list[str]:
        if self._owner is None:
            return command
        identity = [f"--reuid={self._owner.pw_name}", f"--regid={self._owner.pw_gid}", "--clear-groups"]
        # Changing the user forgets which signal our death sends; setpriv asks for it again.
        return ["setpriv", *identity, "--pdeathsig=INT", "--", *command]


class RedisServer(_Server):
    """Redis with an append-only file, for tests that are not about the embedded Valkey."""

    def __init__(self, *, durable: bool = True) -> None:
        super().__init__("maskloop-redis-", durable=durable)
        self.socket = self.folder / "redis.sock"

    @property
    def url(self) -> str:
        """Its address, as MASKLOOP_REDIS_URL takes it."""
        return f"unix://{self.socket}"

    def start(self) -> None:
        """See _Server."""
        program = find_redis()
        assert program is not None, "install redis-server first"
        options = {
            "port": "0",
            "unixsocket": str(self.socket),
            "dir": str(self.folder),
            "appendonly": "yes" if self.durable else "no",
            "save": "",
            "daemonize": "no",
        }
        command = [str(program), *(part for name, value in options.items() for part in (f"--{name}", value))]
        log_path = self.folder / "redis.log"
        self.process = spawn(command, log_path=log_path, cwd=self.folder)
        self._wait(self.is_alive, log_path)

    def is_alive(self) -> bool:
        """Return whether it answers and has loaded its data."""
        with contextlib.closing(Redis.from_url(self.url)) as client:
            try:
                return bool(client.ping())
            except RedisError:
                return False

    def clear(self) -> None:
        """Forget everything."""
        with contextlib.closing(Redis.from_url(self.url)) as client:
            client.flushall()


def _unprivileged() -> pwd.struct_passwd:
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise RuntimeError("PostgreSQL does not run as root, and there is no user postgres or nobody")
