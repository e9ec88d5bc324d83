"""A folder in COCO's form -> a snapshot; its images are kept in the image cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from maskloop.curation.imports.coco_folder import CocoFolder, FolderImage, FolderObject
from maskloop.curation.snapshots.file_names import FileNames
from maskloop.curation.snapshots.rows import ImageRow, ObjectRow, SnapshotImage
from maskloop.curation.snapshots.snapshot_folder import Snapshot, SnapshotOrigin, write_snapshot
from maskloop.mask_runs import segment_to_rle
from maskloop.store.images import ImageCache

__all__ = ["freeze_folder"]


def freeze_folder(
    folder: CocoFolder, *, cache: ImageCache, root: Path, on_image: Callable[[int], None] = lambda _: None
) -> Snapshot:
    """Write the snapshot of a folder; category, image and annotation numbers stay.

    Args:
        folder: an opened folder.
        cache: keeps the image files.
        root: the folder of all snapshots.
        on_image: called after each image, with how many are done.

    Raises:
        CodecError: the folder is not as COCO has it.
        ResourceError: the disk is full.
    """

    def origin() -> SnapshotOrigin:
        return SnapshotOrigin(project_id=None, rule="folder", categories=folder.categories, label_configs={})

    return write_snapshot(_images(folder, cache, on_image), origin, root=root)


def _images(
    folder: CocoFolder, cache: ImageCache, on_image: Callable[[int], None]
) -> Iterator[SnapshotImage]:
    names = FileNames()
    for done, image in enumerate(folder.images(), start=1):
        row = ImageRow(
            item=image.item,
            number=image.number,
            file_name=names.take(image.file_name, item=image.item),
            image_key=cache.put(image.path.read_bytes()),
            image_uri=image.file_name,
            height=image.size_hw[0],
            width=image.size_hw[1],
            split=image.split,
            source="folder",
        )
        objects = (_object(one, image, position) for position, one in enumerate(image.objects))
        yield SnapshotImage(image=row, objects=tuple(objects))
        on_image(done)


def _object(one: FolderObject, image: FolderImage, position: int) -> ObjectRow:
    segment = one.segment
    return ObjectRow(
        item=image.item,
        position=position,
        number=one.number,
        kind=str(one.kind),
        category_id=one.category_id,
        label=segment.label,
        area=segment.area,
        top=segment.offset_yx[0],
        left=segment.offset_yx[1],
        box_height=segment.mask_hw.shape[0],
        box_width=segment.mask_hw.shape[1],
        rle=segment_to_rle(segment, image.size_hw),
        score=segment.score,
    )
