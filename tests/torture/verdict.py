"""Compares what the loop's database says with what Label Studio says, and looks for damage on disk."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from maskloop.errors import MaskloopError
from maskloop.masks import segment_iou
from maskloop.types import Correction
from maskloop_studio.formats import TaskImage, annotation_to_segments
from maskloop_studio.formats.label_config import LabelConfig

from .studio_view import Said, StudioView

if TYPE_CHECKING:
    from maskloop.learning.registry import ModelRegistry
    from maskloop.store.trainings import Training

DIGEST_LENGTH = 64  # of an image file's name
SHOWN = 8  # faults of one kind that are listed


@dataclass(kw_only=True)
class Verdict:
    """Everything that is wrong, by kind; a run without a fault has empty lists."""

    faults: dict[str, list[str]] = field(default_factory=dict)

    def add(self, kind: str, found: Sequence[str]) -> None:
        """Keep what was found, also when it is nothing."""
        self.faults.setdefault(kind, []).extend(found)

    @property
    def total(self) -> int:
        """How many faults there are."""
        return sum(map(len, self.faults.values()))

    def lines(self) -> list[str]:
        """Return what is wrong, a line each."""
        return [f"{kind}: {fault}" for kind, found in self.faults.items() for fault in found[:SHOWN]]


def differences(studio: Mapping[int, Said], kept: Mapping[int, Said]) -> dict[str, list[str]]:
    """Return what the database lost, kept too long or has wrong."""
    both = sorted(studio.keys() & kept.keys())
    return {
        "lost": [f"{studio[number]}"[:200] for number in sorted(studio.keys() - kept.keys())],
        "left behind": [f"{kept[number]}"[:200] for number in sorted(kept.keys() - studio.keys())],
        "out of date": [
            f"annotation {number}: {name} is {getattr(kept[number], name)!s:.80}, "
            f"Label Studio says {getattr(studio[number], name)!s:.80}"
            for number in both
            for name in ("task_id", "updated_at", "state", "result")
            if getattr(studio[number], name) != getattr(kept[number], name)
        ],
    }


def mask_faults(
    view: StudioView, corrections: Mapping[tuple[int, int], Correction], config: LabelConfig
) -> list[str]:
    """Return images whose masks are not those of the regions drawn on them, and masks of nothing.

    Args:
        view: what annotators submitted.
        corrections: by annotation and image of its task.
        config: the project's.
    """
    wanted = {
        (number, page)
        for number, row in view.said.items()
        if row.state == "submitted" and row.is_readable
        for page in row.pages
    }
    found = {key for key, row in corrections.items() if row.segments}
    faults = [f"annotation {one}, image {page}: no masks" for one, page in sorted(wanted - found)]
    faults += [f"annotation {one}, image {page}: masks of nothing" for one, page in sorted(found - wanted)]
    for number, page in sorted(wanted & found):
        row, correction = view.said[number], corrections[number, page]
        uri = view.pages[row.task_id][page]
        content = annotation_to_segments(
            json.loads(row.result),
            config,
            size_hw=correction.size_hw,
            image=TaskImage(to_name=config.image_name, item_index=page, address=uri),
        )
        pairs = itertools.zip_longest(content.segments, correction.segments)
        if correction.image_uri != uri:
            faults.append(f"annotation {number}, image {page}: its masks lie on {correction.image_uri}")
        elif not all(a and b and a.label == b.label and segment_iou(a, b) == 1.0 for a, b in pairs):
            faults.append(f"annotation {number}, image {page}: its masks are not those of its regions")
    return faults


def set_aside_faults(said: Mapping[int, Said], set_aside: Mapping[int, str]) -> list[str]:
    """Return unreadable annotations that are not set aside, and readable or mended ones that are."""
    unreadable = {n for n, row in said.items() if row.state == "submitted" and not row.is_readable}
    faults = [f"annotation {number}: not set aside" for number in sorted(unreadable - set_aside.keys())]
    return faults + [
        f"annotation {number}: set aside, though all of it can be read: {set_aside[number][:200]}"
        for number in sorted(set_aside.keys() - unreadable)
    ]


def prediction_faults(view: StudioView, champion: str) -> dict[str, list[str]]:
    """Return tasks that nobody has in hand with no prediction of the champion, or with two of one version.

    A live prediction that Label Studio asked for while ours was sent may come after it; it is taken away by
    the next prelabelling, which leaves tasks alone that were annotated meanwhile.
    """
    waiting = view.unlabelled - view.in_hand
    return {
        "predictions missing": [
            f"task {task_id}: has {view.predictions[task_id]}, champion is {champion}"
            for task_id in sorted(waiting)
            if champion not in view.predictions[task_id]
        ],
        "predictions twice": [
            f"task {task_id}: {count} of {version}"
            for task_id in sorted(waiting)
            for version, count in Counter(view.predictions[task_id]).items()
            if count > 1
        ],
        "shown version": [f"{view.shown_version}, champion is {champion}"]
        if view.unlabelled and view.shown_version != champion
        else [],
    }


def _had_nothing(row: Training) -> bool:
    """Tell whether a training was asked for while nothing was annotated, which is all that it can say."""
    return row.status == "failed" and "got none (and 0 in the holdout)" in (row.error or "")


def training_faults(trainings: Sequence[Training], versions: Sequence[str]) -> list[str]:
    """Return trainings that have no version, versions that have no training, and overlaps in time."""
    faults = [
        f"training {row.training_id}: {row.status} {row.error or ''}"
        for row in trainings
        if row.status != "finished" and not _had_nothing(row)
    ]
    finished = [row for row in trainings if row.status == "finished"]
    made = Counter(str((row.outcome or {}).get("version")) for row in finished)
    faults += [f"version {tag} of {count} trainings" for tag, count in made.items() if count > 1]
    faults += [f"version {tag} is not registered" for tag in sorted(made.keys() - set(versions))]
    # The first version is the base model.
    faults += [f"version {tag} belongs to no training" for tag in versions[1:] if tag not in made]
    spans = sorted(
        (row.started_at, row.finished_at, row.training_id)
        for row in finished
        if row.started_at and row.finished_at
    )
    faults += [
        f"trainings {one[2]} and {two[2]} ran at the same time"
        for one, two in itertools.pairwise(spans)
        if two[0] < one[1]
    ]
    return faults


def file_faults(home: Path) -> Iterator[str]:
    """Yield images whose content is not what their name says."""
    for path in sorted((home / "images").rglob("*")):
        is_image = path.is_file() and len(path.name) == DIGEST_LENGTH and "names" not in path.parts
        if is_image and hashlib.sha256(path.read_bytes()).hexdigest() != path.name:
            yield f"image {path.relative_to(home)} is not what its name says"


def model_faults(registry: ModelRegistry, name: str) -> Iterator[str]:
    """Yield versions whose folder is damaged."""
    for version in registry.versions(name):
        try:
            registry.get(name, version.number)
        except MaskloopError as exc:
            yield str(exc)
