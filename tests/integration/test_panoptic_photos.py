"""Photos with panoptic truth through the region forms and back: neighbours, ragged, divided."""

import json
from collections.abc import Callable, Iterator

import cv2
import numpy as np
import pytest
from PIL import Image
from tests.paths import SHARED

from maskloop.masks import mask_to_segment, paste_segment, segment_iou
from maskloop.types import Prediction, Segment
from maskloop_studio.formats import DrawingOptions, annotation_to_segments, prediction_to_regions
from maskloop_studio.formats.label_config import map_labels, parse_label_config

FOLDER = SHARED / "data" / "panoptic2"
TAGS = {"brush": "BrushLabels", "polygon": "PolygonLabels"}

pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="the photos are not at hand")


def read_predictions() -> Iterator[Prediction]:
    """Each photo's truth as a prediction; a segment's number is R + 256 G + 65536 B of its pixels."""
    description = json.loads((FOLDER / "panoptic.json").read_text())
    names = {category["id"]: category["name"] for category in description["categories"]}
    for annotation in description["annotations"]:
        with Image.open(FOLDER / "panoptic" / annotation["file_name"]) as file:
            numbers_hw = np.asarray(file.convert("RGB")).astype(np.int64) @ [1, 256, 65536]
        segments = [
            mask_to_segment(numbers_hw == info["id"], label=names[info["category_id"]])
            for info in annotation["segments_info"]
        ]
        yield Prediction(
            segments=tuple(segment for segment in segments if segment is not None),
            size_hw=numbers_hw.shape,
            confidence=1.0,
        )


@pytest.mark.parametrize(
    ("form", "drawing", "least_iou"),
    [
        ("brush", DrawingOptions(), 1.0),
        ("polygon", DrawingOptions(), 0.98),
        # A border that two segments share costs the small one more than 2 %.
        ("polygon, shared", DrawingOptions(shared_borders=True), 0.9),
    ],
    ids=["brush", "polygon", "shared borders"],
)
def test_panoptic_photos_come_back(
    form: str, drawing: DrawingOptions, least_iou: float, record_form: Callable[..., None]
) -> None:
    ious: list[float] = []
    for truth in read_predictions():
        read = there_and_back(truth, TAGS[form.partition(",")[0]], drawing)
        assert [segment.label for segment in read] == [segment.label for segment in truth.segments]
        ious += [segment_iou(*pair) for pair in zip(read, truth.segments, strict=True)]
        if drawing.shared_borders:
            assert share_of_gaps(read, truth) < 1e-4
    record_form("(photos)", "panoptic", form, len(ious), np.mean(ious), min(ious), np.mean(ious))
    assert len(ious) == 50
    assert min(ious) >= least_iou


def there_and_back(prediction: Prediction, tag: str, drawing: DrawingOptions) -> tuple[Segment, ...]:
    names = sorted({segment.label for segment in prediction.segments})
    labels = "".join(f'<Label value="{name}"/>' for name in names)
    config = parse_label_config(
        f'<View><Image name="img" value="$image"/><{tag} name="tool" toName="img">{labels}</{tag}></View>'
    )
    regions = prediction_to_regions(prediction, map_labels(config, names), id_seed="truth/1", drawing=drawing)
    content = annotation_to_segments(json.loads(json.dumps(regions)), config, size_hw=prediction.size_hw)
    assert not content.problems
    return content.segments


def share_of_gaps(read: tuple[Segment, ...], truth: Prediction) -> float:
    """Return of the pixels that labelled ones surround the share that does not have exactly one segment."""
    covered_hw, labelled_hw = (
        np.sum([paste_segment(segment, truth.size_hw) for segment in segments], axis=0)
        for segments in (read, truth.segments)
    )
    inner_hw = cv2.erode(labelled_hw.astype(np.uint8), np.ones((5, 5), np.uint8)).astype(np.bool_)
    return float(np.mean(covered_hw[inner_hw] != 1))
