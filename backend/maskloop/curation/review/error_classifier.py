"""How likely is an error? Learnt from errors put into the project's own annotations.

A mix of losses that fits one project does not fit another: with a weak model a low overlap means little, with
one class there is no class loss. So errors of each kind are made in copies of the annotations, and a
classifier learns to tell their regions from the others. It never scores an image that it learnt from.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskloop.curation.review.features import (
    MISSING_FEATURES,
    REGION_FEATURES,
    ImageFeatures,
    add_context,
    image_features,
)
from maskloop.curation.review.injection import CALIBRATION, Corrupted, ErrorShapes, inject
from maskloop.curation.review.overlap import shared_pixels
from maskloop.curation.review.suspicion import ReviewImage, SuspicionKind
from maskloop.types import Segment

__all__ = [
    "CLEAN",
    "Lesson",
    "Samples",
    "draw_samples",
    "fit",
    "image_numbers",
    "lesson_rows",
    "probabilities",
]

CLEAN = "clean"
SHARE = 0.25  # of the regions of a copy get an error
WANTED = 100  # errors of each kind, on average
MOST_ROUNDS = 15
TREES = 60
LEAF = 0.012  # least share of all weight in a leaf: copies of one region do not fill one alone
MOST_IMAGES = 150  # of one copy
LESSON_WEIGHT = 5.0  # of what a reviewer decided, in errors of our own
FOUND_IOU = 0.4  # of an object with the region that was taken away


@dataclass(frozen=True, kw_only=True, eq=False)
class Lesson:
    """What a reviewer decided about one suspicion, as the numbers were at that time."""

    features: Mapping[str, float]
    kind: str  # CLEAN or a kind
    missing: bool  # whether it was a missing region


@dataclass(frozen=True, kw_only=True, eq=False)
class Samples:
    """Numbers with their answers: N regions and M objects without a region."""

    region_nf: NDArray[np.float64]
    kind_n: NDArray[np.str_]  # CLEAN or a kind
    image_n: NDArray[np.int64]  # position of the image
    missing_mf: NDArray[np.float64]
    kind_m: NDArray[np.str_]  # CLEAN or OVERLOOKED
    image_m: NDArray[np.int64]


def image_numbers(regions: Sequence[Segment], image: ReviewImage) -> ImageFeatures:
    """Return the numbers of an image's regions, as means over all models that had not seen it."""
    seen = [image_features(regions, one, ignored=image.ignored) for one in image.evidence]
    first = seen[0]
    if len(seen) > 1:
        first.region_rf[:] = np.mean([one.region_rf for one in seen], axis=0)
        score = MISSING_FEATURES.index("score")
        objects = first.missing
        for other in image.evidence[1:]:
            shared_mn = shared_pixels(objects, other.segments)
            areas_n = np.array([segment.area for segment in other.segments], dtype=np.int64)
            union_mn = np.array([[one.area] for one in objects]) + areas_n[None] - shared_mn if objects else 1
            support_mn = shared_mn / np.maximum(union_mn, 1) * np.array([one.score for one in other.segments])
            first.missing_mf[:, score] += support_mn.max(axis=1, initial=0.0)
        first.missing_mf[:, score] /= len(seen)
    return first


def draw_samples(
    images: Sequence[ReviewImage],
    *,
    labels: Sequence[str],
    seed: int,
    shapes: ErrorShapes = CALIBRATION,
    kinds: Sequence[SuspicionKind] = tuple(SuspicionKind),
) -> Samples:
    """Return numbers of regions with and without errors that were put into the images' annotations.

    Args:
        images: with their annotations; errors that these have already count as clean.
        labels: the classes.
        seed: of the errors.
        shapes: how errors are drawn.
        kinds: of the errors, each as often as the others.
    """
    rng = np.random.default_rng([seed, 4127])
    total = sum(len(image.regions) for image in images)
    rounds = int(np.clip(np.ceil(WANTED * len(kinds) / max(1.0, SHARE * total)), 2, MOST_ROUNDS))
    parts = [_one_copy(images, labels, rng, shapes, kinds) for _ in range(rounds)]
    return Samples(
        region_nf=np.concatenate([part.region_nf for part in parts]),
        kind_n=np.concatenate([part.kind_n for part in parts]),
        image_n=np.concatenate([part.image_n for part in parts]),
        missing_mf=np.concatenate([part.missing_mf for part in parts]),
        kind_m=np.concatenate([part.kind_m for part in parts]),
        image_m=np.concatenate([part.image_m for part in parts]),
    )


def _one_copy(
    images: Sequence[ReviewImage],
    labels: Sequence[str],
    rng: np.random.Generator,
    shapes: ErrorShapes,
    kinds: Sequence[SuspicionKind],
) -> Samples:
    chosen = np.sort(rng.permutation(len(images))[:MOST_IMAGES])
    copies: list[Corrupted] = []
    for position in chosen:
        image = images[position]
        errors = {
            index: kinds[int(rng.integers(len(kinds)))]
            for index in range(len(image.regions))
            if rng.random() < SHARE
        }
        copies.append(inject(image.regions, image.size_hw, errors, labels=labels, rng=rng, shapes=shapes))
    numbers = [
        image_numbers(copy.regions, images[position]) for position, copy in zip(chosen, copies, strict=True)
    ]
    add_context(numbers, [copy.regions for copy in copies])
    region_kinds = [_region_kinds(copy) for copy in copies]
    missing_kinds = [_missing_kinds(copy, one) for copy, one in zip(copies, numbers, strict=True)]
    return Samples(
        region_nf=np.concatenate([one.region_rf for one in numbers]),
        kind_n=np.concatenate(region_kinds),
        image_n=np.repeat(chosen, [len(one) for one in region_kinds]),
        missing_mf=np.concatenate([one.missing_mf for one in numbers]),
        kind_m=np.concatenate(missing_kinds),
        image_m=np.repeat(chosen, [len(one) for one in missing_kinds]),
    )


def _region_kinds(copy: Corrupted) -> NDArray[np.str_]:
    kinds = np.full(len(copy.regions), CLEAN, dtype="<U32")
    for error in copy.errors:
        # of a duplicate both are shown: which of the two is better is for the reviewer
        kinds[list(error.regions)] = error.kind
    return kinds


def _missing_kinds(copy: Corrupted, numbers: ImageFeatures) -> NDArray[np.str_]:
    kinds = np.full(len(numbers.missing), CLEAN, dtype="<U32")
    removed = [error.removed for error in copy.errors if error.removed is not None]
    shared_mn = shared_pixels(numbers.missing, removed)
    for row, one in enumerate(numbers.missing):
        for column, gone in enumerate(removed):
            if shared_mn[row, column] >= FOUND_IOU * (one.area + gone.area - shared_mn[row, column]):
                kinds[row] = SuspicionKind.OVERLOOKED
    return kinds


def fit(
    values_nf: NDArray[np.float64], kind_n: NDArray[np.str_], weight_n: NDArray[np.float64], seed: int
) -> Any:
    """Return a classifier of kinds: randomised trees; None where there is only one kind.

    Source: Geurts, Ernst and Wehenkel 2006, Extremely randomized trees; as scikit-learn has them.
    """
    import sklearn
    from sklearn.ensemble import ExtraTreesClassifier

    if len(set(kind_n.tolist())) < 2:
        return None
    trees = ExtraTreesClassifier(
        n_estimators=TREES,
        min_samples_leaf=3,
        min_weight_fraction_leaf=LEAF,
        max_features=0.5,
        random_state=seed,
        n_jobs=1,
    )
    # the checks of every single tree take longer than the trees
    with sklearn.config_context(assume_finite=True, skip_parameter_validation=True):
        return trees.fit(values_nf, kind_n, sample_weight=weight_n)


def probabilities(model: Any, values_nf: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Return kind -> float64 (N,), 0..1; without a model all are clean."""
    if model is None or not len(values_nf):
        return {CLEAN: np.ones(len(values_nf))}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        table = model.predict_proba(values_nf)
    return {str(kind): table[:, column] for column, kind in enumerate(model.classes_)}


def lesson_rows(lessons: Sequence[Lesson], missing: bool) -> tuple[NDArray[np.float64], NDArray[np.str_]]:
    """Return the lessons as numbers and kinds; a number that an older maskloop did not have is 0."""
    names = MISSING_FEATURES if missing else REGION_FEATURES
    chosen = [lesson for lesson in lessons if lesson.missing is missing]
    return (
        np.array([[lesson.features.get(name, 0.0) for name in names] for lesson in chosen]).reshape(
            -1, len(names)
        ),
        np.array([lesson.kind for lesson in chosen], dtype="<U32"),
    )
