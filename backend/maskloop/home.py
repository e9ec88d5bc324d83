"""The home folder, MASKLOOP_HOME: its owner's alone, and of one `maskloop up` at a time."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import logging
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from maskloop.errors import ConfigurationError, ResourceError
from maskloop.log import log_action

__all__ = ["HomeLock", "close_to_others", "prepare_home", "readable_by_others"]

logger = logging.getLogger(__name__)
OTHERS = stat.S_IRWXG | stat.S_IRWXO
LOCK_NAME = "up.lock"
MAX_OWNER_TEXT = 200  # bytes read from the lock file
MOST_LOOKED_AT = 20_000  # entries of the home whose permissions are checked


def prepare_home(home: Path) -> None:
    """Make the home where it is missing, and close it and what lies directly in it to other users.

    Raises:
        ConfigurationError: it cannot be made, or is not writable.
    """
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        is_writable = os.access(home, os.W_OK | os.X_OK)
    except OSError as exc:
        raise _home_error(home, f"{exc.strerror or exc}: {exc.filename}") from exc
    if not is_writable:
        raise _home_error(home, "a folder without write permission")
    if home in (Path.home(), Path("/")) or home.stat().st_mode & stat.S_ISVTX:
        # Its permissions are about to be changed: other programs need those of a shared folder.
        raise _home_error(home, "a folder that other programs use as well")
    close_to_others(home, depth=1)


def close_to_others(home: Path, *, depth: int | None = None) -> list[Path]:
    """Take the permissions of group and others from our files in the home; return those that had any.

    Args:
        home: the folder.
        depth: how many levels of folders below it; None for all.
    """
    closed = []
    for path in readable_by_others(home, depth=depth):
        with contextlib.suppress(FileNotFoundError):  # another process removed it meanwhile
            path.chmod(stat.S_IMODE(path.lstat().st_mode) & ~OTHERS)
            closed.append(path)
    if closed:
        log_action(logger, "home_made_private", level=logging.WARNING, files=len(closed), first=closed[0])
    return closed


def readable_by_others(home: Path, *, depth: int | None = None) -> list[Path]:
    """Return our files and folders in the home, itself included, that group or others may use."""
    found = []
    for path in itertools.islice(_entries(home, depth), MOST_LOOKED_AT):
        with contextlib.suppress(OSError):
            status = path.lstat()
            is_ours = status.st_uid == os.geteuid()
            if is_ours and status.st_mode & OTHERS and not stat.S_ISLNK(status.st_mode):
                found.append(path)
    return found


def _entries(folder: Path, depth: int | None) -> Iterator[Path]:
    yield folder
    if depth == 0:
        return
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _entries(Path(entry.path), None if depth is None else depth - 1)
            else:
                yield Path(entry.path)


class HomeLock:
    """Held by the one `maskloop up` of a home; the kernel releases it when its process ends."""

    def __init__(self, home: Path) -> None:
        self._path = home / LOCK_NAME
        self._handle: int | None = None

    @property
    def is_held(self) -> bool:
        """Whether this object holds it."""
        return self._handle is not None

    def acquire(self, owner: str) -> None:
        """Take the lock.

        Args:
            owner: one line about the holder, which the error of the next one shows.

        Raises:
            ResourceError: another process holds it.
        """
        handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            other = os.read(handle, MAX_OWNER_TEXT).decode(errors="replace").strip()
            os.close(handle)
            raise ResourceError(
                f"home {self._path.parent}",
                expected="no other `maskloop up` in it",
                got=other or "an unnamed process",
                remedy="end that one first, or choose another folder with MASKLOOP_HOME",
            ) from exc
        os.ftruncate(handle, 0)
        os.write(handle, f"{owner}\n".encode())
        self._handle = handle

    def release(self) -> None:
        """Give the lock back; nothing happens where it is not held."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


def _home_error(home: Path, got: str) -> ConfigurationError:
    return ConfigurationError(
        f"MASKLOOP_HOME {home}",
        expected="a folder that this user can make and write to",
        got=got,
        remedy="choose another folder with MASKLOOP_HOME, or change its permissions",
    )
