"""A project's corrections -> a snapshot: of each task the annotation that counts, labels as categories."""

from __future__ import annotations

import heapq
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import UTC
from itertools import groupby
from pathlib import Path
from typing import Any

from maskloop.curation.snapshots.file_names import FileNames
from maskloop.curation.snapshots.rows import Category, ImageRow, ObjectKind, ObjectRow, SnapshotImage
from maskloop.curation.snapshots.snapshot_folder import Snapshot, SnapshotOrigin, write_snapshot
from maskloop.learning.data.splits import choose_corrections
from maskloop.log import log_action
from maskloop.mask_runs import segment_to_rle
from maskloop.masks import crop_mask
from maskloop.store.annotations import AnnotationRepository
from maskloop.store.corrections import TaskCorrections
from maskloop.store.datasets import DatasetRepository
from maskloop.types import UNLABELLED, AnnotationRule, Correction, Segment

__all__ = ["FreezeRules", "freeze_project"]

logger = logging.getLogger(__name__)
SPLITS = {"train": "train", "holdout": "validation"}


@dataclass(frozen=True, kw_only=True)
class FreezeRules:
    """How a project's annotations are read."""

    project_id: int
    labels: Sequence[str]  # of the label config, in its order
    stuff_labels: AbstractSet[str] = frozenset()  # labels of which an image has one area, not objects
    ignored_labels: AbstractSet[str] = frozenset()  # of areas that are neither object nor background
    label_now: Callable[[str], str | None] = str  # stored label -> label of the config; None: it has none
    rule: AnnotationRule = AnnotationRule.NEWEST
    include: str = ""  # "predictions:VERSION"


def freeze_project(
    tasks: Iterable[TaskCorrections],
    rules: FreezeRules,
    *,
    datasets: DatasetRepository,
    annotations: AnnotationRepository,
    root: Path,
    predicted: Iterable[TaskCorrections] = (),
) -> Snapshot:
    """Write the snapshot of a project.

    Args:
        tasks: its corrections, by task number.
        rules: how they are read.
        datasets: numbers the labels.
        annotations: has the texts of label configs.
        root: the folder of all snapshots.
        predicted: predictions in the form of corrections, by task number; they stand in for tasks without.

    Raises:
        StoreError: the database does not answer.
        ResourceError: the snapshot cannot be written.
    """
    freezing = _Freezing(rules, datasets)
    return write_snapshot(freezing.images(tasks, predicted), lambda: freezing.origin(annotations), root=root)


class _Freezing:
    """One pass over the tasks, which finds out what categories and label configs there are."""

    def __init__(self, rules: FreezeRules, datasets: DatasetRepository) -> None:
        self._rules = rules
        self._datasets = datasets
        ignored = rules.ignored_labels
        self._ids = datasets.category_ids(
            rules.project_id, [label for label in rules.labels if label not in ignored]
        )
        self._used: Counter[str] = Counter()
        self._configs: set[str] = set()
        self._names = FileNames()
        self._numbers = Counter[str]()

    def images(
        self, tasks: Iterable[TaskCorrections], predicted: Iterable[TaskCorrections]
    ) -> Iterator[SnapshotImage]:
        annotated = ((task.task_id, 0, task) for task in tasks)
        stand_ins = ((task.task_id, 1, task) for task in predicted)
        both = heapq.merge(annotated, stand_ins, key=lambda one: one[:2])
        for _, of_task in groupby(both, key=lambda one: one[0]):
            _, is_predicted, task = next(of_task)  # annotations come before predictions
            if task.split not in SPLITS:  # copies of images of both splits
                log_action(
                    logger,
                    "task_left_out",
                    level=logging.WARNING,
                    task_id=task.task_id,
                    reason="its images resemble images to learn from and images of the holdout",
                )
                continue
            source = f"prediction:{self._rules.include.partition(':')[2]}" if is_predicted else "annotation"
            chosen = choose_corrections(task.corrections, self._rules.rule)
            for correction in sorted(chosen, key=_item):
                yield self._image(correction, SPLITS[task.split], source)

    def origin(self, annotations: AnnotationRepository) -> SnapshotOrigin:
        rules = self._rules
        wanted = {*rules.labels, *self._used} - rules.ignored_labels
        return SnapshotOrigin(
            project_id=rules.project_id,
            rule=str(rules.rule),
            include=rules.include,
            categories=[
                Category(id=number, name=label, is_thing=label not in rules.stuff_labels)
                for label, number in self._ids.items()
                if label in wanted
            ],
            label_configs=annotations.label_configs(sorted(self._configs)),
        )

    def _image(self, one: Correction, split: str, source: str) -> SnapshotImage:
        item = _item(one)
        uri = one.image_uri.encode("utf-8", "replace").decode()
        self._numbers["images"] += 1
        if one.label_config:
            self._configs.add(one.label_config)
        is_annotated = source == "annotation"
        row = ImageRow(
            item=item,
            number=self._numbers["images"],
            file_name=self._names.of_uri(uri, item=item.replace("/", "-")),
            image_key=one.image_key,
            image_uri="" if uri.startswith("data:") else uri,
            height=one.size_hw[0],
            width=one.size_hw[1],
            split=split,
            source=source,
            project_id=one.project_id,
            task_id=one.task_id,
            view=one.view,
            image_index=one.image_index,
            annotation_id=one.annotation_id if is_annotated else None,
            version_id=one.version_id if is_annotated else None,
            updated_at=one.updated_at.astimezone(UTC).isoformat(timespec="microseconds"),
            annotator=one.annotator,
            model_version=one.model_version,
            lead_time_s=one.lead_time_s,
            ground_truth=one.ground_truth,
            approximate=one.boxes > 0,
            label_config=one.label_config or None,
        )
        return SnapshotImage(image=row, objects=tuple(self._objects(one, row)))

    def _objects(self, one: Correction, image: ImageRow) -> Iterator[ObjectRow]:
        position = 0
        for segment in one.segments:
            found = _object_row(segment, image)
            if found is None:  # it lies outside the image
                continue
            kind, label = self._kind(segment)
            self._numbers["objects"] += 1
            yield ObjectRow(
                item=image.item,
                position=position,
                number=self._numbers["objects"],
                kind=str(kind),
                category_id=self._ids[label] if kind in (ObjectKind.OBJECT, ObjectKind.BOX) else None,
                label=label,
                score=segment.score,
                **found,
            )
            position += 1

    def _kind(self, segment: Segment) -> tuple[ObjectKind, str]:
        stored = segment.label
        if stored == UNLABELLED:
            return ObjectKind.UNLABELLED, stored
        if stored in self._rules.ignored_labels:
            return ObjectKind.IGNORED, stored
        label = self._rules.label_now(stored)
        if label is None or label == UNLABELLED:
            return ObjectKind.UNLABELLED, stored
        if label not in self._ids:
            self._ids = self._datasets.category_ids(self._rules.project_id, [label])
        self._used[label] += 1
        return ObjectKind.BOX if segment.is_box else ObjectKind.OBJECT, label


def _item(one: Correction) -> str:
    item = f"task-{one.task_id:012d}"
    return f"{item}/{one.view}/{one.image_index:05d}" if one.view or one.image_index else item


def _object_row(segment: Segment, image: ImageRow) -> dict[str, Any] | None:
    """Return the columns about a segment's mask; None where it has no pixel in the image."""
    top, left = segment.offset_yx
    inside_hw = segment.mask_hw[: max(0, image.height - top), : max(0, image.width - left)]
    tight_hw, (y, x) = crop_mask(inside_hw) if inside_hw.size else (inside_hw, (0, 0))
    if not tight_hw.size:
        return None
    return {
        "area": int(tight_hw.sum()),
        "top": top + y,
        "left": left + x,
        "box_height": tight_hw.shape[0],
        "box_width": tight_hw.shape[1],
        "rle": segment_to_rle(segment, image.size_hw),
    }
