"""Regions: accepted by the SDK's validator, read back, edited by the annotator, and damaged."""

import copy
import json

import numpy as np
import pytest
from label_studio_sdk.label_interface.interface import LabelInterface
from tests.paths import SHARED

from maskloop.errors import CodecError
from maskloop.masks import mask_to_segment, paste_segment
from maskloop.types import UNLABELLED, EditCounts, Prediction
from maskloop_studio.formats import (
    TaskImage,
    annotation_to_segments,
    count_edits,
    encode_brush,
    is_approximate,
    map_labels,
    parse_label_config,
    prediction_to_regions,
)

XML = """<View><Image name="image" value="$image"/>
<BrushLabels name="brush" toName="image"><Label value="Car"/><Label value="Disc"/></BrushLabels>
<PolygonLabels name="poly" toName="image"><Label value="Car"/><Label value="Disc"/></PolygonLabels></View>"""
CONFIG = parse_label_config(XML)
SIZE = (48, 64)


def _mask(*boxes):
    mask_hw = np.zeros(SIZE, dtype=bool)
    for top, left, bottom, right in boxes:
        mask_hw[top:bottom, left:right] = True
    return mask_hw


TWO_PARTS = _mask((2, 3, 20, 30), (30, 40, 46, 60))
HOLE = _mask((5, 5, 40, 50)) & ~_mask((15, 20, 25, 30))
BORDER = _mask((0, 0, 48, 9))


def _prediction(*masks, label="Car"):
    segments = tuple(mask_to_segment(mask_hw, label=label, score=0.75) for mask_hw in masks)
    return Prediction(segments=segments, size_hw=SIZE, confidence=0.5)


def _regions(*masks, prefer="first", seed="v1/7"):
    return prediction_to_regions(
        _prediction(*masks), map_labels(CONFIG, ["Car"], prefer=prefer), id_seed=seed
    )


def _masks(content):
    return [paste_segment(segment, SIZE) for segment in content.segments]


def _brush(mask_hw, **changes):
    region = {
        "id": "abc",
        "from_name": "brush",
        "to_name": "image",
        "type": "brushlabels",
        "original_width": mask_hw.shape[1],
        "original_height": mask_hw.shape[0],
        "image_rotation": 0,
        "value": {"format": "rle", "rle": encode_brush(mask_hw), "brushlabels": ["Car"]},
    }
    return region | changes


@pytest.mark.parametrize("prefer", ["brush", "polygon", "both"])
def test_prediction_to_regions_is_valid_for_the_sdk(prefer):
    result = json.loads(json.dumps(_regions(TWO_PARTS, HOLE, BORDER, prefer=prefer)))
    prediction = {"result": result, "score": 0.5, "model_version": "v1"}
    assert LabelInterface(XML).validate_prediction(prediction, return_errors=True) == []
    assert {region["score"] for region in result} == {0.75}
    assert len({region["id"] for region in result}) == len(result)


@pytest.mark.parametrize("prefer", ["brush", "polygon", "both"])
def test_regions_round_trip_keeps_objects_parts_and_holes(prefer):
    result = json.loads(json.dumps(_regions(TWO_PARTS, HOLE, BORDER, prefer=prefer)))
    for region in result:
        region["origin"] = "prediction"
    content = annotation_to_segments(result, CONFIG)
    assert (content.size_hw, content.problems) == (SIZE, ())
    assert [segment.score for segment in content.segments] == [0.75] * 3
    for found, drawn in zip(_masks(content), (TWO_PARTS, HOLE, BORDER), strict=True):
        assert np.array_equal(found, drawn)


def test_prediction_to_regions_ids_are_stable_and_differ():
    ids = [region["id"] for region in _regions(HOLE, BORDER)]
    assert ids[::-1] == [region["id"] for region in _regions(BORDER, HOLE)]
    assert set(ids).isdisjoint(region["id"] for region in _regions(HOLE, BORDER, seed="v2/7"))
    assert len({region["id"] for region in _regions(HOLE, HOLE)}) == 2


def test_prediction_to_regions_unknown_class_is_left_out():
    label_map = map_labels(CONFIG, ["Car"])
    assert prediction_to_regions(_prediction(HOLE, label="zebra"), label_map, id_seed="v1/7") == []


def test_annotation_to_segments_deleted_part_stays_deleted():
    first, _ = _regions(TWO_PARTS, prefer="polygon")
    (mask_hw,) = _masks(annotation_to_segments([first], CONFIG))
    assert np.array_equal(mask_hw, _mask((2, 3, 20, 30)))


def test_annotation_to_segments_relabelled_part_becomes_a_segment():
    first, second = _regions(TWO_PARTS, prefer="polygon")
    second["value"]["polygonlabels"] = ["Disc"]
    content = annotation_to_segments([first, second], CONFIG)
    assert [segment.label for segment in content.segments] == ["Car", "Disc"]


@pytest.mark.parametrize(("edited", "expected"), [("brush", BORDER), ("polygon", HOLE), (None, BORDER)])
def test_annotation_to_segments_both_forms_take_the_edited_one(edited, expected):
    brush, polygon = _regions(HOLE, prefer="both")
    brush["value"]["rle"] = encode_brush(BORDER)
    brush["origin"] = "prediction-changed" if edited == "brush" else "prediction"
    polygon["origin"] = "prediction-changed" if edited == "polygon" else "prediction"
    (mask_hw,) = _masks(annotation_to_segments([polygon, brush], CONFIG))
    assert np.array_equal(mask_hw, expected)


def test_annotation_to_segments_drawn_by_hand_are_never_merged():
    result = [_brush(HOLE, id="aaaaaaaa-0"), _brush(BORDER, id="aaaaaaaa-1"), _brush(HOLE, id=None)]
    assert len(annotation_to_segments(result, CONFIG).segments) == 3


def test_annotation_to_segments_empty_has_no_size():
    content = annotation_to_segments([], CONFIG)
    assert (content.segments, content.size_hw, content.problems) == ((), None, ())


def test_annotation_to_segments_other_tags_are_passed_over():
    others = [{"type": "relation"}, {"type": "choices", "value": {}}, {"type": "textarea"}]
    content = annotation_to_segments(others, CONFIG)
    assert (content.problems, content.other_answers, content.regions_here) == ((), True, 0)


RLE = encode_brush(HOLE)
BROKEN = [
    pytest.param({"original_width": 48, "original_height": 64}, "an image of 64x48, got 48x64", id="swapped"),
    pytest.param({"image_rotation": 45}, "0, 90, 180 or 270, got 45", id="turned askew"),
    pytest.param({"item_index": 1}, "a to_name and item_index of the label config", id="second page of none"),
    pytest.param({"to_name": "gone"}, "a to_name and item_index of the label config", id="no such image"),
    pytest.param({"value": None}, "a value", id="no value"),
    pytest.param({"value": {"brushlabels": ["Car"]}}, "header", id="no rle"),
    pytest.param({"value": {"rle": RLE[:-4], "brushlabels": ["Car"]}}, "end before", id="truncated"),
    pytest.param({"type": "hologram", "value": {"depth": 3}}, "a known type of region", id="unknown type"),
]


@pytest.mark.parametrize(("changes", "words"), BROKEN)
def test_annotation_to_segments_region_without_area_sets_the_annotation_aside(changes, words):
    result = [_brush(HOLE, **({"id": "bad1"} | changes)), _brush(BORDER)]
    content = annotation_to_segments(result, CONFIG, size_hw=SIZE, place="task 4, annotation 2")
    (refusal,) = content.refusals
    assert words in str(refusal)
    assert content.set_aside == str(refusal)
    assert "task 4, annotation 2, region bad1" in str(refusal)
    assert (refusal.area_known, content.regions_here) == (False, 2)
    assert np.array_equal(_masks(content)[0], BORDER)


UNCLEAR = [
    pytest.param({"from_name": "gone"}, "control of the label config", id="unknown control"),
    pytest.param({"from_name": ["brush"]}, "control of the label config", id="control is a list"),
    pytest.param({"from_name": "poly"}, "control of the label config", id="control of another type"),
    pytest.param({"type": "hologram"}, "control of the label config", id="unknown type with a mask"),
    pytest.param({"value": {"rle": RLE, "brushlabels": [{}]}}, "one label", id="label is a dict"),
]


@pytest.mark.parametrize(("changes", "words"), UNCLEAR)
def test_annotation_to_segments_region_of_unclear_meaning_is_an_area_of_no_class(changes, words):
    result = [_brush(HOLE, **({"id": "bad1"} | changes)), _brush(BORDER)]
    content = annotation_to_segments(result, CONFIG, size_hw=SIZE, place="task 4")
    (refusal,) = content.refusals
    assert words in str(refusal)
    assert (refusal.area_known, content.set_aside) == (True, None)
    assert [segment.label for segment in content.segments] == [UNLABELLED, "Car"]
    assert np.array_equal(_masks(content)[0], HOLE)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"original_width": 10**9, "original_height": 10**9}, id="huge"),
        pytest.param({"original_width": "64", "original_height": 48.0}, id="text and decimal"),
        pytest.param({"original_width": -64}, id="negative"),
        pytest.param({"original_width": None}, id="none"),
        pytest.param({"image_rotation": 360}, id="full turn"),
        pytest.param({"image_rotation": "90"}, id="view turned in Label Studio"),
    ],
)
def test_annotation_to_segments_size_that_is_not_needed_is_not_demanded(changes):
    content = annotation_to_segments([_brush(HOLE, **changes)], CONFIG, size_hw=SIZE)
    assert (content.problems, content.set_aside, content.notes) == ((), None, ())
    assert np.array_equal(_masks(content)[0], HOLE)


@pytest.mark.parametrize(
    "value",
    [pytest.param({"rle": RLE}, id="none"), pytest.param({"rle": RLE, "brushlabels": []}, id="empty")],
)
def test_annotation_to_segments_region_without_labels_is_an_area_of_no_class(value):
    content = annotation_to_segments([_brush(HOLE, value=value), _brush(BORDER)], CONFIG)
    assert [segment.label for segment in content.segments] == [UNLABELLED, "Car"]
    assert content.problems == ()


def test_annotation_to_segments_erased_region_says_nothing_is_there():
    content = annotation_to_segments([_brush(_mask())], CONFIG)
    assert (content.segments, content.size_hw, content.problems) == ((), SIZE, ())


@pytest.mark.parametrize("result", [None, {"a": 1}, [{}] * 10_001], ids=["none", "dict", "too many"])
def test_annotation_to_segments_no_list_raises(result):
    with pytest.raises(CodecError, match="at most 10000 regions"):
        annotation_to_segments(result, CONFIG)


def test_count_edits_reads_origin():
    result = [
        _brush(HOLE, id="k", origin="prediction"),
        _brush(HOLE, id="c", origin="prediction-changed"),
        _brush(HOLE, id="m", origin="manual"),
        _brush(HOLE, id="n"),
        {"type": "relation", "from_id": "k", "to_id": "c"},
    ]
    assert count_edits(result, ["k", "c", "gone"]) == EditCounts(kept=1, changed=1, added=2, removed=1)


def test_annotation_to_segments_browser_annotation_is_read_whole():
    path = SHARED / "label-studio" / "browser-annotation.json"
    if not path.exists():
        pytest.skip("no browser-made annotation at hand")
    (annotation,) = json.loads(path.read_text())
    before = copy.deepcopy(annotation["result"])
    content = annotation_to_segments(annotation["result"], CONFIG)
    assert annotation["result"] == before
    assert (content.size_hw, content.problems) == ((240, 320), ())
    assert [segment.label for segment in content.segments] == ["Disc", "Car", "Car"]
    # A triangle of 30 % by 40 % of 320x240.
    assert content.segments[1].area == pytest.approx(0.5 * 96 * 96, rel=0.02)
    assert count_edits(annotation["result"], ["b1", "p1", "p2"]) == EditCounts(
        kept=1, changed=1, added=1, removed=1
    )


TWO_IMAGES = parse_label_config(
    """<View><Image name="rgb" value="$rgb"/><Image name="pages" valueList="$pages"/>
    <PolygonLabels name="poly" toName="rgb,pages"><Label value="Car"/></PolygonLabels>
    <BrushLabels name="brush" toName="pages"><Label value="Car"/></BrushLabels></View>"""
)


@pytest.mark.parametrize(
    ("image", "drawn"),
    [
        pytest.param(None, [("poly", "rgb", None)], id="first image"),
        pytest.param(("rgb", None), [("poly", "rgb", None)], id="single image"),
        pytest.param(("pages", 0), [("brush", "pages", 0)], id="first page"),
        pytest.param(("pages", 2), [("brush", "pages", 2)], id="third page"),
    ],
)
def test_prediction_to_regions_names_image_and_page_and_is_read_there_alone(image, drawn):
    label_map = map_labels(TWO_IMAGES, ["Car"], prefer="brush")
    task_image = TaskImage(to_name=image[0], item_index=image[1], address="/x.png") if image else None
    regions = prediction_to_regions(_prediction(HOLE), label_map, id_seed="v1/7", image=task_image)
    assert [(r["from_name"], r["to_name"], r.get("item_index")) for r in regions] == drawn
    content = annotation_to_segments(regions, TWO_IMAGES, image=task_image)
    assert [segment.label for segment in content.segments] == ["Car"]
    elsewhere = TaskImage(to_name="pages", item_index=1, address="/x.png")
    assert annotation_to_segments(regions, TWO_IMAGES, image=elsewhere).other_answers


def test_count_edits_of_one_image_leaves_the_others_out():
    result = [
        _brush(HOLE, id="a", origin="prediction", to_name="pages", item_index=1),
        _brush(HOLE, id="b", to_name="pages"),
        _brush(HOLE, id="c", to_name="rgb"),
    ]
    page = TaskImage(to_name="pages", item_index=1, address="/x.png")
    assert count_edits(result, ["a", "gone"], image=page) == EditCounts(kept=1, removed=1)
    assert is_approximate([{"type": "rectangle", "to_name": "rgb"}], image=page) is False
