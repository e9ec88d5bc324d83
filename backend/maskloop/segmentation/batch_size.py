"""How many images a forward pass gets where no setting says so."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from maskloop.segmentation.checkpoint import Checkpoint

__all__ = ["MOST_BY_DEFAULT", "batch_limit", "parameter_count"]

MOST_BY_DEFAULT = 8
_COUNTS: WeakKeyDictionary[Any, int] = WeakKeyDictionary()
CACHED_PARAMETERS = 5_000_000  # a larger model's activations of one image already fill a CPU's caches


def batch_limit(checkpoint: Checkpoint) -> int:
    """Return the most images of one forward pass: 8, or 1 for a larger model on a CPU.

    On two cores Swin-T answers 2.24, 2.02 and 1.93 images/s in batches of 1, 4 and 8; the shipped model of
    .9 million parameters 93, 142 and 122 a second of one core.
    """
    if checkpoint.device.type != "cpu":
        return MOST_BY_DEFAULT
    return 1 if parameter_count(checkpoint.model) >= CACHED_PARAMETERS else MOST_BY_DEFAULT


def parameter_count(model: Any) -> int:
    """Return how many parameters a model has; counted once, since it is asked for at each forward pass."""
    if model not in _COUNTS:
        _COUNTS[model] = sum(one.numel() for one in model.parameters())
    return _COUNTS[model]
