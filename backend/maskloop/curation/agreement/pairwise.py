"""How far annotators agree who drew on the same images: panoptic quality, IoU, classes, alpha."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from maskloop.masks import LEAST_IOU, segment_iou, segments_to_index_map
from maskloop.types import Segment

__all__ = ["Agreement", "DrawnImage", "ProjectAgreement", "alpha_of_counts", "measure_agreement"]

MATCH_IOU = LEAST_IOU
BACKGROUND = ""  # the label of pixels in no region
MOST_EDGE = 512  # pixels: alpha is counted on every k-th pixel of larger images


@dataclass(frozen=True, kw_only=True, eq=False)
class DrawnImage:
    """One image as several annotators drew it."""

    size_hw: tuple[int, int]
    regions: Mapping[int, tuple[Segment, ...]]  # annotator -> regions; at least two annotators


@dataclass(kw_only=True)
class Agreement:
    """What was counted of some images; of one pair, one class or all."""

    images: int = 0
    matched: int = 0  # regions with a partner of the same label, IoU above one half
    unmatched: int = 0  # of both sides
    iou: float = 0.0  # sum over the matched
    relabelled: Counter[tuple[str, str]] = field(
        default_factory=Counter
    )  # labels of regions that match but for it

    @property
    def pq(self) -> float | None:
        """Panoptic quality of one annotator against the other, the same both ways; None where nothing is."""
        total = self.matched + self.unmatched / 2
        return self.iou / total if total else None

    @property
    def mean_iou(self) -> float | None:
        """Mean IoU of the matched regions."""
        return self.iou / self.matched if self.matched else None

    def add(self, other: Agreement) -> None:
        """Count another's as well."""
        self.images += other.images
        self.matched += other.matched
        self.unmatched += other.unmatched
        self.iou += other.iou
        self.relabelled += other.relabelled


@dataclass(frozen=True, kw_only=True)
class ProjectAgreement:
    """Agreement of a project."""

    images: int  # with two annotators or more
    pairs: Mapping[tuple[int, int], Agreement]  # annotators, the lower number first
    classes: Mapping[str, Agreement]
    whole: Agreement
    alpha: float | None  # Krippendorff's, of the pixels' labels; None where all pixels have one label


def measure_agreement(images: Sequence[DrawnImage]) -> ProjectAgreement:
    """Return how far annotators agree.

    Regions of a pair match one to one where their labels are the same and their IoU is above one half,
    the best IoU first. Alpha is over pixels: 1 is full agreement, 0 is chance.

    Args:
        images: those that two annotators or more drew on.

    Source:
        Kirillov et al. 2019, Panoptic Segmentation; Krippendorff 2011, Computing Krippendorff's
        Alpha-Reliability (nominal data, coincidences weighted by 1 / (annotators - 1)).
    """
    pairs: defaultdict[tuple[int, int], Agreement] = defaultdict(Agreement)
    classes: defaultdict[str, Agreement] = defaultdict(Agreement)
    whole = Agreement()
    labels = sorted({one.label for image in images for drawn in image.regions.values() for one in drawn})
    place = {label: number for number, label in enumerate([BACKGROUND, *labels])}
    counts_kk = np.zeros((len(place), len(place)))
    for image in images:
        maps = {user: _class_map(drawn, image.size_hw, place) for user, drawn in image.regions.items()}
        for first, second in itertools.combinations(sorted(image.regions), 2):
            by_class = _compare(image.regions[first], image.regions[second])
            counted = Agreement(images=1)
            for label, one in by_class.items():
                counted.add(one)
                one.images = 1
                classes[label].add(one)
            pairs[first, second].add(counted)
            whole.add(counted)
            pair_kk = _coincidences(maps[first], maps[second], len(place))
            counts_kk += (pair_kk + pair_kk.T) / (len(maps) - 1)
    return ProjectAgreement(
        images=len(images),
        pairs=dict(sorted(pairs.items())),
        classes=dict(sorted(classes.items())),
        whole=whole,
        alpha=alpha_of_counts(counts_kk),
    )


def alpha_of_counts(counts_kk: NDArray[np.float64]) -> float | None:
    """Return Krippendorff's alpha of a symmetric matrix of coincidences, for nominal data.

    Args:
        counts_kk: (K, K), how often values came together, both ways.
    """
    of_value_k = counts_kk.sum(axis=1)
    total = of_value_k.sum()
    expected = total**2 - np.square(of_value_k).sum()
    if total <= 1 or expected == 0:
        return None
    observed = total - np.trace(counts_kk)
    return float(1 - (total - 1) * observed / expected)


def _compare(first: Sequence[Segment], second: Sequence[Segment]) -> dict[str, Agreement]:
    """Return label -> counts of one image and pair; `images` stays 0."""
    found: defaultdict[str, Agreement] = defaultdict(Agreement)
    ious = sorted(
        (
            (iou, row, column)
            for row, one in enumerate(first)
            for column, other in enumerate(second)
            if (iou := segment_iou(one, other)) > MATCH_IOU
        ),
        reverse=True,
    )
    rows: set[int] = set()
    columns: set[int] = set()
    for iou, row, column in ious:
        if first[row].label == second[column].label and row not in rows and column not in columns:
            rows.add(row)
            columns.add(column)
            found[first[row].label].matched += 1
            found[first[row].label].iou += iou
    left = [one for row, one in enumerate(first) if row not in rows]
    left += [one for column, one in enumerate(second) if column not in columns]
    for one in left:
        found[one.label].unmatched += 1
    for _, row, column in ious:
        if row not in rows and column not in columns:
            rows.add(row)
            columns.add(column)
            low, high = sorted((first[row].label, second[column].label))
            found[low].relabelled[low, high] += 1
    return dict(found)


def _class_map(
    regions: Sequence[Segment], size_hw: tuple[int, int], place: Mapping[str, int]
) -> NDArray[np.int64]:
    index_hw = segments_to_index_map(tuple(regions), size_hw)
    step = max(1, -(-max(size_hw) // MOST_EDGE))
    class_of = np.array([0, *(place[one.label] for one in regions)], dtype=np.int64)
    return class_of[index_hw[::step, ::step]]


def _coincidences(
    first_hw: NDArray[np.int64], second_hw: NDArray[np.int64], count: int
) -> NDArray[np.float64]:
    pairs = np.bincount((first_hw * count + second_hw).ravel(), minlength=count * count)
    return pairs.reshape(count, count).astype(np.float64)
