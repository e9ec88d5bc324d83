"""How sure a model is of a whole image: the signals made one number that ranks by correction work."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType

from maskloop.types import Signals

__all__ = ["image_confidence"]

# Each signal's part in the doubt, from the grid search that docs/selection.md reports; margin says what
# entropy says, a little worse. Without views the others weigh more: both confidences lie on one scale.
VIEWED_WEIGHTS: Mapping[str, float] = MappingProxyType(
    {"entropy": 0.13, "margin": 0.0, "border": 0.43, "missing": 0.22, "disagreement": 0.22}
)
CHEAP_WEIGHTS: Mapping[str, float] = MappingProxyType(
    {"entropy": 0.2, "margin": 0.0, "border": 0.67, "missing": 0.33}
)
OBJECTS_POWER = 0.7  # how the work grows with the number of objects
STEEPNESS = 4.0  # confidence is a half where a lone object's doubt is one divided by this


def image_confidence(signals: Signals, objects: float) -> float:
    """Return how sure the model is of one image, 0..1; the lowest is worth an annotator's time first.

    The doubt of one object is a weighted mean of the signals. Work grows with the number of objects, but
    slower: counting them in full would rank by crowdedness, not at all by the rate of errors alone.

    Args:
        signals: 0..1 each; without disagreement the other signals stand for it, on the same scale.
        objects: how many the annotator has to look at, at least 0; less than one counts as one.

    Returns:
        1.0 where nothing is in doubt; falls with each signal and with the number of objects in doubt.
    """
    weights = CHEAP_WEIGHTS if signals.disagreement is None else VIEWED_WEIGHTS
    doubt = sum(weight * float(getattr(signals, name)) for name, weight in weights.items())
    work = doubt * math.pow(max(1.0, objects), OBJECTS_POWER)
    return 1.0 / (1.0 + STEEPNESS * max(0.0, work))
