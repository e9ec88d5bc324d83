"""The formats by name; another package may add its own."""

from __future__ import annotations

from maskloop.curation.exports.coco_instances import CocoFormat
from maskloop.curation.exports.coco_panoptic import PanopticFormat
from maskloop.curation.exports.cvat_xml import CvatFormat
from maskloop.curation.exports.format import ExportFormat
from maskloop.curation.exports.huggingface import HfInstanceFormat, HfSemanticFormat
from maskloop.curation.exports.labelme_masks import LabelmeFormat
from maskloop.curation.exports.row_tables import ParquetFormat
from maskloop.curation.exports.semantic_png import CityscapesFormat, SemanticFormat
from maskloop.curation.exports.yolo_segments import YoloFormat

__all__ = ["FORMATS"]

FORMATS: dict[str, ExportFormat] = {
    form.name: form
    for form in (
        CocoFormat(),
        PanopticFormat(),
        SemanticFormat(),
        YoloFormat(),
        CityscapesFormat(),
        HfInstanceFormat(),
        HfSemanticFormat(),
        ParquetFormat(),
        LabelmeFormat(),
        CvatFormat(),
    )
}
