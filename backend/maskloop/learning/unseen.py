"""Which model version had not seen an image: only its prediction says anything about the labels."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from maskloop.learning.data.snapshot import SnapshotManifest
from maskloop.learning.registry.model_card import SNAPSHOT_FILE
from maskloop.types import ModelVersion

__all__ = ["LearntImages", "learnt_images", "newest_unseen"]


@dataclass(frozen=True, kw_only=True)
class LearntImages:
    """What a version has learnt from, its ancestors' images included."""

    tasks: frozenset[int]
    image_keys: frozenset[str]  # the same image in another task counts as well

    def has(self, task_id: int, image_key: str) -> bool:
        """Return whether it has learnt from a task or from its image."""
        return task_id in self.tasks or image_key in self.image_keys


def learnt_images(versions: Sequence[ModelVersion]) -> dict[int, LearntImages]:
    """Return version number -> what it has learnt from.

    A version without a snapshot is a base model and has learnt from none of the project's images.
    """
    by_number = {version.number: version for version in versions}
    found: dict[int, LearntImages] = {}
    for version in sorted(versions, key=lambda one: one.number):
        path = version.path / SNAPSHOT_FILE
        entries = SnapshotManifest.read(path).entries if path.exists() else ()
        own = [entry for entry in entries if entry.split == "train"]
        parent = found.get(version.parent) if version.parent in by_number else None
        found[version.number] = LearntImages(
            tasks=frozenset(entry.task_id for entry in own) | (parent.tasks if parent else frozenset()),
            image_keys=frozenset(entry.image_key for entry in own)
            | (parent.image_keys if parent else frozenset()),
        )
    return found


def newest_unseen(
    task_id: int,
    image_key: str,
    *,
    versions: Sequence[ModelVersion],
    learnt: Mapping[int, LearntImages],
    classes: Collection[str],
) -> ModelVersion | None:
    """Return the newest version that has not learnt from an image and knows a class, or None.

    Args:
        task_id: the image's task.
        image_key: SHA-256 of the image file.
        versions: of the project, in any order.
        learnt: as `learnt_images` returns it.
        classes: the project's classes; a version that knows none of them says nothing.
    """
    for version in sorted(versions, key=lambda one: -one.number):
        if not learnt[version.number].has(task_id, image_key) and not set(classes).isdisjoint(version.labels):
            return version
    return None
