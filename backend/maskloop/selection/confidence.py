"""How sure a model is of a whole image, from its queries; pure numbers, no model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["image_confidence"]


def image_confidence(class_probs_qk: NDArray[np.floating], segment_scores: Sequence[float]) -> float:
    """Return how sure the model is of one image, 0..1; the lowest is worth an annotator's time first.

    Each query is unsure by one minus the margin between its two likeliest outcomes, "no object" among
    them. It counts by how likely it is to be an object at all, so that a half-seen object which would be
    missed lowers the confidence as a doubtful class does, and the many empty queries do not blur it. The
    sum is divided by the expected number of objects (at least one), and what is left is multiplied by the
    mean score of the segments, which brings in how clear-cut their masks are.

    Args:
        class_probs_qk: (Q, K + 1), rows sum to 1, the last column is "no object".
        segment_scores: 0..1, of the segments that are shown.

    Returns:
        1.0 where every query surely is no object, and without any query.

    Source:
        Margin sampling: Scheffer, Decomain, Wrobel, "Active Hidden Markov Models for Information
        Extraction", IDA 2001; margins aggregated over detections: Brust, Kaeding, Denzler, "Active Learning
        for Deep Object Detection", VISAPP 2019, section 3.
    """
    if class_probs_qk.shape[0] == 0:
        return 1.0
    probs_qk = np.asarray(class_probs_qk, dtype=np.float64)
    objectness_q = np.clip(1.0 - probs_qk[:, -1], 0.0, 1.0)
    ranked_qk = np.sort(probs_qk, axis=1)
    unsure_q = 1.0 - (ranked_qk[:, -1] - ranked_qk[:, -2])
    doubt = float((objectness_q * unsure_q).sum() / max(1.0, float(objectness_q.sum())))
    clearness = float(np.mean(segment_scores)) if len(segment_scores) else 1.0
    return float(np.clip((1.0 - doubt) * clearness, 0.0, 1.0))
