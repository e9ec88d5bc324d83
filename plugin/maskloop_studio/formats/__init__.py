"""Segments as Label Studio's regions and back: the names that others use of `formats`."""

from __future__ import annotations

from maskloop_studio.formats.annotation_reader import AnnotationContent, annotation_to_segments
from maskloop_studio.formats.edits import count_edits, is_approximate
from maskloop_studio.formats.prediction_writer import (
    DrawingOptions,
    Region,
    prediction_to_regions,
    segment_to_regions,
)

__all__ = [
    "AnnotationContent",
    "DrawingOptions",
    "Region",
    "annotation_to_segments",
    "count_edits",
    "is_approximate",
    "prediction_to_regions",
    "segment_to_regions",
]
