"""The image files of an export: from the image cache, or fetched, each checked against its digest."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from PIL import Image, UnidentifiedImageError

from maskloop.curation.exports.format import ImagesMode
from maskloop.curation.snapshots.rows import ImageRow
from maskloop.errors import ImageError
from maskloop.store.images import ImageCache

__all__ = ["FetchImage", "place_image"]

FetchImage: TypeAlias = Callable[[ImageRow], None]  # brings an image into the cache, or raises an ImageError
ORIENTATION = 0x0112  # EXIF
CHUNK = 1 << 20


def place_image(
    image: ImageRow, target: Path, *, mode: ImagesMode, cache: ImageCache, fetch: FetchImage | None
) -> dict[str, int]:
    """Put an image's file in its place; one that is there already stays.

    Returns:
        What the card counts.

    Raises:
        ImageError: it is gone, or is another one now.
    """
    source = cache.path(image.image_key)
    if not source.exists():
        if fetch is None:
            raise _gone(image, "no such file on this machine")
        fetch(image)
    target.parent.mkdir(parents=True, exist_ok=True)
    counts: dict[str, int] = {}
    if not target.exists():
        if mode is ImagesMode.LINK and _link(source, target):
            counts["images linked"] = 1
        else:
            _copy(source, target, image)
    if _is_turned(target, image):
        counts["images with an EXIF orientation"] = 1
    return counts


def _link(source: Path, target: Path) -> bool:
    try:
        os.link(source, target)
    except OSError as exc:
        if isinstance(exc, FileNotFoundError):
            raise
        return False  # another disk, or a file system without links
    return True


def _copy(source: Path, target: Path, image: ImageRow) -> None:
    partial = target.with_name(f".{target.name}.partial")
    digest = hashlib.sha256()
    with source.open("rb") as read, partial.open("wb") as write:
        while chunk := read.read(CHUNK):
            digest.update(chunk)
            write.write(chunk)
    if digest.hexdigest() != image.image_key:
        partial.unlink()
        raise _gone(image, f"a file with the SHA-256 {digest.hexdigest()}")
    shutil.move(partial, target)


def _is_turned(path: Path, image: ImageRow) -> bool:
    """Return whether readers have to turn the image by its EXIF orientation for the masks to fit.

    Raises:
        ImageError: its upright size is not that of the masks.
    """
    try:
        with Image.open(path) as opened:
            orientation = opened.getexif().get(ORIENTATION, 1)
            width, height = opened.size
    except (OSError, UnidentifiedImageError, ValueError, Image.DecompressionBombError):
        return False  # a form that only others can read
    if orientation in range(5, 9):
        width, height = height, width
    if (height, width) != image.size_hw:
        raise ImageError(
            f"{image.item}, image {image.file_name}",
            expected=f"{image.height}x{image.width} pixels, as it was annotated",
            got=f"{height}x{width}",
            remedy="annotate the task again",
        )
    return orientation in range(2, 9)


def _gone(image: ImageRow, got: str) -> ImageError:
    return ImageError(
        f"{image.item}, image {image.image_uri[:200] or image.file_name}",
        expected=f"the image that was annotated (SHA-256 {image.image_key})",
        got=got,
        remedy="run `maskloop snapshot verify`; bring the file back, or fetch it again: `maskloop sync`",
    )
