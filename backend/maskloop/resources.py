"""What a machine runs out of: ports and disk; checked before it is needed."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path

from maskloop.errors import ResourceError

__all__ = ["check_free_disk", "check_free_port", "find_free_port"]


def find_free_port(host: str = "127.0.0.1") -> int:
    """Return a TCP port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def check_free_port(host: str, port: int) -> None:
    """Raise where a port cannot be listened on.

    Raises:
        ResourceError: it is taken, or not ours to take.
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
                remedy="end the program that holds it, or choose another with --port or MASKLOOP_PORT",
            ) from exc


def check_free_disk(folder: Path, needed_bytes: int, *, remedy: str) -> None:
    """Raise where a folder's disk has too little room.

    Args:
        folder: an existing one.
        needed_bytes: how much has to be free.
        remedy: what to do about it.

    Raises:
        ResourceError: there is less.
    """
    free = shutil.disk_usage(folder).free
    if free < needed_bytes:
        raise ResourceError(
            f"disk of {folder}",
            expected=f"{needed_bytes / 2**20:.0f} MiB free",
            got=f"{free / 2**20:.0f} MiB",
            remedy=remedy,
        )
