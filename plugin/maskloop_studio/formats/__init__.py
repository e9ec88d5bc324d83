"""Label Studio's label configs and regions, both ways: the names that others use of `formats`."""

from __future__ import annotations

from maskloop_studio.formats.annotation_content import AnnotationContent, RegionRefusal
from maskloop_studio.formats.annotation_reader import annotation_to_segments
from maskloop_studio.formats.brush import decode_brush, encode_brush
from maskloop_studio.formats.controls import Control, ControlKind, ImageTag, LabelConfig, TaskImage
from maskloop_studio.formats.edits import count_edits, is_approximate
from maskloop_studio.formats.label_config import parse_label_config
from maskloop_studio.formats.label_map import (
    ControlPreference,
    LabelMap,
    LabelTarget,
    map_labels,
    tool_targets,
)
from maskloop_studio.formats.label_match import match_label
from maskloop_studio.formats.prediction_writer import (
    DrawingOptions,
    Region,
    prediction_to_regions,
    segment_to_regions,
)
from maskloop_studio.formats.task_data import config_for_task, task_images

__all__ = [
    "AnnotationContent",
    "Control",
    "ControlKind",
    "ControlPreference",
    "DrawingOptions",
    "ImageTag",
    "LabelConfig",
    "LabelMap",
    "LabelTarget",
    "Region",
    "RegionRefusal",
    "TaskImage",
    "annotation_to_segments",
    "config_for_task",
    "count_edits",
    "decode_brush",
    "encode_brush",
    "is_approximate",
    "map_labels",
    "match_label",
    "parse_label_config",
    "prediction_to_regions",
    "segment_to_regions",
    "task_images",
    "tool_targets",
]
