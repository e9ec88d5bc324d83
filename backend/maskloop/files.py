"""Folders that appear whole or not at all."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["publish_folder", "rotate_file"]

KEPT_LOGS = 3


@contextmanager
def publish_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder beside `folder`; on success it takes that name, on failure it vanishes.

    Files are flushed to disk before the rename, so that a loss of power does not leave a folder of empty
    files. A folder that was there before is moved aside first and removed last.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    unique = f"{os.getpid()}-{uuid.uuid4().hex[:8]}"
    partial, old = (folder.with_name(f".{folder.name}.{unique}.{end}") for end in ("partial", "old"))
    partial.mkdir()
    try:
        yield partial
        for path in sorted(partial.rglob("*")):
            _sync(path)
        _sync(partial)
        if folder.exists():
            folder.rename(old)
        partial.rename(folder)
        _sync(folder.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def rotate_file(path: Path, *, max_bytes: int, keep: int = KEPT_LOGS) -> bool:
    """Move the content of a log file to `path.1` when it is too large; `path.1` becomes `path.2`, and so on.

    The file itself stays and is emptied, so that processes which hold it open for appending go on with it. A
    line that is written between the copy and the emptying, some microseconds, is lost.

    Args:
        path: a file that its writers opened for appending.
        max_bytes: the size from which it is rotated.
        keep: how many older files stay.

    Returns:
        Whether it was rotated; False also where there is no such file.
    """
    try:
        if path.stat().st_size < max_bytes:
            return False
    except FileNotFoundError:
        return False
    older = [path, *(path.with_name(f"{path.name}.{number}") for number in range(1, keep + 1))]
    for source, target in zip(reversed(older[1:-1]), reversed(older[2:]), strict=True):
        if source.exists():
            source.replace(target)
    with path.open("r+b") as log, open(os.open(older[1], os.O_WRONLY | os.O_CREAT, 0o600), "wb") as copy:
        shutil.copyfileobj(log, copy)
        log.truncate(0)
    return True


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
