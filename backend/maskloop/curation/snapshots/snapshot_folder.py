"""A snapshot on disk: written image by image, read image by image."""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from maskloop.curation.snapshots.manifest import (
    MANIFEST_FILE,
    DatasetManifest,
    TableFacts,
    read_manifest,
)
from maskloop.curation.snapshots.row_files import RowFileWriter, read_rows
from maskloop.curation.snapshots.rows import Category, ImageRow, ObjectRow, SnapshotImage
from maskloop.errors import ResourceError, StoreError
from maskloop.files import publish_folder

__all__ = ["Snapshot", "SnapshotOrigin", "file_sha256", "open_snapshot", "write_snapshot"]

TABLES = ("images", "objects")
CHUNK = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """A snapshot on disk."""

    folder: Path
    manifest: DatasetManifest

    @property
    def digest(self) -> str:
        """SHA-256 of the content."""
        return self.manifest.digest

    @property
    def image_count(self) -> int:
        """How many images it has."""
        return self.manifest.tables["images"].rows

    def table(self, name: str) -> Path:
        """Return the Parquet file of "images" or "objects"."""
        return self.folder / f"{name}.parquet"

    def images(self) -> Iterator[SnapshotImage]:
        """Yield the images with their objects, sorted by item, a few thousand rows in memory at once.

        Raises:
            StoreError: a file is damaged.
        """
        groups = groupby(read_rows(self.table("objects"), ObjectRow), key=lambda row: row.item)
        item, rows = next(groups, ("", iter(())))
        for image in read_rows(self.table("images"), ImageRow):
            objects: tuple[ObjectRow, ...] = ()
            if item == image.item:
                objects = tuple(rows)
                item, rows = next(groups, ("", iter(())))
            yield SnapshotImage(image=image, objects=objects)
        if item:
            raise StoreError(
                f"snapshot {self.folder}",
                expected="objects of its images only, in their order",
                got=f"an object of {item}",
                remedy="make the snapshot again",
            )


@dataclass(frozen=True, kw_only=True)
class SnapshotOrigin:
    """Where a snapshot comes from."""

    project_id: int | None
    rule: str
    categories: Sequence[Category]
    label_configs: Mapping[str, str]  # SHA-256 -> XML
    include: str = ""


def open_snapshot(folder: Path) -> Snapshot:
    """Return the snapshot of a folder.

    Raises:
        StoreError: it is none.
    """
    return Snapshot(folder=folder, manifest=read_manifest(folder))


def write_snapshot(
    images: Iterable[SnapshotImage], origin: Callable[[], SnapshotOrigin], *, root: Path
) -> Snapshot:
    """Write a snapshot below `root`, in a folder named by its digest; one that is there already is kept.

    Args:
        images: sorted by item, each item once.
        origin: where they come from; called once all images are written.
        root: the folder of all snapshots.

    Raises:
        StoreError: items are not sorted.
        ResourceError: it cannot be written.
    """
    building = root / f".building-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    try:
        building.mkdir(parents=True)
        manifest = _write_tables(images, origin, building)
        target = root / manifest.digest
        if not (target / MANIFEST_FILE).exists():
            with publish_folder(target) as partial:
                for name in TABLES:
                    (building / f"{name}.parquet").rename(partial / f"{name}.parquet")
                (partial / MANIFEST_FILE).write_text(manifest.text(), encoding="utf-8")
        return open_snapshot(target)
    except OSError as exc:
        raise ResourceError(
            f"snapshots in {root}",
            expected="a folder that can be written",
            got=exc.strerror or type(exc).__name__,
            remedy="free or enlarge the disk, or point MASKLOOP_HOME elsewhere",
        ) from exc
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _write_tables(
    images: Iterable[SnapshotImage], origin: Callable[[], SnapshotOrigin], folder: Path
) -> DatasetManifest:
    counted = _Counts()
    last = ""
    with ExitStack() as stack:
        image_rows = stack.enter_context(RowFileWriter(folder / "images.parquet", ImageRow))
        object_rows = stack.enter_context(RowFileWriter(folder / "objects.parquet", ObjectRow))
        for one in images:
            if one.image.item <= last:
                raise StoreError(
                    "snapshot",
                    expected="images sorted by item, each once",
                    got=f"{one.image.item!r} after {last!r}",
                    remedy="report this as an error of maskloop",
                )
            last = one.image.item
            image_rows.write(one.image)
            for row in one.objects:
                object_rows.write(row)
            counted.add(one)
    tables = {
        writer.path.stem: TableFacts(
            rows=writer.rows,
            rows_sha256=writer.digest,
            file_sha256=file_sha256(writer.path),
            bytes=writer.path.stat().st_size,
        )
        for writer in (image_rows, object_rows)
    }
    known = origin()
    return DatasetManifest(
        project_id=known.project_id,
        rule=known.rule,
        include=known.include,
        categories=tuple(sorted(known.categories, key=lambda category: category.id)),
        label_configs=known.label_configs,
        counts=counted.as_json(known.categories),
        tables=tables,
    )


class _Counts:
    def __init__(self) -> None:
        self.images: Counter[str] = Counter()
        self.kinds: Counter[str] = Counter()
        self.categories: Counter[int | None] = Counter()
        self.empty = 0

    def add(self, one: SnapshotImage) -> None:
        self.images[one.image.split] += 1
        self.empty += not one.objects
        for row in one.objects:
            self.kinds[row.kind] += 1
            self.categories[row.category_id] += 1

    def as_json(self, categories: Sequence[Category]) -> dict[str, Any]:
        return {
            "images": {split: self.images[split] for split in ("train", "validation")},
            "without_object": self.empty,
            "kinds": dict(sorted(self.kinds.items())),
            "categories": {str(category.id): self.categories[category.id] for category in categories},
        }


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
