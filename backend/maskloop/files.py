"""Files and folders that appear whole or not at all, and log files that stay within a size."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from maskloop.errors import StoreError

__all__ = ["made_once", "publish_folder", "replace_file", "rotate_file", "write_whole"]

KEPT_LOGS = 3
Read = TypeVar("Read")


@contextmanager
def publish_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder beside `folder`; on success it takes that name, on failure it is removed.

    Files are flushed to disk before the rename, so that a loss of power does not leave a folder of empty
    files. A folder that was there before is moved aside first and removed last.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial, old = (folder.with_name(f".{folder.name}.{_unique()}.{end}") for end in ("partial", "old"))
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


@contextmanager
def replace_file(path: Path, *, scratch: Path | None = None, durable: bool = True) -> Iterator[Path]:
    """Yield the path of a new file; on success it takes the name `path`, on failure it is removed.

    Readers see the old file or the whole new one.

    Args:
        path: the file; its folder is made where it is missing.
        scratch: the folder of the new file, on the same disk; by default that of `path`.
        durable: flush to disk first, so that a loss of power does not leave an empty file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = path.parent if scratch is None else scratch
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f".{path.stem}.{_unique()}.partial{path.suffix}"
    try:
        yield partial
        if durable:
            _sync(partial)
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def write_whole(path: Path, content: str | bytes, *, durable: bool = True) -> None:
    """Write a file; readers see the old content or the whole new one. Text is written as UTF-8."""
    with replace_file(path, durable=durable) as partial:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)


def made_once(path: Path, make: Callable[[], object], read: Callable[[Any], Read], *, expected: str) -> Read:
    """Return what a file says; the first call makes it, so that work that was killed goes on with the same.

    Args:
        path: of JSON.
        make: returns what the file holds, where it is not there yet.
        read: makes the result of what the file holds.
        expected: what the file should be, for the error.

    Raises:
        StoreError: the file is damaged.
    """
    if not path.exists():
        write_whole(path, json.dumps(make()))
    try:
        return read(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise StoreError(
            str(path),
            expected=expected,
            got=f"{type(exc).__name__}: {exc}",
            remedy="delete this file: the next attempt makes it again",
        ) from exc


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


def _unique() -> str:
    return f"{os.getpid()}-{uuid.uuid4().hex[:8]}"


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
