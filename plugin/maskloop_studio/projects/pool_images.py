"""Images of a project that nobody has annotated, for pseudo-labels: by lot, the same ones after a kill."""

from __future__ import annotations

import hashlib
import itertools
import logging
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from maskloop.errors import ImageError, LabelConfigError
from maskloop.files import made_once, write_whole
from maskloop.log import log_action
from maskloop.processes import check_free_disk
from maskloop.store.holdout import HOLDOUT, content_position
from maskloop_studio.formats import parse_label_config, task_images

if TYPE_CHECKING:
    from collections.abc import Collection

    from numpy.typing import NDArray

    from maskloop.settings import Settings
    from maskloop_studio.services import Services

__all__ = ["TASKS_LISTED", "PoolRequest", "pool_images"]

logger = logging.getLogger(__name__)
TASKS_LISTED = 5000  # unlabelled tasks that the lot is drawn from; more take Label Studio long to list
REFILL = 2  # so many times the wanted images are tried before fewer will do
FETCHED_AT_ONCE = 8


@dataclass(frozen=True, kw_only=True)
class PoolRequest:
    """Which images are wanted."""

    project_id: int
    label_config: str  # XML, as Label Studio has it now
    wanted: int
    annotated: Collection[str]  # image keys that have an annotation
    folder: Path  # where the files are put; deleted with the training
    check: Callable[[], object] = lambda: None  # called for every image; what it raises ends the work


def pool_images(request: PoolRequest, services: Services) -> tuple[Path, ...]:
    """Return image files that nobody has annotated, each named by its content.

    Images of the holdout's side, and near copies of its images, are never among them. An image that cannot be
    had is left out and counted in the log: a training does not wait for it.

    Raises:
        ResourceError: the disk is nearly full.
        StoreError: the list of an earlier attempt is damaged.
        StudioError: Label Studio does not answer.
    """
    return made_once(
        request.folder / "pool.json",
        lambda: _gather(request, services),
        lambda names: tuple(request.folder / str(name) for name in names),
        expected="a list of file names",
    )


def _gather(request: PoolRequest, services: Services) -> list[str]:
    request.folder.mkdir(parents=True, exist_ok=True)
    addresses, skipped = _addresses(request, services)
    drawn = addresses[: REFILL * request.wanted]
    fetched = services.fetcher.fetch_ahead(
        [address for _, address in drawn],
        task_ids=[task_id for task_id, _ in drawn],
        max_workers=FETCHED_AT_ONCE,
    )
    judging = _hashes_of_holdout(request.project_id, services)
    left_out = {"unreadable": skipped, "holdout": 0, "annotated": 0}
    names: list[str] = []
    with closing(fetched):
        for data in fetched:
            request.check()
            if isinstance(data, ImageError):
                left_out["unreadable"] += 1
                continue
            reason = _why_not(data, request, judging, services.settings)
            if reason is not None:
                left_out[reason] += 1
                continue
            check_free_disk(
                request.folder,
                services.settings.min_free_disk_bytes + len(data),
                remedy="free or enlarge the disk, or set MASKLOOP_TRAIN_POOL=0",
            )
            name = hashlib.sha256(data).hexdigest()
            if name not in names:
                write_whole(request.folder / name, data)
                names.append(name)
            if len(names) >= request.wanted:
                break
    log_action(
        logger,
        "pool_gathered",
        project_id=request.project_id,
        images=len(names),
        of_tasks=len(addresses),
        left_out=", ".join(f"{count} {reason}" for reason, count in left_out.items() if count) or None,
    )
    return names


def _addresses(request: PoolRequest, services: Services) -> tuple[list[tuple[int, str]], int]:
    """Return (task, address) of images without an annotation, as the lot has it; and unreadable tasks."""
    config = parse_label_config(request.label_config)
    found: list[tuple[int, str]] = []
    skipped = 0
    tasks = services.client.iter_tasks(request.project_id, only_unlabelled=True)
    for task in itertools.islice(tasks, TASKS_LISTED):
        request.check()
        try:
            images = task_images(config, task.data, place=f"task {task.id}")
        except LabelConfigError:
            skipped += 1
            continue
        found += [(task.id, image.address) for image in images]
    return sorted(found, key=lambda one: _lot(request.project_id, *one)), skipped


def _lot(project_id: int, task_id: int, address: str) -> str:
    return hashlib.sha256(f"pool/{project_id}/{task_id}/{address}".encode()).hexdigest()


def _hashes_of_holdout(project_id: int, services: Services) -> NDArray[np.uint8]:
    from maskloop.similarity import HASH_BYTES

    store = services.store.holdout
    judging = [key for key, side in store.sides(project_id).items() if side == HOLDOUT]
    hashes = list(store.hashes(judging).values())
    return np.stack(hashes) if hashes else np.zeros((0, HASH_BYTES), np.uint8)


def _why_not(
    data: bytes, request: PoolRequest, judging_nb: NDArray[np.uint8], settings: Settings
) -> str | None:
    """Return why an image file is left out; None where it may be learnt from."""
    from maskloop.segmentation.image import decode_image
    from maskloop.similarity import hash_distances, perceptual_hash

    key = hashlib.sha256(data).hexdigest()
    if key in request.annotated:
        return "annotated"
    if content_position(key) < settings.holdout_fraction:  # it will judge once it is annotated
        return "holdout"
    try:
        image_hwc = decode_image(data, max_pixels=settings.max_image_pixels)
    except ImageError:
        return "unreadable"
    near = hash_distances(perceptual_hash(image_hwc), judging_nb) <= settings.near_distance
    return "holdout" if bool(near.any()) else None
