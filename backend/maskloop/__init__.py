"""maskloop's engine: segments images, learns from corrections; knows nothing of Label Studio."""

from maskloop.errors import MaskloopError
from maskloop.types import (
    Correction,
    EditCounts,
    HoldoutMetrics,
    ModelVersion,
    Prediction,
    Segment,
    SegmentationTask,
)

__all__ = [
    "Correction",
    "EditCounts",
    "HoldoutMetrics",
    "MaskloopError",
    "ModelVersion",
    "Prediction",
    "Segment",
    "SegmentationTask",
]
