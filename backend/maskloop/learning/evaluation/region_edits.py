"""What an annotator did to the predicted segments of one image, by geometry and label.

Not by what the annotation tool notes about its regions: Label Studio does not note a dragged vertex.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from maskloop.errors import ResourceError
from maskloop.learning.evaluation.overlaps import Overlaps, find_overlaps
from maskloop.types import EditCounts, OutcomeName, Segment, SegmentOutcome

__all__ = [
    "INSIDE_SHARE",
    "KEPT_IOU",
    "NUDGED_IOU",
    "REDRAWN_IOU",
    "compare_segments",
    "count_outcomes",
    "trace_segments",
    "trace_with_removed",
]

KEPT_IOU = 0.95  # the highest threshold of COCO's AP: what is left are pixels of the border
NUDGED_IOU = 0.8  # most of the outline stays; for an object in the middle of two, .8 decides which it is
REDRAWN_IOU = 0.3  # below it, deleting the region and drawing a new one is less work than changing it
INSIDE_SHARE = 0.8  # of a piece's area in a whole: the rest is the uncertain border
COVER_SHARE = 0.5  # of the whole that its pieces cover together; less is specks that were deleted
SAME_LABEL_BONUS = 1.0  # more than any IoU: a partner of the same label is always preferred
MAX_CELLS = 4_000_000  # of one matching: about a second


def compare_segments(predicted: Sequence[Segment], annotated: Sequence[Segment]) -> dict[str, EditCounts]:
    """Return what became of predicted segments, by label; the order of the segments has no influence.

    Each predicted segment has one outcome, counted under its own label:

    - kept: IoU >= .95 with its partner of the same label; nudged: IoU >= .8;
    - relabelled: IoU >= .8 with a partner of another label;
    - merged: with others of its label it lies inside one annotated segment and covers half of it;
    - split: several annotated segments of its label lie inside it and cover half of it;
    - redrawn: IoU >= .3 with a partner of any label;
    - removed: none of these.

    Each annotated segment without a partner is added, under its label: also what replaced merged and split
    ones, so that the annotated segments are the kept, nudged, relabelled, redrawn and added ones.

    Args:
        predicted: segments that the annotator began with; they may overlap.
        annotated: segments of the submitted annotation.

    Raises:
        ResourceError: too many overlapping segments to compare in a few seconds.

    Source: partners are matched one to one by Kuhn's Hungarian method (1955).
    """
    return count_outcomes(trace_segments(predicted, annotated))


def trace_segments(predicted: Sequence[Segment], annotated: Sequence[Segment]) -> tuple[SegmentOutcome, ...]:
    """Return the outcome of each predicted segment, then one for each added segment.

    Arguments, outcomes and errors as for `compare_segments`.
    """
    return trace_with_removed(predicted, annotated)[0]


def trace_with_removed(
    predicted: Sequence[Segment], annotated: Sequence[Segment]
) -> tuple[tuple[SegmentOutcome, ...], tuple[Segment, ...]]:
    """Return what `trace_segments` returns, and the predicted segments that were removed.

    Arguments and errors as for `compare_segments`; the order of both depends on the segments alone.
    """
    predicted, annotated = sorted(predicted, key=_canonical), sorted(annotated, key=_canonical)
    outcomes = _Comparison(predicted, annotated).trace()
    removed = [one for one, found in zip(predicted, outcomes, strict=False) if found.outcome == "removed"]
    return outcomes, tuple(removed)


def count_outcomes(outcomes: Iterable[SegmentOutcome]) -> dict[str, EditCounts]:
    """Return the number of each outcome, by label."""
    counts: dict[str, Counter[str]] = {}
    for one in outcomes:
        counts.setdefault(one.label, Counter())[one.outcome] += 1
    return {label: _to_counts(counter) for label, counter in sorted(counts.items())}


class _Comparison:
    """One image's segments, and which of them still have no outcome."""

    def __init__(self, predicted: Sequence[Segment], annotated: Sequence[Segment]) -> None:
        self._predicted = predicted
        self._annotated = annotated
        self._overlaps: Overlaps = find_overlaps(predicted, annotated)
        self._outcomes: dict[int, OutcomeName] = {}
        self._partners: set[int] = set()  # annotated segments that a predicted one became
        self._replacing: set[int] = set()  # annotated segments that replaced merged or split ones

    def trace(self) -> tuple[SegmentOutcome, ...]:
        """Give every segment its outcome."""
        self._match(NUDGED_IOU, self._outcome_of_match)
        self._find_merged()
        self._find_split()
        self._match(REDRAWN_IOU, lambda _i, _j: "redrawn")
        of_predicted = [
            SegmentOutcome(label=segment.label, score=segment.score, outcome=self._outcomes.get(i, "removed"))
            for i, segment in enumerate(self._predicted)
        ]
        added = [
            SegmentOutcome(label=segment.label, score=1.0, outcome="added")
            for j, segment in enumerate(self._annotated)
            if j not in self._partners
        ]
        return (*of_predicted, *added)

    def _is_same(self, i: int, j: int) -> bool:
        return self._predicted[i].label == self._annotated[j].label

    def _outcome_of_match(self, i: int, j: int) -> OutcomeName:
        if not self._is_same(i, j):
            return "relabelled"
        return "kept" if self._overlaps.iou(i, j) >= KEPT_IOU else "nudged"

    def _is_open(self, i: int, j: int) -> bool:
        return i not in self._outcomes and j not in self._partners and j not in self._replacing

    def _match(self, least_iou: float, outcome: Callable[[int, int], OutcomeName]) -> None:
        weights = {}
        for i, j in self._overlaps.shared:
            iou = self._overlaps.iou(i, j)
            if iou >= least_iou and self._is_open(i, j):
                weights[i, j] = iou + SAME_LABEL_BONUS * self._is_same(i, j)
        for i, j in _assign(weights):
            self._outcomes[i] = outcome(i, j)
            self._partners.add(j)

    def _find_merged(self) -> None:
        pieces_of: dict[int, list[int]] = {}
        for i, j in sorted(self._overlaps.shared):
            if self._is_same(i, j) and self._overlaps.first_inside(i, j) >= INSIDE_SHARE:
                pieces_of.setdefault(j, []).append(i)
        for j, all_pieces in sorted(pieces_of.items()):
            pieces = [i for i in all_pieces if self._is_open(i, j)]
            covered = sum(self._overlaps.shared[i, j] for i in pieces)
            if len(pieces) > 1 and covered >= COVER_SHARE * self._overlaps.second_areas_m[j]:
                self._outcomes.update(dict.fromkeys(pieces, "merged"))
                self._replacing.add(j)

    def _find_split(self) -> None:
        pieces_of: dict[int, list[int]] = {}
        for i, j in sorted(self._overlaps.shared):
            if self._is_same(i, j) and self._overlaps.second_inside(i, j) >= INSIDE_SHARE:
                pieces_of.setdefault(i, []).append(j)
        for i, all_pieces in sorted(pieces_of.items()):
            pieces = [j for j in all_pieces if self._is_open(i, j)]
            covered = sum(self._overlaps.shared[i, j] for j in pieces)
            if len(pieces) > 1 and covered >= COVER_SHARE * self._overlaps.first_areas_n[i]:
                self._outcomes[i] = "split"
                self._replacing.update(pieces)


def _assign(weights: Mapping[tuple[int, int], float]) -> list[tuple[int, int]]:
    """Return the pairs of a one-to-one matching of the largest total weight, group by group of neighbours."""
    from scipy.optimize import linear_sum_assignment

    found: list[tuple[int, int]] = []
    for pairs in _groups(weights):
        rows = sorted({i for i, _ in pairs})
        columns = sorted({j for _, j in pairs})
        if len(rows) * len(columns) > MAX_CELLS:
            raise ResourceError(
                "comparison of segments",
                expected=f"groups of overlapping segments with at most {MAX_CELLS} pairs",
                got=f"{len(rows)} times {len(columns)}",
                remedy="draw fewer overlapping regions",
            )
        place_of = {i: at for at, i in enumerate(rows)}, {j: at for at, j in enumerate(columns)}
        weights_ij = np.zeros((len(rows), len(columns)))
        for i, j in pairs:
            weights_ij[place_of[0][i], place_of[1][j]] = weights[i, j]
        for row, column in zip(*linear_sum_assignment(weights_ij, maximize=True), strict=True):
            pair = rows[row], columns[column]
            if pair in weights:
                found.append(pair)
    return found


def _groups(weights: Mapping[tuple[int, int], float]) -> list[list[tuple[int, int]]]:
    """Return the pairs by connected component of their graph."""
    above: dict[tuple[str, int], tuple[str, int]] = {}

    def find(node: tuple[str, int]) -> tuple[str, int]:
        while (parent := above.get(node, node)) != node:
            above[node] = above.get(parent, parent)
            node = parent
        return node

    for i, j in weights:
        above[find(("predicted", i))] = find(("annotated", j))
    groups: dict[tuple[str, int], list[tuple[int, int]]] = {}
    for i, j in sorted(weights):
        groups.setdefault(find(("predicted", i)), []).append((i, j))
    return list(groups.values())


def _to_counts(outcomes: Counter[str]) -> EditCounts:
    kinds = {name: outcomes[name] for name in EditCounts.KINDS_OF_CHANGE}
    return EditCounts(
        kept=outcomes["kept"],
        changed=sum(kinds.values()),
        added=outcomes["added"],
        removed=outcomes["removed"],
        **kinds,
    )


def _canonical(segment: Segment) -> tuple[Any, ...]:
    """Return a key that depends on the segment alone, so that ties never depend on the order given."""
    return segment.label, segment.offset_yx, segment.mask_hw.shape, segment.mask_hw.tobytes()
