"""Which regions of an annotation are boxes, from Label Studio's `result` to what a training learns from."""

import numpy as np
import pytest
from label_studio_sdk.converter import brush as sdk

from maskloop.learning.data.dataset import ExampleDataset
from maskloop.learning.data.index_map import FIRST_BOX, IGNORED
from maskloop.learning.data.training_set import LabelPlan, corrections_to_examples, used_corrections
from maskloop.store.images import ImageCache
from maskloop_studio.formats import annotation_to_segments, is_approximate, parse_label_config

KINDS = ("Brush", "Polygon", "Rectangle", "Ellipse")
LABEL = '<Label value="disc"/>'
CONFIG = parse_label_config(
    '<View><Image name="image" value="$image"/>'
    + "".join(f'<{kind}Labels name="{kind}" toName="image">{LABEL}</{kind}Labels>' for kind in KINDS)
    + '<Rectangle name="bare" toName="image"/>'
    + f'<Labels name="what" toName="image">{LABEL}</Labels></View>'
)
SIZE_HW = (40, 80)
MASK, BOX, AREA, BACKGROUND = 1, FIRST_BOX, IGNORED, 0  # what an index map has in the middle of a region


def region(kind, value, *, at="r", **more):
    labels = {f"{kind.lower()}labels": ["disc"]}
    made = {"id": at, "type": f"{kind.lower()}labels", "from_name": kind, "to_name": "image"}
    return made | {"original_width": 80, "original_height": 40, "value": value | labels} | more


def rectangle(x=10, *, at="r", **more):
    turn = more.pop("rotation", 0)
    value = {"x": x, "y": 25, "width": 20, "height": 50, "rotation": turn}
    return region("Rectangle", value, at=at, **more)


def ellipse(**more):
    value = {"x": 20, "y": 50, "radiusX": 10, "radiusY": 25, "rotation": 0}
    return region("Ellipse", value, **more)


def polygon(x=10, *, at="p"):
    corners = [[x, 25], [x + 20, 25], [x + 20, 75], [x, 75]]
    return region("Polygon", {"points": corners, "closed": True}, at=at)


def brush(x=10, *, at="b", **more):
    mask_hw = np.zeros(SIZE_HW, dtype=np.uint8)
    mask_hw[10:30, x * 80 // 100 : (x + 20) * 80 // 100] = 255
    rle = sdk.encode_rle(np.repeat(mask_hw.ravel(), 4))
    return region("Brush", {"format": "rle", "rle": rle}, at=at, **more)


BARE = {**rectangle(), "type": "rectangle", "from_name": "bare"}
BARE["value"] = {key: value for key, value in BARE["value"].items() if key != "rectanglelabels"}
NAME = {"id": "r", "type": "labels", "from_name": "what", "to_name": "image", "value": {"labels": ["disc"]}}
JOINED = {"type": "relation", "from_id": "r", "to_id": "b"}
CASES = {
    "rectangle": ([rectangle()], [BOX]),
    "rectangle as predicted": ([rectangle(origin="prediction")], [BOX]),
    "rectangle of a pair": ([BARE, NAME], [BOX]),
    "rectangle turned a little": ([rectangle(rotation=20)], [AREA]),
    "ellipse that a person drew": ([ellipse()], [MASK]),
    "ellipse as predicted": ([ellipse(origin="prediction")], [AREA]),
    "ellipse that was changed": ([ellipse(origin="prediction-changed")], [MASK]),
    "polygon": ([polygon()], [MASK]),
    "brush": ([brush()], [MASK]),
    "brush and rectangle": ([brush(10), rectangle(60)], [MASK, BOX]),
    "two rectangles": ([rectangle(10), rectangle(60, at="s")], [BOX, BOX - 1]),
    "rectangle and turned one": ([rectangle(10), rectangle(60, at="s", rotation=20)], [BOX, AREA]),
    "rectangle joined to a brush": ([brush(10), rectangle(10), JOINED], [BOX]),
    "brush with the same box": ([brush(10), rectangle(10)], [MASK]),
    "nothing": ([], [BACKGROUND]),
}


@pytest.mark.parametrize(("result", "expected"), CASES.values(), ids=CASES)
def test_box_regions_result_becomes_training_item(result, expected, tmp_path, settings, make_correction):
    content = annotation_to_segments(result, CONFIG, size_hw=SIZE_HW)
    assert not content.refusals
    correction = make_correction(segments=content.segments, size_hw=SIZE_HW)
    assert is_approximate(result) is (correction.boxes > 0)
    masks = sum(value == MASK for value in expected)
    assert correction.is_boxes_only is (min(expected) < 0 and not masks)
    index_hw, class_ids, box_ids = _item([correction], tmp_path, settings)
    ends = [int(index_hw[20, {0: 12, 1: 60}[place]]) for place in range(len(expected))]
    assert ends == expected
    boxes = sum(part.is_box and bool(part.mask_hw.all()) for part in content.segments)
    assert (len(class_ids), len(box_ids)) == (masks, boxes)
    if len(content.segments) == 1:  # the area is that of the region itself
        assert np.count_nonzero(index_hw) == content.segments[0].area


def test_box_regions_learn_from_boxes_makes_masks_of_them(tmp_path, settings, make_correction):
    content = annotation_to_segments([rectangle(), brush(60)], CONFIG, size_hw=SIZE_HW)
    correction = make_correction(segments=content.segments, size_hw=SIZE_HW)
    changed = settings.model_copy(update={"learn_from_boxes": True})
    index_hw, class_ids, box_ids = _item([correction], tmp_path, changed)
    assert (index_hw.min(), len(class_ids), box_ids) == (0, 2, ())


def _item(corrections, tmp_path, settings):
    """Return index map and class ids of what a training learns from a correction, unchanged in size."""
    (example,) = corrections_to_examples(
        used_corrections(corrections, settings),
        plan=LabelPlan(labels=("disc",), class_of_label={}),
        image_cache=ImageCache(tmp_path),
        ignored_labels=(),
        learnt_versions=(),
    )
    vars(example)["image"] = np.zeros((*SIZE_HW, 3), np.uint8)
    dataset = ExampleDataset(
        [example],
        length=1,
        labels=("disc",),
        resize=lambda size_hw: size_hw,
        augmentation=None,
        seed=0,
        max_objects=9,
        max_canvas_hw=SIZE_HW,
    )
    return dataset[0].index_hw, dataset[0].class_ids, dataset[0].box_ids
