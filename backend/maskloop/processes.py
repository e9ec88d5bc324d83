"""Child processes that end when their parent ends, and checks that a port and disk space are free."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from maskloop.errors import ResourceError

__all__ = ["check_free_disk", "check_free_port", "end", "find_free_port", "own_environment", "spawn"]

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def spawn(
    command: Sequence[str],
    *,
    log_path: Path,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """Start a program in a process group of its own; on Linux it gets SIGTERM when this process ends.

    Call it from the main thread: the kernel watches the thread that forked.

    Args:
        command: program and arguments.
        log_path: the file that its standard output and standard error are appended to.
        cwd: its working folder.
        env: its whole environment; by default that of this process.
    """
    log_path.parent.mkdir(parents=True, exist_ok=True)
    with log_path.open("ab") as log:
        return subprocess.Popen(  # noqa: S603 - every caller passes a fixed program
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=cwd,
            env=own_environment() if env is None else dict(env),
            start_new_session=True,
            preexec_fn=_die_with_parent(),
        )


def own_environment() -> dict[str, str]:
    """Return a copy of this process's environment, for a program that is started.

    Without one a program is given the list itself, which a thread that sets a variable frees meanwhile: the
    start fails with EFAULT.
    """
    return dict(os.environ)


def end(process: subprocess.Popen[bytes], *, patience_s: float = 10.0) -> None:
    """End a spawned program and its children: by SIGTERM, and by SIGKILL after `patience_s` seconds."""
    for signal_number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal_number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience_s)
            break
    # Grandchildren that outlived their parent are still in its group.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _die_with_parent() -> Callable[[], None] | None:
    if sys.platform != "linux":
        return None
    # Loaded before the fork: between fork and exec nothing may be imported.
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    parent = os.getpid()

    def set_death_signal() -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # the parent ended between fork and prctl
            os._exit(1)

    return set_death_signal


def find_free_port(host: str = "127.0.0.1") -> int:
    """Return a TCP port that no program listens on now."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def check_free_port(host: str, port: int) -> None:
    """Raise where a port cannot be listened on.

    Raises:
        ResourceError: another program has it, or this user may not listen on it.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as exc:
            raise ResourceError(
                f"port {port} on {host}",
                expected="a free port",
                got=exc.strerror or str(exc),
                remedy="end the program that has it, or choose another with --port or MASKLOOP_PORT",
            ) from exc


def check_free_disk(folder: Path, needed_bytes: int, *, remedy: str) -> None:
    """Raise where a folder's disk has too little room.

    Args:
        folder: an existing folder.
        needed_bytes: the least free space.
        remedy: what helps, for the error.

    Raises:
        ResourceError: less is free.
    """
    free = shutil.disk_usage(folder).free
    if free < needed_bytes:
        raise ResourceError(
            f"disk of {folder}",
            expected=f"{needed_bytes / 2**20:.0f} MiB free",
            got=f"{free / 2**20:.0f} MiB",
            remedy=remedy,
        )
