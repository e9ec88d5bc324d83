"""A snapshot -> a folder in another tool's form: one image at a time, to be stopped and gone on with.

The folder is made under a temporary name beside its place and renamed at the end, so that a half one never
looks whole. A journal in it has a line for each image that is done; files of all images are written from it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from maskloop.curation.exports.card import write_card
from maskloop.curation.exports.format import (
    ExportFormat,
    ExportJob,
    ExportPlan,
    ImagesMode,
    Record,
)
from maskloop.curation.exports.image_files import FetchImage, place_image
from maskloop.curation.snapshots.rows import ObjectKind, SnapshotImage
from maskloop.curation.snapshots.snapshot_folder import Snapshot
from maskloop.errors import CodecError, ConfigurationError, ImageError, ResourceError, StudioError
from maskloop.store.images import ImageCache

__all__ = ["ExportResult", "export_snapshot"]

SUMMARY_FILE = "maskloop-export.json"
FAILURES_FILE = "left-out.txt"
JOURNAL, STATE = ".journal.jsonl", ".state.json"
MAX_NAMED = 20
PER_IMAGE = (ImageError, CodecError, StudioError)  # one image fails, the others go on


@dataclass(kw_only=True)
class ExportResult:
    """What an export wrote."""

    folder: Path
    images: Counter[str] = field(default_factory=Counter)  # by split
    counts: Counter[str] = field(default_factory=Counter)  # what was lost or changed
    least: dict[str, float] = field(default_factory=dict)  # the lowest value of each measure
    failed: int = 0  # images that were left out
    failures: list[str] = field(default_factory=list)  # why, of the first of them

    def add(self, record: Record) -> None:
        """Count an image."""
        if record.failure is not None:
            self.failed += 1
            if len(self.failures) < MAX_NAMED:
                self.failures.append(record.failure)
            return
        self.images[record.split] += 1
        self.counts.update(record.counts)
        for name, value in record.least.items():
            self.least[name] = min(value, self.least.get(name, value))

    def as_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {
            "folder": str(self.folder),
            "images": dict(self.images),
            "counts": {name: count for name, count in self.counts.items() if count},
            "least": self.least,
            "failed": self.failed,
            "failures": self.failures,
        }


def export_snapshot(
    snapshot: Snapshot,
    plan: ExportPlan,
    form: ExportFormat,
    target: Path,
    *,
    cache: ImageCache,
    fetch: FetchImage | None = None,
    on_image: Callable[[int], None] = lambda _: None,
) -> ExportResult:
    """Write a snapshot as a folder; stopped at any time, the same call goes on.

    Args:
        snapshot: what is exported.
        plan: splits, classes, images.
        form: the format of the plan.
        target: the new folder; it may be there already if it is empty.
        cache: holds the images.
        fetch: brings an image that the cache lacks; None: such an image is left out and named.
        on_image: called after each image, with how many are done.

    Raises:
        ConfigurationError: the folder is not empty, a label is unknown, or the form cannot hold the classes.
        ResourceError: it cannot be written; what is done stays, for the next try.
        StoreError: the snapshot is damaged.
    """
    job = _job(snapshot, plan)
    if form.needs_images and plan.images is ImagesMode.NONE:
        raise ConfigurationError(
            f"export as {form.name}",
            expected="images to be copied or linked: readers of this form open them",
            got="--images none",
            remedy="choose --images copy or link",
        )
    form.check(job)
    target = target.absolute()
    _check_target(target)
    partial = target.with_name(f".{target.name}.partial")
    try:
        with _claimed(partial, job):
            _write_images(snapshot, job, form, partial, cache=cache, fetch=fetch, on_image=on_image)
            result = _finish(job, form, partial, target)
        os.sync()  # once for all files: after a loss of power none may be empty in a folder that looks whole
        partial.rename(target)
    except OSError as exc:
        full = exc.errno in (errno.ENOSPC, errno.EDQUOT)
        raise ResourceError(
            f"export to {target}",
            expected="a disk with room" if full else "a folder that can be written",
            got=f"{exc.strerror or type(exc).__name__}: {exc.filename or ''}",
            remedy=f"make room and run the same command: it goes on where it was ({partial} is not whole)",
        ) from exc
    return result


def _job(snapshot: Snapshot, plan: ExportPlan) -> ExportJob:
    categories = snapshot.manifest.categories
    names = [one.name for one in categories]
    unknown = [label for label in plan.labels if label not in names]
    if unknown:
        raise ConfigurationError(
            "export, --labels",
            expected=f"classes of the snapshot ({', '.join(names)[:300]})",
            got=unknown[0],
            remedy="spell it as the snapshot does; upper and lower case count",
        )
    kept = tuple(one for one in categories if not plan.labels or one.name in plan.labels)
    return ExportJob(plan=plan, digest=snapshot.digest, categories=kept)


def _check_target(target: Path) -> None:
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ConfigurationError(
            f"export to {target}",
            expected="a new or an empty folder",
            got="one with files in it" if target.is_dir() else "a file",
            remedy="name another folder, or remove this one first",
        )


@contextlib.contextmanager
def _claimed(partial: Path, job: ExportJob) -> Iterator[None]:
    """Hold the temporary folder: that of the same export is gone on with, any other one is emptied."""
    key = hashlib.sha256(json.dumps([job.digest, job.plan.as_json()]).encode()).hexdigest()
    partial.mkdir(parents=True, exist_ok=True)
    with partial.with_name(f"{partial.name}.lock").open("wb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            raise ResourceError(
                f"export to {partial}",
                expected="no other export to the same folder at the same time",
                got="one that runs",
                remedy="wait for it, or name another folder",
            ) from exc
        state = partial / STATE
        if not state.exists() or state.read_text() != key:
            shutil.rmtree(partial)
            partial.mkdir()
            state.write_text(key)
        yield
        Path(lock.name).unlink()


def _write_images(
    snapshot: Snapshot,
    job: ExportJob,
    form: ExportFormat,
    folder: Path,
    *,
    cache: ImageCache,
    fetch: FetchImage | None,
    on_image: Callable[[int], None],
) -> None:
    journal = folder / JOURNAL
    done = _whole_lines(journal)
    with journal.open("a", encoding="utf-8") as file:
        for index, one in enumerate(_wanted(snapshot, job)):
            if index < done:
                continue
            record = _write_image(one, job, form, folder, cache=cache, fetch=fetch)
            file.write(json.dumps(vars(record)) + "\n")
            on_image(index + 1)


def _write_image(
    one: SnapshotImage,
    job: ExportJob,
    form: ExportFormat,
    folder: Path,
    *,
    cache: ImageCache,
    fetch: FetchImage | None,
) -> Record:
    image = one.image
    target = folder / form.image_path(image)
    counts: dict[str, int] = {
        "images whose annotation has boxes in place of masks": int(image.approximate),
        "boxes, written as masks that fill them": sum(row.kind == ObjectKind.BOX for row in one.drawn),
    }
    try:
        if job.plan.images is not ImagesMode.NONE:
            counts |= place_image(image, target, mode=job.plan.images, cache=cache, fetch=fetch)
        record = form.write(one, job, folder)
    except PER_IMAGE as exc:
        target.unlink(missing_ok=True)
        return Record(item=image.item, split=image.split, failure=str(exc))
    return Record(**{**vars(record), "counts": {**record.counts, **counts}})


def _wanted(snapshot: Snapshot, job: ExportJob) -> Iterator[SnapshotImage]:
    ids = {one.id for one in job.categories}
    for one in snapshot.images():
        if one.image.split not in job.plan.splits:
            continue
        kept = tuple(row for row in one.objects if row.category_id is None or row.category_id in ids)
        yield one if len(kept) == len(one.objects) else SnapshotImage(image=one.image, objects=kept)


def _whole_lines(journal: Path) -> int:
    """Return how many images are done; half a line, of a run that was killed, is cut off."""
    if not journal.exists():
        return 0
    lines = end = 0
    with journal.open("rb") as file:
        for line in file:
            if not line.endswith(b"\n"):
                break
            lines, end = lines + 1, end + len(line)
    os.truncate(journal, end)
    return lines


def _finish(job: ExportJob, form: ExportFormat, partial: Path, target: Path) -> ExportResult:
    journal = partial / JOURNAL

    def everything() -> Iterator[Record]:
        with journal.open(encoding="utf-8") as file:
            for line in file:
                yield Record(**json.loads(line))

    def written() -> Iterator[Record]:
        return (record for record in everything() if record.failure is None)

    result = ExportResult(folder=target)
    failures = partial / FAILURES_FILE
    with failures.open("w", encoding="utf-8") as file:
        for record in everything():
            result.add(record)
            if record.failure is not None:
                file.write(f"{record.failure}\n")
    if not result.failed:
        failures.unlink()
    form.finish(written, job, partial)
    summary = {
        "snapshot": job.digest,
        "plan": job.plan.as_json(),
        "categories": [vars(one) for one in job.categories],
        **{name: value for name, value in result.as_json().items() if name != "folder"},
    }
    text = json.dumps(summary, indent=1, ensure_ascii=False)
    (partial / SUMMARY_FILE).write_text(text + "\n", encoding="utf-8")
    write_card(partial, job, form, summary)
    for name in (JOURNAL, STATE):
        (partial / name).unlink()
    return result
