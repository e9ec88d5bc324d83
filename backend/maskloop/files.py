"""Folders that appear whole or not at all."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["publish_folder"]


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


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
