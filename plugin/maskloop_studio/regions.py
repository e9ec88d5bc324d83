"""Segments as Label Studio's regions (`regions_out.py`) and back (`regions_in.py`): the names others use."""

from __future__ import annotations

from maskloop_studio.annotations import choose_annotations, count_edits
from maskloop_studio.regions_in import AnnotationContent, annotation_to_segments
from maskloop_studio.regions_out import DrawingOptions, Region, prediction_to_regions, segment_to_regions

__all__ = [
    "AnnotationContent",
    "DrawingOptions",
    "Region",
    "annotation_to_segments",
    "choose_annotations",
    "count_edits",
    "prediction_to_regions",
    "segment_to_regions",
]
