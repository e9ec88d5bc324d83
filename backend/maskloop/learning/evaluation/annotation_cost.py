"""What corrections cost in an annotator's seconds, and how much of the work predictions save."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from maskloop.types import EditCounts, EditName

__all__ = [
    "DEFAULT_WEIGHTS",
    "EditWeights",
    "correction_cost_s",
    "drawing_cost_s",
    "edits_cost_s",
    "fit_weights",
    "measure_weights",
    "weighted_edits",
    "weights_from_settings",
    "work_saved",
]

MIN_ANNOTATIONS = 60  # with a lead time; ten for each of the five weights and the time to look
MIN_OCCURRENCES = 10  # of one kind of edit; a rarer one keeps its weight
MOST_FACTOR = 10.0  # a measured weight lies between a tenth and ten times of the one that was set
TAIL = 0.95  # longer lead times count as this quantile: some annotators leave the editor open


@dataclass(frozen=True, kw_only=True)
class EditWeights:
    """Seconds of one edit each; a region that is kept costs nothing."""

    relabel: float
    nudge: float  # some vertices or one stroke of a brush
    redraw: float
    delete: float
    add: float
    measured_from: int = 0  # annotations; 0: as they were set, none was measured

    @property
    def source(self) -> str:
        """In words, where the weights are from."""
        if self.measured_from:
            return f"measured from the lead times of {self.measured_from} annotations"
        return "the settings' (MASKLOOP_EDIT_SECONDS)"


# add, nudge: Kirillov et al. 2023, Segment Anything, section 4: 34 s a mask with a brush before the model had
# learnt from its annotators, 14 s when it had and masks were only corrected. redraw: no published figure, the
# middle of the two. relabel, delete: Card, Moran and Newell 1980, keystroke-level model: think 1.35, point
# 1.1, click 0.2, press a key 0.28 = 2.9 s.
DEFAULT_WEIGHTS = EditWeights(relabel=3.0, nudge=14.0, redraw=24.0, delete=3.0, add=34.0)
WEIGHT_NAMES: tuple[EditName, ...] = ("relabel", "nudge", "redraw", "delete", "add")


def weights_from_settings(edit_seconds: Mapping[EditName, float]) -> EditWeights:
    """Return the default weights, with those that the settings name in their place."""
    named = {name: edit_seconds.get(name, getattr(DEFAULT_WEIGHTS, name)) for name in WEIGHT_NAMES}
    return EditWeights(**named)


def correction_cost_s(edits: EditCounts, weights: EditWeights) -> float:
    """Return the seconds that the edits cost.

    A merged or split region costs a deletion: what replaced it counts as added. An edit of unknown kind
    (from an older maskloop) costs as much as redrawing.
    """
    return edits_cost_s(_features(edits), weights)


def edits_cost_s(counts: ArrayLike, weights: EditWeights) -> float:
    """Return the seconds of edits that are counted already, as in `weighted_edits`."""
    return float(np.asarray(counts) @ np.array([getattr(weights, name) for name in WEIGHT_NAMES]))


def drawing_cost_s(edits: EditCounts, weights: EditWeights) -> float:
    """Return the seconds that drawing all submitted regions on an empty canvas costs."""
    return edits.submitted * weights.add


def work_saved(edits: EditCounts, weights: EditWeights) -> float | None:
    """Return 1 minus the cost of correcting over the cost of drawing all regions afresh.

    1 means that all predictions were kept; negative, that an empty canvas costs less. None where no region
    was submitted: drawing nothing costs nothing, whatever was predicted.
    """
    drawing = drawing_cost_s(edits, weights)
    return 1.0 - correction_cost_s(edits, weights) / drawing if drawing else None


def measure_weights(
    edits: Sequence[EditCounts], lead_times_s: Sequence[float], *, prior: EditWeights
) -> EditWeights:
    """Return weights that explain the lead times; `prior` itself where there are too few.

    The lead time of an annotation is a time to look, the same for all, plus the seconds of its edits: least
    squares with bounds. A kind of edit that occurs fewer than ten times keeps its weight.

    Args:
        edits: of A annotations.
        lead_times_s: of the same annotations, seconds.
        prior: the weights of the settings.
    """
    if len(edits) < MIN_ANNOTATIONS:
        return prior
    return fit_weights(np.array([_features(one) for one in edits]), lead_times_s, prior=prior)


def fit_weights(
    counts_ak: NDArray[np.float64], lead_times_s: Sequence[float] | NDArray[np.float64], *, prior: EditWeights
) -> EditWeights:
    """Return the weights of `measure_weights` for edits that are counted already.

    Args:
        counts_ak: (A, 5), how often each of relabel, nudge, redraw, delete and add counts.
        lead_times_s: of the same annotations, seconds.
        prior: the weights of the settings.
    """
    if len(counts_ak) < MIN_ANNOTATIONS:
        return prior
    from scipy.optimize import lsq_linear

    set_k = np.array([getattr(prior, name) for name in WEIGHT_NAMES])
    often_k = counts_ak.sum(axis=0) >= MIN_OCCURRENCES
    if not often_k.any():
        return prior
    times_a = np.asarray(lead_times_s, dtype=np.float64)
    times_a = np.minimum(times_a, np.quantile(times_a, TAIL))
    rest_a = times_a - counts_ak[:, ~often_k] @ set_k[~often_k]
    design = np.column_stack([np.ones(len(counts_ak)), counts_ak[:, often_k]])
    low, high = np.append(0.0, set_k[often_k] / MOST_FACTOR), np.append(np.inf, set_k[often_k] * MOST_FACTOR)
    solved = lsq_linear(design, rest_a, bounds=(low, high)).x[1:]
    weights_k = set_k.copy()
    weights_k[often_k] = solved
    named = dict(zip(WEIGHT_NAMES, (float(value) for value in weights_k), strict=True))
    return EditWeights(measured_from=len(counts_ak), **named)


def _features(edits: EditCounts) -> NDArray[np.float64]:
    """Return how often each weight counts, float64 (5,)."""
    return np.array(weighted_edits(partial(getattr, edits)), dtype=np.float64)


def weighted_edits(count: Callable[[str], Any]) -> list[Any]:
    """Return how often each of relabel, nudge, redraw, delete and add counts.

    Args:
        count: returns a count, or an array of counts, by the name that it has in `EditCounts`.
    """
    unknown = count("changed") - sum(count(name) for name in EditCounts.KINDS_OF_CHANGE)
    return [
        count("relabelled"),
        count("nudged"),
        count("redrawn") + unknown,  # a change that nobody compared counts as the dearest kind
        count("removed") + count("split") + count("merged"),
        count("added"),
    ]
