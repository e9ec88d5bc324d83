"""The gate's evaluation of a version, image by image, and what the annotator drew on these images."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from maskloop.errors import RegistryError
from maskloop.learning.data.snapshot import SnapshotManifest
from maskloop.learning.registration import EVALUATION_FILE
from maskloop.learning.registry.model_card import SNAPSHOT_FILE
from maskloop_studio.errors import NotFoundError

if TYPE_CHECKING:
    from pathlib import Path

    from maskloop.store.corrections import CorrectionRepository
    from maskloop.types import Correction

__all__ = ["ImageScore", "extremes", "find_annotation", "read_text", "score_images"]

MAX_FILE_BYTES = 64 * 2**20
PARTS = ("ap50", "pq", "iou")


@dataclass(frozen=True, kw_only=True)
class ImageScore:
    """A holdout image as both models were judged on it; a score is the mean of AP50, PQ and IoU, 0..1."""

    key: str  # project/task/annotation, then view and page where a task has several images
    champion: float | None  # None where no class occurs
    challenger: float | None

    @property
    def difference(self) -> float | None:
        """The challenger's score minus the champion's."""
        if self.champion is None or self.challenger is None:
            return None
        return self.challenger - self.champion

    @property
    def task_id(self) -> int:
        """The task in Label Studio."""
        return int(self.key.split("/")[1])


def score_images(folder: Path) -> list[ImageScore]:
    """Return the images of a version's evaluation, in the order of the holdout; none where it has none.

    Raises:
        RegistryError: the file is damaged or too large.
    """
    text = read_text(folder / EVALUATION_FILE)
    if text is None:
        return []
    try:
        sides = json.loads(text)
        champion, challenger = (
            {str(row["image"]): _mean(row) for row in sides[side]["images"]}
            for side in ("champion", "challenger")
        )
    except (ValueError, KeyError, TypeError) as exc:
        raise RegistryError(
            f"version's file {EVALUATION_FILE}",
            expected="both evaluations of the gate",
            got=type(exc).__name__,
            remedy="restore the version's folder from a backup",
        ) from exc
    return [
        ImageScore(key=key, champion=champion.get(key), challenger=score)
        for key, score in challenger.items()
        if _numbers(key) is not None
    ]


def find_annotation(folder: Path, key: str, corrections: CorrectionRepository) -> Correction:
    """Return what the annotator drew on a holdout image, as the version was judged by it.

    Raises:
        NotFoundError: the version was not judged on this image, or its annotation is not stored any more.
        TrainingError: the version's snapshot is damaged.
        StoreError: the database does not answer.
    """
    numbers = _numbers(key)
    entries = SnapshotManifest.read(folder / SNAPSHOT_FILE).entries if numbers is not None else ()
    for entry in entries:
        # Of either split: where the holdout is small, models are judged on folds of the other annotations.
        if (entry.project_id, entry.task_id, entry.annotation_id) == numbers:
            for correction in corrections.at([entry.version_id]):
                if _is_image(correction, key):
                    return correction
    raise NotFoundError(
        "holdout image",
        expected="an image that the version was judged on",
        got="another, or one whose annotation is not stored any more",
        remedy="choose one on the version's page",
    )


def read_text(path: Path, *, max_bytes: int = MAX_FILE_BYTES) -> str | None:
    """Return a text file of a version; None where there is none.

    Raises:
        RegistryError: it is larger than such a file can be, or cannot be read.
    """
    try:
        if path.stat().st_size > max_bytes:
            raise RegistryError(
                f"version's file {path.name}",
                expected=f"at most {max_bytes >> 20} MiB",
                got=f"{path.stat().st_size >> 20} MiB",
                remedy="restore the version's folder from a backup",
            )
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise RegistryError(
            f"version's file {path.name}",
            expected="a file that can be read",
            got=exc.strerror or type(exc).__name__,
            remedy="check the rights on MASKLOOP_HOME",
        ) from exc


def _numbers(key: str) -> tuple[int, int, int] | None:
    parts = key.split("/")[:3]
    if len(parts) != 3 or not all(part.isascii() and part.isdecimal() and len(part) < 19 for part in parts):
        return None
    project_id, task_id, annotation_id = (int(part) for part in parts)
    return project_id, task_id, annotation_id


def _is_image(correction: Correction, key: str) -> bool:
    annotation = f"{correction.project_id}/{correction.task_id}/{correction.annotation_id}"
    place = (
        ""
        if not correction.view and not correction.image_index
        else (f"/{correction.view}/{correction.image_index}")
    )
    return key == annotation + place


def _mean(row: Mapping[str, Any]) -> float | None:
    known = [float(row[name]) for name in PARTS if isinstance(row.get(name), int | float)]
    return sum(known) / len(known) if known else None


def extremes(scores: Sequence[ImageScore], count: int) -> tuple[list[ImageScore], list[ImageScore]]:
    """Return the images with the challenger's worst and best scores; none is in both."""
    known = sorted(
        (one for one in scores if one.challenger is not None),
        key=lambda one: (one.challenger or 0.0, one.key),
    )
    half = min(count, len(known) // 2)
    return known[: max(half, min(count, len(known) - half))], known[::-1][:half]
