"""Whether a snapshot is what its digest says, and whether its images are there."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator

from maskloop.curation.snapshots.row_files import read_rows
from maskloop.curation.snapshots.rows import ImageRow, ObjectRow, row_line
from maskloop.curation.snapshots.snapshot_folder import Snapshot, file_sha256
from maskloop.errors import MaskloopError
from maskloop.store.images import ImageCache

__all__ = ["verify_snapshot"]


def verify_snapshot(
    snapshot: Snapshot, *, cache: ImageCache, on_image: Callable[[int], None] = lambda _: None
) -> Iterator[str]:
    """Yield what is wrong with a snapshot, one sentence each; nothing where all is well.

    Args:
        snapshot: on disk.
        cache: where its images are kept.
        on_image: called after each image, with how many are checked.
    """
    if snapshot.folder.name != snapshot.digest:
        yield f"the manifest has the digest {snapshot.digest}, the folder is named {snapshot.folder.name}"
    for name in ("images", "objects"):
        facts, path = snapshot.manifest.tables[name], snapshot.table(name)
        try:
            if file_sha256(path) != facts.file_sha256:
                yield f"{path.name}: its bytes have changed since it was written"
            digest = hashlib.sha256()
            rows = read_rows(path, ImageRow) if name == "images" else read_rows(path, ObjectRow)
            for row in rows:
                digest.update(row_line(row).encode("ascii") + b"\n")
        except (OSError, MaskloopError) as exc:
            yield f"{path.name} cannot be read: {exc}"
            return
        if digest.hexdigest() != facts.rows_sha256:
            yield f"{path.name}: its rows have changed since it was written"
            return
    for done, one in enumerate(snapshot.images(), start=1):
        for drawn in one.objects:
            try:
                segment = drawn.segment(one.image.size_hw)
            except MaskloopError as exc:
                yield str(exc)
                continue
            if (segment.area, segment.box_yxyx) != (drawn.area, drawn.box_yxyx):
                place = f"object {drawn.position} of {drawn.item}"
                yield f"{place}: its mask has another area or box than its row"
        yield from _image_trouble(one.image, cache)
        on_image(done)


def _image_trouble(image: ImageRow, cache: ImageCache) -> Iterator[str]:
    path = cache.path(image.image_key)
    if not path.exists():
        yield f"{image.item}: the image {image.file_name} is not on this machine ({image.image_uri[:200]})"
    elif file_sha256(path) != image.image_key:
        yield f"{image.item}: the file of the image {image.file_name} is damaged ({path})"
