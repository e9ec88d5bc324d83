"""Which annotated images judge: copies stay together, every class is there, and there are enough of them.

Intake places an image when its annotation arrives, by its content (`store/holdout.py`). Before a training the
holdout is made up here from images that no version has learnt from, where it is too small or lacks a class.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from maskloop.learning.data.splits import MIN_HOLDOUT_IMAGES
from maskloop.settings import Settings
from maskloop.similarity import ImageHash, near_pairs
from maskloop.store.holdout import HOLDOUT, NEITHER, TRAIN, content_position
from maskloop.types import UNLABELLED, Correction

__all__ = ["HoldoutRule", "complete_holdout", "group_images"]

MAX_SHARE = 1 / 3  # of the annotated images, while there are few: the others have to teach


@dataclass(frozen=True, kw_only=True)
class HoldoutRule:
    """How large a holdout has to be; copies of one image count once."""

    fraction: float = 0.2  # of the annotated images; 0: there is none
    least: int = 8  # with fewer no version is judged by the holdout alone

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """Return the rule of the settings."""
        return cls(fraction=settings.holdout_fraction, least=settings.holdout_least)

    @property
    def max_share(self) -> float:
        """The largest share of the annotated images that is moved into the holdout."""
        return max(MAX_SHARE, self.fraction) if self.fraction else 0.0

    def target(self, images: int) -> int:
        """Return how many of some annotated images are to judge."""
        wanted = max(self.least, math.ceil(self.fraction * images))
        return min(wanted, math.floor(self.max_share * images + 1e-9))

    def missing(self, images: int, holdout: int) -> int:
        """Return how many more images have to be annotated until the holdout is large enough; 0 for none.

        Args:
            images: annotated images, those of the holdout included.
            holdout: those of the holdout.
        """
        if not self.fraction or holdout >= self.least:
            return 0
        return max(self.least - holdout, math.ceil(self.least / self.max_share - 1e-9) - images)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Group:
    """Images that are nearly the same, or belong to one task."""

    key: str  # the least of the image keys
    corrections: tuple[Correction, ...]
    labels: frozenset[str]
    side: str
    learnt: bool  # a version may have learnt from one of them

    @property
    def order(self) -> tuple[float, str]:
        """The place in the order in which groups are taken: content decides, not time or task."""
        return content_position(self.key), self.key


def group_images(
    corrections: Iterable[Correction], hashes: Mapping[str, ImageHash], *, near_distance: float
) -> dict[str, str]:
    """Return image key -> group, named after the least image key in it.

    Images of one task, and images whose perceptual hashes are near, are in one group; chains too.

    Args:
        corrections: any corrections of one project.
        hashes: image key -> perceptual hash; an image without one only groups by its task.
        near_distance: share of the bits that may differ, 0..1.
    """
    given = list(corrections)
    lead = {key: key for key in {one.image_key for one in given}}

    def find(key: str) -> str:
        while lead[key] != key:
            lead[key] = lead[lead[key]]
            key = lead[key]
        return key

    def join(one: str, other: str) -> None:
        first, second = sorted((find(one), find(other)))
        lead[second] = first

    of_task: dict[int, str] = {}
    for correction in given:
        join(of_task.setdefault(correction.task_id, correction.image_key), correction.image_key)
    hashed = sorted(key for key in lead if key in hashes)
    if hashed:
        for one, other, _ in near_pairs(np.stack([hashes[key] for key in hashed]), distance=near_distance):
            join(hashed[one], hashed[other])
    return {key: find(key) for key in lead}


def complete_holdout(
    train: Sequence[Correction],
    holdout: Sequence[Correction],
    *,
    groups: Mapping[str, str],
    learnt: Collection[str],
    rule: HoldoutRule,
) -> dict[str, str]:
    """Return image key -> new side of the images that are moved, for the classes and images that it lacks.

    Only images that no version has learnt from are moved into the holdout. Where copies are on both sides, as
    in projects from before copies were looked for, the holdout stays: what no version has learnt from joins
    it, and what was learnt is used no more.

    Args:
        train: corrections to learn from, of one annotation per task.
        holdout: corrections to judge on, of one annotation per task.
        groups: image key -> group, from `group_images`.
        learnt: keys of the images that a version may have learnt from.
        rule: how large the holdout has to be.
    """
    found = _groups(train, holdout, groups, learnt)
    judging = {correction.image_key for correction in holdout}
    sides = {
        correction.image_key: NEITHER if correction.image_key in learnt else HOLDOUT
        for group in found
        if group.side == NEITHER
        for correction in group.corrections
        if correction.image_key not in judging
    }
    able = [group for group in found if not all(one.is_boxes_only for one in group.corrections)]
    for group in _missing_groups(able, rule):
        sides |= {correction.image_key: HOLDOUT for correction in group.corrections}
    return sides


def _groups(
    train: Sequence[Correction],
    holdout: Sequence[Correction],
    groups: Mapping[str, str],
    learnt: Collection[str],
) -> list[_Group]:
    """Return the groups in the order of their content; one that is on both sides has the side neither."""
    members: dict[str, list[Correction]] = {}
    sides: dict[str, set[str]] = {}
    for side, corrections in ((TRAIN, train), (HOLDOUT, holdout)):
        for correction in corrections:
            members.setdefault(groups[correction.image_key], []).append(correction)
            sides.setdefault(groups[correction.image_key], set()).add(side)
    found = [
        _Group(
            key=key,
            corrections=tuple(corrections),
            labels=frozenset(part.label for one in corrections for part in one.segments if not part.is_box)
            - {UNLABELLED},
            side=min(sides[key]) if len(sides[key]) == 1 else NEITHER,
            learnt=any(one.image_key in learnt for one in corrections),
        )
        for key, corrections in members.items()
    ]
    return sorted(found, key=lambda group: group.order)


def _missing_groups(groups: Sequence[_Group], rule: HoldoutRule) -> list[_Group]:
    """Return the groups that are moved into the holdout: first for lacking classes, then for its size."""
    judging = Counter(label for group in groups if group.side != TRAIN for label in group.labels)
    teaching = Counter(label for group in groups if group.side == TRAIN for label in group.labels)
    wanted = {label: min(MIN_HOLDOUT_IMAGES, (judging[label] + teaching[label]) // 2) for label in teaching}
    count = sum(group.side != TRAIN for group in groups)
    most = math.floor(rule.max_share * len(groups) + 1e-9)
    free = {group.key: group for group in groups if group.side == TRAIN and not group.learnt}
    taken: list[_Group] = []

    def spared(group: _Group) -> bool:
        return all(teaching[label] > 1 for label in group.labels)

    def lacking(group: _Group) -> int:
        return sum(judging[label] < wanted[label] for label in group.labels)

    def take(group: _Group) -> None:
        taken.append(free.pop(group.key))
        judging.update(group.labels)
        teaching.subtract(group.labels)

    while count + len(taken) < most:
        useful = [group for group in free.values() if lacking(group) and spared(group)]
        if not useful:
            break
        take(max(useful, key=lambda group: (lacking(group), -group.order[0])))
    target = rule.target(len(groups))
    for may_take in (spared, lambda _group: True):  # while others are left, the last image of a class teaches
        for group in list(free.values()):
            if count + len(taken) >= target:
                return taken
            if may_take(group):
                take(group)
    return taken
