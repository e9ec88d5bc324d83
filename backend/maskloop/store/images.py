"""Image files kept by content: the name of a file is the SHA-256 of its bytes, so none is kept twice."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from pathlib import Path

from maskloop.errors import ImageError, ResourceError
from maskloop.resources import check_free_disk

__all__ = ["ImageCache"]

KEY_PATTERN = re.compile(r"[0-9a-f]{64}")


class ImageCache:
    """A folder of image files; safe for several processes at once, since files only appear whole."""

    def __init__(self, folder: Path, *, min_free_bytes: int = 0) -> None:
        self.folder = folder
        self.min_free_bytes = min_free_bytes

    def put(self, data: bytes) -> str:
        """Keep an image file and return its key; one that is already here is not written again.

        Raises:
            ResourceError: fewer than `min_free_bytes` would stay free, or the folder cannot be written.
        """
        key = hashlib.sha256(data).hexdigest()
        target = self.path(key)
        if target.exists():
            return key
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            check_free_disk(
                self.folder,
                self.min_free_bytes + len(data),
                remedy="free or enlarge the disk, or lower MASKLOOP_MIN_FREE_DISK_BYTES",
            )
            _write_whole(target, data)
        except OSError as exc:
            raise ResourceError(
                f"image cache {self.folder}",
                expected="a folder that can be written",
                got=exc.strerror or type(exc).__name__,
                remedy="free or enlarge the disk, or point MASKLOOP_HOME elsewhere",
            ) from exc
        return key

    def path(self, key: str) -> Path:
        """Return where the file of a key lies, or would lie.

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
        """Return an image file.

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


def _write_whole(target: Path, data: bytes) -> None:
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=".new-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            # A row of the database is about to point here: the bytes must outlive a power cut too.
            os.fsync(file.fileno())
        os.replace(name, target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
