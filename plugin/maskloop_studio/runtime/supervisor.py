"""`maskloop up`: runs queue, server, workers and scheduler as child processes; restarts those that end."""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from maskloop.errors import QueueError, ResourceError
from maskloop.files import rotate_file
from maskloop.home import HomeLock, prepare_home
from maskloop.log import log_action
from maskloop.processes import check_free_disk, check_free_port, end, spawn
from maskloop.queue.valkey import EmbeddedBroker, queue_url
from maskloop.settings import Settings
from maskloop_studio.runtime.health import check_health

__all__ = ["Supervisor"]

logger = logging.getLogger(__name__)
ROLES: Mapping[str, tuple[str, ...]] = {
    "server": ("serve",),
    "intake": ("worker", "--queue", "intake"),
    "predict": ("worker", "--queue", "predict"),
    "train": ("worker", "--queue", "train"),
    "scheduler": ("scheduler",),
}
MAX_BACKOFF_S = 30.0
PORT_PATIENCE_S = 5.0
CALM_S = 30.0  # a child that ran this long is restarted without a pause


@dataclass
class _Child:
    role: str
    process: subprocess.Popen[bytes]
    started: float
    backoff_s: float = 0.5
    due: float | None = None  # when to start it again


@dataclass
class Supervisor:
    """Runs all parts on one machine; each part logs to a file of its own in the home."""

    settings: Settings
    host: str
    port: int
    environment: Mapping[str, str] = field(default_factory=dict)  # for the children, in addition to our own

    def __post_init__(self) -> None:
        self._children: dict[str, _Child] = {}
        self._broker = EmbeddedBroker(self.settings) if self.settings.redis_url is None else None
        self._lock = HomeLock(self.settings.home)
        self._unrotated: set[Path] = set()  # log files whose rotation failed, reported once
        self._broker_due = 0.0  # when to try to start it again

    @property
    def url(self) -> str:
        """The server's address."""
        return f"http://{self.host}:{self.port}"

    @property
    def log_dir(self) -> Path:
        """The folder of the log files."""
        return self.settings.home / "logs"

    def start(self, *, timeout_s: float = 60.0) -> None:
        """Start all parts and wait until the server answers.

        Raises:
            ConfigurationError: the home cannot be made.
            QueueError: the embedded queue does not come up.
            ResourceError: another `maskloop up` runs in this home, the port is taken, the disk is full, or
                the server does not answer.
        """
        prepare_home(self.settings.home)
        self._lock.acquire(f"`maskloop up`, process {os.getpid()}, at {self.url}")
        self._await_port()
        check_free_disk(
            self.settings.home,
            self.settings.min_free_disk_bytes,
            remedy="free or enlarge the disk, or point MASKLOOP_HOME elsewhere",
        )
        if self._broker is not None:
            self._broker.start()
        for role in ROLES:
            self._children[role] = _Child(role, self._spawn(role), time.monotonic())
        self._wait_for_server(timeout_s)

    def _await_port(self) -> None:
        """Wait for the port: the children of a supervisor that was killed take a moment to end."""
        deadline = time.monotonic() + PORT_PATIENCE_S
        while True:
            try:
                check_free_port(self.host, self.port)
            except ResourceError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)
            else:
                return

    def watch(self) -> None:
        """Restart children that have ended; call it about every second, from the main thread."""
        now = time.monotonic()
        self._rotate_logs()
        if self._broker is not None and now >= self._broker_due and not self._broker.is_alive():
            self._restart_broker(self._broker)
        for child in self._children.values():
            if child.due is not None:
                if now >= child.due:
                    child.process, child.started, child.due = self._spawn(child.role), now, None
            elif child.process.poll() is not None:
                if now - child.started > CALM_S:
                    child.backoff_s = 0.5
                child.due = now + child.backoff_s
                child.backoff_s = min(2 * child.backoff_s, MAX_BACKOFF_S)
                log_action(
                    logger,
                    "process_ended",
                    level=logging.WARNING,
                    process=child.role,
                    code=child.process.returncode,
                    log=self._log_path(child.role),
                )

    def stop(self) -> None:
        """End all parts, the queue last; nothing happens where another `maskloop up` runs in the home."""
        if not self._lock.is_held:
            return
        for child in self._children.values():
            with contextlib.suppress(ProcessLookupError):
                child.process.terminate()
        for child in self._children.values():
            end(child.process)
        self._children.clear()
        if self._broker is not None:
            self._broker.stop()
        self._lock.release()

    def _restart_broker(self, broker: EmbeddedBroker) -> None:
        """Start the queue again; where that fails, the other parts run on without it until the next try."""
        try:
            broker.start()
        except QueueError as exc:
            self._broker_due = time.monotonic() + MAX_BACKOFF_S
            log_action(logger, "queue_not_restarted", level=logging.ERROR, error=exc)
        else:
            log_action(logger, "queue_restarted", level=logging.WARNING)

    def _rotate_logs(self) -> None:
        for path in (*self.log_dir.glob("*.log"), *self.settings.home.glob("queue/*.log")):
            try:
                rotate_file(path, max_bytes=self.settings.log_mb * 2**20)
            except OSError as exc:  # the disk is full, for instance: the processes go on
                if path not in self._unrotated:
                    log_action(logger, "log_not_rotated", level=logging.ERROR, file=path, error=exc)
                self._unrotated.add(path)
            else:
                self._unrotated.discard(path)

    def _spawn(self, role: str) -> subprocess.Popen[bytes]:
        environment = {
            **os.environ,
            **self.environment,
            "MASKLOOP_HOME": str(self.settings.home),
            "MASKLOOP_HOST": self.host,
            "MASKLOOP_PORT": str(self.port),
            "MASKLOOP_REDIS_URL": queue_url(self.settings),
        }
        command = [sys.executable, "-m", "maskloop_studio", *ROLES[role]]
        return spawn(command, log_path=self._log_path(role), env=environment)

    def _log_path(self, role: str) -> Path:
        return self.log_dir / f"{role}.log"

    def _wait_for_server(self, timeout_s: float) -> None:
        server = self._children["server"]
        deadline = time.monotonic() + timeout_s
        own = self.settings.model_copy(update={"host": self.host, "port": self.port})
        # A server that a signal ended is started again; one that ended by itself has logged the reason.
        while time.monotonic() < deadline and (server.process.poll() or -1) < 0:
            with contextlib.suppress(ResourceError):
                check_health(own)
                return
            self.watch()
            time.sleep(0.1)
        self.stop()
        raise ResourceError(
            f"server at {self.url}",
            expected=f"an answer within {timeout_s:.0f} s",
            got="its end" if server.process.poll() is not None else "none",
            remedy=f"read {self._log_path('server')}",
        )
