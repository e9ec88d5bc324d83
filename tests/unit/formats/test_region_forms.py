"""Every form that a control draws, out and back: valid for the SDK, close to the mask, one object once."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from label_studio_sdk.label_interface.interface import LabelInterface
from tests.paths import SHARED

from maskloop.masks import mask_to_segment, paste_segment, segment_iou
from maskloop.types import Prediction
from maskloop_studio.formats import (
    DrawingOptions,
    annotation_to_segments,
    prediction_to_regions,
    segment_to_regions,
)
from maskloop_studio.formats.label_config import map_labels, parse_label_config

COCO = SHARED / "data" / "coco104"
SIZE = (48, 64)
KINDS = {
    "brush": "Brush",
    "bitmask": "Bitmask",
    "polygon": "Polygon",
    "vector": "Vector",
    "rectangle": "Rectangle",
    "ellipse": "Ellipse",
    "keypoint": "KeyPoint",
}
LEAST_IOU = {"brush": 1.0, "bitmask": 1.0, "polygon": 0.98, "vector": 0.98, "rectangle": 0.5, "ellipse": 0.5}


def _xml(kinds, paired):
    label = '<Label value="Car"/>'
    if paired:
        tools = "".join(f'<{KINDS[kind]} name="{kind}" toName="image"/>' for kind in kinds)
        tools += f'<Labels name="what" toName="image">{label}</Labels>'
    else:
        tools = "".join(
            f'<{KINDS[kind]}Labels name="{kind}" toName="image">{label}</{KINDS[kind]}Labels>'
            for kind in kinds
        )
    return f'<View><Image name="image" value="$image"/>{tools}</View>'


def _regions(xml, *masks, prefer="both", **drawing):
    segments = tuple(mask_to_segment(mask_hw, label="Car", score=0.75) for mask_hw in masks)
    prediction = Prediction(segments=segments, size_hw=masks[0].shape, confidence=0.5)
    label_map = map_labels(parse_label_config(xml), ["Car"], prefer=prefer)
    options = DrawingOptions(prefer=prefer, **drawing)
    regions = prediction_to_regions(prediction, label_map, id_seed="v1/7", drawing=options)
    return json.loads(json.dumps(regions))


def _blob(seed, size_hw=(60, 80)):
    """Return smooth noise above a threshold: parts, holes, and the image's border."""
    noise = np.random.default_rng(seed).random((8, 8))
    rows, columns = (np.linspace(0, 7, side) for side in size_hw)
    smooth_hw = np.array([np.interp(columns, range(8), row) for row in noise]).T
    smooth_hw = np.array([np.interp(rows, range(8), column) for column in smooth_hw]).T
    return smooth_hw > np.quantile(smooth_hw, 0.6)


DISC = np.hypot(*(np.indices(SIZE) - np.array([24, 30])[:, None, None])) < 15
RING = DISC & ~(np.hypot(*(np.indices(SIZE) - np.array([24, 30])[:, None, None])) < 5)
FULL = np.ones(SIZE, dtype=bool)
DOT = np.arange(SIZE[0] * SIZE[1]).reshape(SIZE) == 70


@pytest.mark.parametrize("paired", [False, True], ids=["with labels", "beside labels"])
@pytest.mark.parametrize("kind", KINDS)
def test_prediction_to_regions_every_form_is_valid_and_comes_back(kind, paired):
    xml = _xml([kind], paired)
    result = _regions(xml, RING, DISC, FULL, DOT)
    prediction = {"result": result, "score": 0.5, "model_version": "v1"}
    assert LabelInterface(xml).validate_prediction(prediction, return_errors=True) == []
    content = annotation_to_segments(result, parse_label_config(xml))
    assert (content.problems, content.size_hw) == ((), SIZE)
    if kind == "keypoint":
        assert (content.segments, len(content.notes)) == ((), 4)
        return
    for segment, mask_hw in zip(content.segments, (RING, DISC, FULL, DOT), strict=True):
        drawn = mask_to_segment(mask_hw, label="Car")
        assert (segment.label, segment.score) == ("Car", 0.75)
        assert segment_iou(segment, drawn) >= LEAST_IOU[kind]


@pytest.mark.parametrize("paired", [False, True], ids=["with labels", "beside labels"])
def test_prediction_to_regions_all_forms_at_once_are_one_object(paired):
    xml = _xml(list(KINDS), paired)
    result = _regions(xml, RING)
    assert len({region["id"] for region in result}) == len(KINDS)
    assert LabelInterface(xml).validate_prediction({"result": result}, return_errors=True) == []
    for region in result:
        region["origin"] = "prediction"
    (segment,) = annotation_to_segments(result, parse_label_config(xml)).segments
    assert np.array_equal(paste_segment(segment, SIZE), RING)
    for region in result:
        region["origin"] = "prediction-changed" if region["id"].endswith("-r") else "prediction"
    (segment,) = annotation_to_segments(result, parse_label_config(xml)).segments
    assert segment.mask_hw.all()


@pytest.mark.parametrize("kind", KINDS)
def test_segment_to_regions_draws_one_segment_like_a_prediction(kind):
    xml = _xml([kind], True)
    (target,) = map_labels(parse_label_config(xml), ["Car"]).targets_of("Car")
    predicted = _regions(xml, RING)
    object_id = predicted[0]["id"].partition("-")[0]
    segment = mask_to_segment(RING, label="Car", score=0.75)
    assert segment_to_regions(segment, target, SIZE, object_id=object_id) == predicted


def test_prediction_to_regions_below_the_controls_threshold_is_left_out():
    xml = _xml(["brush"], False).replace('name="brush"', 'name="brush" model_score_threshold="0.8"')
    assert _regions(xml, RING) == []


def test_prediction_to_regions_small_parts_go_and_the_id_stays():
    both = DISC | DOT
    (drawn,) = _regions(_xml(["rectangle"], False), both, min_part_share=0.1)
    (alone,) = _regions(_xml(["rectangle"], False), DISC)
    (whole,) = _regions(_xml(["rectangle"], False), both)
    assert drawn["value"] == alone["value"] != whole["value"]
    assert drawn["id"] == whole["id"]


@pytest.mark.parametrize(
    "wrong",
    [{"tolerance_px": -1}, {"tolerance_px": float("nan")}, {"max_vertices": 3}, {"min_part_share": 2}],
)
def test_drawing_options_impossible_raise(wrong):
    with pytest.raises(ValueError, match="DrawingOptions"):
        DrawingOptions(**wrong)


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 10**6),
    kind=st.sampled_from(["brush", "bitmask", "polygon", "vector"]),
    paired=st.booleans(),
    size_hw=st.tuples(st.integers(12, 90), st.integers(12, 90)),
)
def test_regions_round_trip_keeps_blobs_with_holes_and_parts(seed, kind, paired, size_hw):
    mask_hw = _blob(seed, size_hw)
    xml = _xml([kind], paired)
    (segment,) = annotation_to_segments(_regions(xml, mask_hw), parse_label_config(xml)).segments
    assert segment_iou(segment, mask_to_segment(mask_hw, label="Car")) >= LEAST_IOU[kind]


@pytest.mark.parametrize("kind", ["brush", "bitmask", "polygon", "vector", "rectangle", "ellipse"])
def test_regions_round_trip_keeps_photographed_objects(kind):
    if not COCO.exists():
        pytest.skip("no photos at hand")
    coco = pytest.importorskip("maskloop.lab.synthetic.coco")
    xml = _xml([kind], False)
    for image in coco.read_coco(COCO)[:6]:
        for truth in image.segments:
            mask_hw = paste_segment(truth, image.size_hw)
            content = annotation_to_segments(_regions(xml, mask_hw), parse_label_config(xml))
            (segment,) = content.segments
            assert segment_iou(segment, truth) >= {"rectangle": 0.05, "ellipse": 0.05}.get(
                kind, LEAST_IOU[kind]
            )
