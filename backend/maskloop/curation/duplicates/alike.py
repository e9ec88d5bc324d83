"""Images that are there twice, nearly twice, or unlike all others: by file, hash and embedding."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from maskloop.similarity import ImageHash, near_pairs

__all__ = ["AlikePair", "Likeness", "TaskImageFacts", "facts_of", "find_alike", "find_outliers"]

NEIGHBOURS = 5  # an outlier is far from its fifth neighbour: a group of four odd images is still odd
ROWS_AT_ONCE = 512  # of a table of similarities


class Likeness(StrEnum):
    """How two images are alike; the strongest holds."""

    SAME_FILE = "same file"  # the same bytes
    SAME_PICTURE = "nearly the same"  # resized, compressed again, brightened: perceptual hash
    SAME_SCENE = "much alike"  # by what a model sees in them: embedding


@dataclass(frozen=True, kw_only=True, eq=False)
class TaskImageFacts:
    """What is known of one task's image."""

    task_id: int
    image_key: str | None = None  # SHA-256 of its file; None: not stored here
    picture_hash: ImageHash | None = None
    embedding_d: NDArray[np.float32] | None = None  # of any length; None: not predicted yet


@dataclass(frozen=True, kw_only=True)
class AlikePair:
    """Two tasks with images that are alike, the lower number first."""

    first: int
    second: int
    likeness: Likeness
    distance: float  # 0..1: share of bits of the hash, or one minus the cosine of the embeddings


def find_alike(
    images: Sequence[TaskImageFacts], *, hash_distance: float, embedding_distance: float
) -> list[AlikePair]:
    """Return pairs of alike images: the same file first, then by distance.

    Args:
        images: of a project; what is not known of one is not compared.
        hash_distance: most bits of the hash that may differ, 0..1.
        embedding_distance: most of one minus the cosine, 0..2; 0 compares no embeddings.
    """
    found: dict[tuple[int, int], AlikePair] = {}

    def note(first: TaskImageFacts, second: TaskImageFacts, likeness: Likeness, distance: float) -> None:
        low, high = sorted((first.task_id, second.task_id))
        if low != high and (low, high) not in found:
            found[low, high] = AlikePair(first=low, second=high, likeness=likeness, distance=distance)

    of_key: defaultdict[str, list[TaskImageFacts]] = defaultdict(list)
    for one in images:
        if one.image_key is not None:
            of_key[one.image_key].append(one)
    for some in of_key.values():
        for one in some[1:]:  # a thousand copies are a thousand pairs with the first, not half a million
            note(some[0], one, Likeness.SAME_FILE, 0.0)
    # of copies of one file only the first is compared with others
    copies = {id(one) for some in of_key.values() for one in some[1:]}
    left = [one for one in images if id(one) not in copies]
    hashed = [one for one in left if one.picture_hash is not None]
    if hashed:
        hashes_nb = np.array([one.picture_hash for one in hashed], np.uint8)
        for row, column, distance in near_pairs(hashes_nb, distance=hash_distance):
            note(hashed[row], hashed[column], Likeness.SAME_PICTURE, distance)
    embedded = [one for one in left if one.embedding_d is not None]
    if embedded and embedding_distance > 0:
        unit_nd = _unit([one.embedding_d for one in embedded if one.embedding_d is not None])
        for start in range(0, len(unit_nd), ROWS_AT_ONCE):
            away_nm = 1.0 - unit_nd[start : start + ROWS_AT_ONCE] @ unit_nd.T
            for row, column in np.argwhere(away_nm <= embedding_distance):
                if column > start + row:
                    distance = max(0.0, float(away_nm[row, column]))
                    note(embedded[start + row], embedded[column], Likeness.SAME_SCENE, distance)
    order = list(Likeness)
    return sorted(
        found.values(), key=lambda one: (order.index(one.likeness), one.distance, one.first, one.second)
    )


def find_outliers(images: Sequence[TaskImageFacts]) -> list[tuple[int, float]]:
    """Return (task, distance to its fifth neighbour) of images with an embedding, the oddest first.

    Source: Ramaswamy, Rastogi and Shim 2000, Efficient algorithms for mining outliers from large data sets.
    """
    embedded = {one.task_id: one.embedding_d for one in images if one.embedding_d is not None}
    if len(embedded) < 3:
        return []
    unit_nd = _unit(list(embedded.values()))
    neighbour = min(NEIGHBOURS, len(unit_nd) - 1)
    distances = []
    for start in range(0, len(unit_nd), ROWS_AT_ONCE):
        away_nm = 1.0 - unit_nd[start : start + ROWS_AT_ONCE] @ unit_nd.T
        away_nm[np.arange(len(away_nm)), start + np.arange(len(away_nm))] = -1.0  # itself comes first
        distances.append(np.partition(away_nm, neighbour, axis=1)[:, neighbour])
    far_n = np.clip(np.concatenate(distances), 0.0, 2.0)
    order = np.argsort(-far_n, kind="stable")
    tasks = list(embedded)
    return [(tasks[index], float(far_n[index])) for index in order]


def facts_of(
    keys: Mapping[int, str], hashes: Mapping[str, ImageHash], embeddings: Mapping[int, NDArray[np.float32]]
) -> list[TaskImageFacts]:
    """Return what is known of each task, by number.

    Args:
        keys: task -> SHA-256 of its image's file.
        hashes: SHA-256 -> perceptual hash.
        embeddings: task -> embedding.
    """
    return [
        TaskImageFacts(
            task_id=task_id,
            image_key=keys.get(task_id),
            picture_hash=hashes.get(keys.get(task_id, "")),
            embedding_d=embeddings.get(task_id),
        )
        for task_id in sorted({*keys, *embeddings})
    ]


def _unit(embeddings: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    values_nd = np.array(embeddings, dtype=np.float32)
    lengths_n = np.linalg.norm(values_nd, axis=1, keepdims=True)
    unit_nd: NDArray[np.float32] = values_nd / np.maximum(lengths_n, np.finfo(np.float32).tiny)
    return unit_nd
