"""The order of a review: every region and every missing one by how likely it is an error."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from maskloop.curation.review.error_classifier import (
    CLEAN,
    Lesson,
    Samples,
    draw_samples,
    image_numbers,
    lesson_rows,
)
from maskloop.curation.review.features import (
    MISSING_FEATURES,
    REGION_FEATURES,
    ImageFeatures,
    add_context,
)
from maskloop.curation.review.kind_learner import KindLearner, Kinds
from maskloop.curation.review.suspicion import ReviewImage, Suspicion, SuspicionKind

__all__ = ["Ranking", "rank"]

FOLDS = 3  # of the images: the classifier that scores a fold learnt from the others
TWIN_IOU = 0.5  # of two regions of one label that count as one object
EXPECTED = 0.02  # errors of each kind, overlooked objects too, as a share of the regions
FEW_REGIONS = 20  # with fewer the scores are by rule


@dataclass(frozen=True, kw_only=True, eq=False)
class Ranking:
    """The suspicions of a project, and what they were made from."""

    # likeliest error first; one for each region and each unmatched object that may be of a kind looked for
    suspicions: tuple[Suspicion, ...]
    features: tuple[dict[str, float], ...]  # of each, for lessons
    calibrated: bool  # False: too few regions; scores are by rule and no probabilities
    # looked for among some kinds, and left out: no such error can be made, as a wrong class of one class
    unjudged: tuple[SuspicionKind, ...] = ()


def rank(
    images: Sequence[ReviewImage],
    *,
    labels: Sequence[str],
    lessons: Sequence[Lesson] = (),
    seed: int = 0,
    kinds: Collection[SuspicionKind] = tuple(SuspicionKind),
) -> Ranking:
    """Rank regions and missing regions by how likely they are errors.

    Args:
        images: annotations with out-of-sample evidence.
        labels: the classes of the project.
        lessons: what reviewers decided before.
        seed: of the calibration; the same images and seed give the same ranking.
        kinds: that are looked for: the score is their probability, and what can be none of them is left out.
    """
    numbers = [image_numbers(image.regions, image) for image in images]
    add_context(numbers, [image.regions for image in images])
    enough = len(images) >= 2 and sum(len(image.regions) for image in images) >= FEW_REGIONS
    wanted = [kind for kind in SuspicionKind if kind in kinds]
    unjudged: tuple[SuspicionKind, ...] = ()
    if enough:
        # only errors of the kinds looked for: they are learnt better against all else than beside others
        samples = draw_samples(images, labels=labels, seed=seed, kinds=wanted)
        scored = _cross_fitted(numbers, samples, lessons, seed)
        if len(wanted) < len(SuspicionKind):
            known = {SuspicionKind.OVERLOOKED, *samples.kind_n.tolist()}
            unjudged = tuple(kind for kind in wanted if kind not in known)
            wanted = [kind for kind in wanted if kind in known]
    else:
        scored = [_by_rule(one) for one in numbers]
    found: list[tuple[Suspicion, dict[str, float]]] = []
    for image, one, (region_kinds, missing_kinds) in zip(images, numbers, scored, strict=True):
        found += _suspicions(image, one, region_kinds, missing_kinds, wanted)
    found.sort(key=lambda pair: -pair[0].score)
    return Ranking(
        suspicions=tuple(one for one, _ in found),
        features=tuple(values for _, values in found),
        calibrated=enough,
        unjudged=unjudged,
    )


def _cross_fitted(
    numbers: Sequence[ImageFeatures], samples: Samples, lessons: Sequence[Lesson], seed: int
) -> list[tuple[Kinds, Kinds]]:
    folds = min(FOLDS, len(numbers))
    fold_of = np.random.default_rng([seed, 9]).permutation(len(numbers)) % folds
    # two regions at one place are an error whoever drew them
    lone_n = samples.region_nf[:, REGION_FEATURES.index("twin")] < TWIN_IOU
    regions, places = (
        sum(len(table) for table in tables)
        for tables in zip(*((one.region_rf, one.missing_mf) for one in numbers), strict=True)
    )
    tables = (
        (samples.region_nf, samples.kind_n, samples.image_n, lone_n, EXPECTED, False),
        (
            samples.missing_mf,
            samples.kind_m,
            samples.image_m,
            np.ones(len(samples.kind_m)),
            EXPECTED * regions / max(places, 1),
            True,
        ),
    )
    region, missing = (
        KindLearner(
            values_nf,
            kind_n,
            fold_of[image_n],
            clean_weight_n=weight_n.astype(np.float64),
            taught=lesson_rows(lessons, is_missing),
            expected=expected,
            # of regions the kinds are taken as equally frequent: estimates of six at once did worse
            estimated=is_missing,
            seed=seed,
        )
        for values_nf, kind_n, image_n, weight_n, expected, is_missing in tables
    )
    scored = []
    for fold, one in zip(fold_of.tolist(), numbers, strict=True):
        rules = _by_rule(one)
        region_kinds = region.kinds(fold, one.region_rf)
        missing_kinds = missing.kinds(fold, one.missing_mf)
        scored.append((region_kinds or rules[0], missing_kinds or rules[1]))
    return scored


def _by_rule(one: ImageFeatures) -> tuple[Kinds, Kinds]:
    """Return scores without a calibration: by what each kind is defined by."""
    of = {name: one.region_rf[:, column] for column, name in enumerate(REGION_FEATURES)}
    missing = {name: one.missing_mf[:, column] for column, name in enumerate(MISSING_FEATURES)}
    matched = of["match_iou"] >= 0.5
    kinds = {
        SuspicionKind.SPURIOUS: of["empty"] * (1 - of["support"]),
        SuspicionKind.WRONG_CLASS: of["match_iou"] * of["match_score"] * np.clip(of["class_margin"], 0, 1),
        SuspicionKind.BORDER: np.where(matched, of["match_score"] * (1 - of["match_iou"]), 0.0),
        SuspicionKind.MERGED: np.clip(of["second"] + of["merge_gain"], 0, 1),
        SuspicionKind.SPLIT: np.clip(of["split_gain"] + 0.5 * of["whole"], 0, 1),
        SuspicionKind.DUPLICATE: of["twin"],
    }
    regions: Kinds = {str(kind): np.clip(values, 0.0, 1.0) for kind, values in kinds.items()}
    worst = np.max(list(regions.values()), axis=0) if regions else np.zeros(0)
    total = np.maximum(np.sum(list(regions.values()), axis=0), 1e-9)
    regions = {kind: values / total * worst for kind, values in regions.items()}
    overlooked = missing["score"] * (1 - missing["covered"])
    return (
        regions | {CLEAN: 1 - worst},
        {str(SuspicionKind.OVERLOOKED): overlooked, CLEAN: 1 - overlooked},
    )


def _suspicions(
    image: ReviewImage,
    one: ImageFeatures,
    region_kinds: Kinds,
    missing_kinds: Kinds,
    wanted: Sequence[SuspicionKind],
) -> list[tuple[Suspicion, dict[str, float]]]:
    found = []
    objects = image.evidence[0].segments
    whole = len(wanted) == len(SuspicionKind)
    for index in range(len(image.regions)):
        kinds = {
            SuspicionKind(kind): float(values[index])
            for kind, values in region_kinds.items()
            if kind != CLEAN and kind in wanted
        }
        if not (kinds or whole):
            continue
        likeliest = max(kinds, key=lambda kind: kinds[kind], default=SuspicionKind.SPURIOUS)
        score = 1.0 - region_kinds[CLEAN][index] if whole else sum(kinds.values())
        match, partner = int(one.match_r[index]), int(one.partner_r[index])
        related = likeliest in (SuspicionKind.SPLIT, SuspicionKind.DUPLICATE) and partner >= 0
        nothing = match < 0 or likeliest in (SuspicionKind.SPURIOUS, SuspicionKind.DUPLICATE)
        suspicion = Suspicion(
            image=image.key,
            kind=likeliest,
            score=float(np.clip(score, 0.0, 1.0)),
            region=index,
            others=(partner,) if related else (),
            proposal=None if nothing else objects[match],
            kinds=kinds,
        )
        found.append((suspicion, dict(zip(REGION_FEATURES, one.region_rf[index].tolist(), strict=True))))
    for index, proposal in enumerate(one.missing if SuspicionKind.OVERLOOKED in wanted else ()):
        suspicion = Suspicion(
            image=image.key,
            kind=SuspicionKind.OVERLOOKED,
            score=float(np.clip(1.0 - missing_kinds[CLEAN][index], 0.0, 1.0)),
            region=None,
            proposal=proposal,
            kinds={SuspicionKind.OVERLOOKED: float(1.0 - missing_kinds[CLEAN][index])},
        )
        found.append((suspicion, dict(zip(MISSING_FEATURES, one.missing_mf[index].tolist(), strict=True))))
    return found
