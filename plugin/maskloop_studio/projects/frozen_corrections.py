"""The corrections of a training as they are when it begins: their images, their sides, their snapshot."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from maskloop.errors import ImageError
from maskloop.log import log_action
from maskloop.store.holdout import HOLDOUT, TRAIN

if TYPE_CHECKING:
    from maskloop.settings import Settings
    from maskloop.store.database import Store
    from maskloop.store.images import ImageCache
    from maskloop.types import Correction
    from maskloop_studio.images.fetcher import ImageFetcher

__all__ = ["FrozenCorrections", "TrainingImages", "ensure_image", "freeze_corrections", "near_groups"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, eq=False)
class FrozenCorrections:
    """The corrections of one training."""

    train: tuple[Correction, ...]  # to learn from
    holdout: tuple[Correction, ...]  # to judge on
    groups: Mapping[str, str]  # image key -> group of images that are nearly the same


@dataclass(frozen=True)
class TrainingImages:
    """The images of corrections: here, or fetched again."""

    cache: ImageCache
    fetcher: ImageFetcher
    settings: Settings
    check: Callable[[], object] = lambda: None  # called for every image; what it raises ends the work

    def ensure(self, corrections: Iterable[Correction]) -> None:
        """Fetch the images that this machine does not have.

        Raises:
            ImageError: one cannot be fetched, or its address has another image now.
        """
        for correction in corrections:
            self.check()
            ensure_image(correction, image_cache=self.cache, fetcher=self.fetcher)


def freeze_corrections(
    project_id: int, snapshot: Path, *, store: Store, images: TrainingImages, learnt_through: int
) -> FrozenCorrections:
    """Return the corrections of a training and those of its holdout, the same ones again after a kill.

    The first call makes up the holdout, from images that no version has learnt from, and writes the snapshot.
    Each call reads every correction, and decodes its masks, once.

    Args:
        project_id: Label Studio's number.
        snapshot: file that lists the annotation versions of this training.
        store: the stored corrections, and the sides of their images.
        images: the corrections' images.
        learnt_through: the newest annotation version that an earlier training learnt from.

    Raises:
        ImageError: an image cannot be had.
    """
    from maskloop.learning.data.snapshot import SnapshotManifest
    from maskloop.learning.data.splits import leave_out_copies

    corrections = store.corrections
    if snapshot.exists():
        manifest = SnapshotManifest.read(snapshot)
        train = corrections.at(manifest.version_ids("train"))
        holdout = corrections.at(manifest.version_ids("holdout"))
        images.ensure((*train, *holdout))
        return FrozenCorrections(
            train=train, holdout=holdout, groups=near_groups((*train, *holdout), store=store, images=images)
        )
    train, holdout = (
        tuple(sorted(corrections.of(project_id, split=split), key=_by_version)) for split in (TRAIN, HOLDOUT)
    )
    images.ensure((*train, *holdout))
    groups = near_groups((*train, *holdout), store=store, images=images)
    first_seen = store.holdout.first_versions(project_id)
    sides = _missing_sides(
        train,
        holdout,
        groups=groups,
        learnt={key for key, version in first_seen.items() if version <= learnt_through},
        settings=images.settings,
    )
    if sides:
        store.holdout.move(project_id, sides)
        added = sum(side == HOLDOUT for side in sides.values())
        log_action(
            logger,
            "holdout_completed",
            project_id=project_id,
            images=added,
            copies_left_out=len(sides) - added,
        )
        holdout = tuple(
            sorted(
                (*holdout, *(one for one in train if sides.get(one.image_key) == HOLDOUT)), key=_by_version
            )
        )
        train = tuple(one for one in train if one.image_key not in sides)
    if not images.settings.train_duplicates:
        every = len(train)
        train = tuple(leave_out_copies(train, groups))
        log_action(logger, "copies_left_out", project_id=project_id, corrections=every - len(train))
    SnapshotManifest.of(train=train, holdout=holdout).write(snapshot)
    return FrozenCorrections(train=train, holdout=holdout, groups=groups)


def near_groups(
    corrections: Collection[Correction], *, store: Store, images: TrainingImages
) -> dict[str, str]:
    """Return image key -> group of images that are nearly the same; hashes that are missing are computed.

    Args:
        corrections: any corrections of one project, whose images are on this machine.
        store: keeps the hashes.
        images: the images.
    """
    from maskloop.learning.data.holdout_choice import group_images
    from maskloop.segmentation.image import decode_image
    from maskloop.similarity import perceptual_hash

    keys = sorted({correction.image_key for correction in corrections})
    hashes = store.holdout.hashes(keys)
    for key in keys:
        if key in hashes:
            continue
        images.check()
        image_hwc = decode_image(images.cache.get(key), max_pixels=images.settings.max_image_pixels)
        hashes[key] = perceptual_hash(image_hwc)
        store.holdout.add_hash(key, hashes[key])
    return group_images(corrections, hashes, near_distance=images.settings.near_distance)


def ensure_image(correction: Correction, *, image_cache: ImageCache, fetcher: ImageFetcher) -> None:
    """Fetch a correction's image where this machine does not have it.

    Raises:
        ImageError: it cannot be fetched, or its address has another image now.
    """
    if image_cache.path(correction.image_key).exists():
        return
    data = fetcher.fetch(correction.image_uri, task_id=correction.task_id)
    if image_cache.put(data) != correction.image_key:
        raise ImageError(
            f"task {correction.task_id}, image {correction.image_uri[:200]}",
            expected=f"the image that was annotated (SHA-256 {correction.image_key})",
            got="another image at the same address",
            remedy="annotate the task again, or copy the old image into MASKLOOP_HOME/images",
        )


def _missing_sides(
    train: Iterable[Correction],
    holdout: Iterable[Correction],
    *,
    groups: Mapping[str, str],
    learnt: Collection[str],
    settings: Settings,
) -> dict[str, str]:
    from maskloop.learning.data.holdout_choice import HoldoutRule, complete_holdout
    from maskloop.learning.data.training_set import used_corrections

    return complete_holdout(
        used_corrections(train, settings),
        used_corrections(holdout, settings),
        groups=groups,
        learnt=learnt,
        rule=HoldoutRule.from_settings(settings),
    )


def _by_version(correction: Correction) -> tuple[int, str, int]:
    return correction.version_id, correction.view, correction.image_index
