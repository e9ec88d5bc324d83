"""Image files kept by content: the name of a file is the SHA-256 of its bytes, so none is kept twice.

What corrections need is kept for good; what was only fetched is remembered under a name, within a bound, and
the least recently used goes first.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from maskloop.errors import ImageError, ResourceError
from maskloop.files import replace_file
from maskloop.processes import check_free_disk

__all__ = ["ImageCache"]

KEY_PATTERN = re.compile(r"[0-9a-f]{64}")
TRIM_TO = 0.9  # of the bound, so that not every new image has to make room
RECOUNT_AFTER = 1 / 16  # of the bound: other processes write as well
ABANDONED_AFTER_S = 3600.0  # a file that is still being written by then never will be
WRITE_TRIES = 3  # the folder may be deleted between its making and the file's


class ImageCache:
    """A folder of image files; safe for threads and processes at once, since files only appear whole.

    Kept files lie in `<first two digits>/<key>`. Below `recent`, `names` maps what was fetched to a key and
    `files` holds the bytes that are not kept anyway.
    """

    def __init__(self, folder: Path, *, min_free_bytes: int = 0, max_bytes: int | None = None) -> None:
        """Args:
        folder: made when needed.
        min_free_bytes: of the disk, which nothing is written into.
        max_bytes: of what is only remembered; 0 remembers nothing, None has no bound. Each further process
            that writes may exceed it by a sixteenth.
        """
        self.folder = folder
        self.min_free_bytes = min_free_bytes
        self.max_bytes = max_bytes
        self._lock = threading.Lock()
        self._counted: int | None = None  # bytes below `recent` when last counted, and written since
        self._uncounted = 0  # the bytes written since

    def put(self, data: bytes) -> str:
        """Keep an image file for good and return its key; one that is already here is not written again.

        Remembered images make room when the disk is full.

        Raises:
            ResourceError: fewer than `min_free_bytes` would stay free, or the folder cannot be written.
        """
        key = hashlib.sha256(data).hexdigest()
        target = self.path(key)
        if target.exists():
            return key
        try:
            try:
                self._check_free(len(data))
            except ResourceError:
                if not (self.folder / "recent").is_dir():
                    raise
                self._trim(0)
                self._check_free(len(data))
            self._write_whole(target, data, durable=True)
        except OSError as exc:
            raise ResourceError(
                f"image cache {self.folder}",
                expected="a folder that can be written",
                got=exc.strerror or type(exc).__name__,
                remedy="free or enlarge the disk, or point MASKLOOP_HOME elsewhere",
            ) from exc
        _drop(self._recent_path("files", key))
        return key

    def path(self, key: str) -> Path:
        """Return where the kept file of a key lies, or would lie.

        Raises:
            ImageError: no key.
        """
        if not KEY_PATTERN.fullmatch(key):
            raise ImageError(
                "image cache",
                expected="64 hexadecimal digits",
                got=repr(key[:80]),
                remedy="use what put() returned",
            )
        return self.folder / key[:2] / key

    def get(self, key: str) -> bytes:
        """Return a kept image file.

        Raises:
            ImageError: the key is unknown.
        """
        try:
            return self.path(key).read_bytes()
        except OSError as exc:
            raise ImageError(
                f"image cache {self.folder}",
                expected=f"the image {key}",
                got=exc.strerror or type(exc).__name__,
                remedy="run `maskloop sync` to fetch it again",
            ) from exc

    def remember(self, name: str, data: bytes) -> bool:
        """Remember an image file under a name; say whether there was room.

        A cache that cannot be written costs time, never an image: nothing is raised.

        Args:
            name: what it was fetched by, such as its URL; always the same image has to be meant.
            data: the file; longer than `max_bytes` is not remembered.
        """
        key = hashlib.sha256(data).hexdigest()
        cost = len(data) + len(key)
        if self.max_bytes is not None and cost > self.max_bytes:
            return False
        try:
            self._check_free(cost)
            self._make_room(cost)
            if not self.path(key).exists():
                self._write_whole(self._recent_path("files", key), data, durable=False)
            self._write_whole(self._name_path(name), key.encode(), durable=False)
        except (OSError, ResourceError):
            return False
        return True

    def recall(self, name: str) -> bytes | None:
        """Return the image file that is remembered under a name, or None."""
        try:
            name_path = self._name_path(name)
            key = name_path.read_text("ascii")
            if not KEY_PATTERN.fullmatch(key):
                raise ValueError(key)
            paths = (self.path(key), self._recent_path("files", key))
            path = next((path for path in paths if path.exists()), paths[1])
            data = path.read_bytes()
            # Nothing forces these files to the disk: after a power cut one may be short.
            if hashlib.sha256(data).hexdigest() != key:
                raise ValueError(key)
        except FileNotFoundError:
            return None
        except (OSError, ValueError):
            _drop(name_path)
            return None
        for used in {name_path, paths[1]}:
            with contextlib.suppress(OSError):
                os.utime(used)
        return data

    def _recent_path(self, group: str, key: str) -> Path:
        return self.folder / "recent" / group / key[:2] / key

    def _name_path(self, name: str) -> Path:
        return self._recent_path("names", hashlib.sha256(name.encode()).hexdigest())

    def _check_free(self, needed_bytes: int) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        check_free_disk(
            self.folder,
            self.min_free_bytes + needed_bytes,
            remedy="free or enlarge the disk, or lower MASKLOOP_MIN_FREE_DISK_BYTES",
        )

    def _make_room(self, needed_bytes: int) -> None:
        limit = self.max_bytes
        if limit is None:
            return
        with self._lock:
            counted, uncounted = self._counted, self._uncounted
            if counted is None or uncounted > limit * RECOUNT_AFTER or counted + needed_bytes > limit:
                counted, uncounted = self._trim(limit - needed_bytes), 0
            self._counted, self._uncounted = counted + needed_bytes, uncounted + needed_bytes

    def _trim(self, limit: int) -> int:
        """Delete the least recently used files below `recent` beyond a bound; return the bytes that stay."""
        folder = self.folder / "recent"
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "lock").open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            for path, status in _iter_files(self.folder / "new"):
                if time.time() - status.st_mtime > ABANDONED_AFTER_S:
                    _drop(path)
            found = [item for group in ("files", "names") for item in _iter_files(folder / group)]
            total = sum(status.st_size for _, status in found)
            if total <= limit:
                return total
            for path, status in sorted(found, key=lambda item: item[1].st_mtime_ns):
                if total <= limit * TRIM_TO:
                    break
                _drop(path)
                total -= status.st_size
            return total

    def _write_whole(self, target: Path, data: bytes, *, durable: bool) -> None:
        for tries_left in reversed(range(WRITE_TRIES)):
            try:
                # `new` is where the files of a killed process are found again. A row of the database may be
                # about to point here: then the bytes must outlive a loss of power too.
                with replace_file(target, scratch=self.folder / "new", durable=durable) as new:
                    new.write_bytes(data)
                return
            except FileNotFoundError:
                if not tries_left:
                    raise


def _iter_files(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    # Other processes delete meanwhile: what is gone is passed over.
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent, name)
            with contextlib.suppress(OSError):
                yield path, path.stat()


def _drop(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()
