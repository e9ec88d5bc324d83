"""How far the scores of a model may be from those on all images like the holdout's."""

from __future__ import annotations

import numpy as np

from maskloop.learning.evaluation.average_precision import mean_known
from maskloop.learning.evaluation.bootstrap import resample_weights, spread_quantile
from maskloop.learning.evaluation.prediction_metrics import Evaluation

__all__ = ["ALL_CLASSES", "ScoreIntervals", "score_intervals"]

ALL_CLASSES = ""  # key of the mean over the classes
RESAMPLES = 1000

ScoreIntervals = dict[str, dict[str, tuple[float, float]]]  # class -> score -> (lower, upper)


def score_intervals(evaluation: Evaluation, *, confidence: float = 0.9, seed: int = 0) -> ScoreIntervals:
    """Return two-sided intervals of ap50, pq and iou of each class and of their means.

    Images are resampled, copies together; the interval is widened for small samples as the gate's is. A class
    on fewer than two images, copies counted once, has none.

    Args:
        evaluation: of at least one image.
        confidence: that the true value lies inside, 0..1.
        seed: seed of the resamples.
    """
    if not evaluation.images:
        return {}
    weights_rn = resample_weights(evaluation.images, RESAMPLES, seed, groups=evaluation.groups)
    scores = evaluation.scores(weights_rn)
    one_sided = (1 + confidence) / 2
    present_nc = evaluation.present_nc
    images = {
        label: evaluation.count_images(present_nc[:, index]) for index, label in enumerate(evaluation.labels)
    }
    values = {
        label: {name: scores_rc[:, index] for name, scores_rc in scores.items()}
        for index, label in enumerate(evaluation.labels)
    }
    images[ALL_CLASSES] = evaluation.independent_images
    values[ALL_CLASSES] = {name: mean_known(scores_rc, 1) for name, scores_rc in scores.items()}
    found: ScoreIntervals = {}
    for label, by_name in values.items():
        for name, values_r in by_name.items():
            low, high = spread_quantile(values_r, one_sided, images[label])
            if np.isfinite(low):
                found.setdefault(label, {})[name] = (max(0.0, low), min(1.0, high))
    return found
