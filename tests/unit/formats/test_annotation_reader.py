"""Regions that annotators draw by hand: groups, relations, boxes, old sizes, lost labels, and damage."""

import math

import numpy as np
import pytest

from maskloop.masks import paste_segment
from maskloop.types import UNLABELLED, EditCounts
from maskloop_studio.formats import annotation_to_segments, count_edits, is_approximate
from maskloop_studio.formats.brush import encode_brush
from maskloop_studio.formats.label_config import parse_label_config

XML = """<View><Image name="image" value="$image"/>
<BrushLabels name="brush" toName="image"><Label value="Car"/><Label value="Disc"/></BrushLabels>
<PolygonLabels name="poly" toName="image"><Label value="Car"/><Label value="Disc"/></PolygonLabels>
<RectangleLabels name="box" toName="image"><Label value="Car"/></RectangleLabels>
<Ellipse name="oval" toName="image"/><Rectangle name="bare" toName="image"/><Brush name="ink" toName="image"/>
<Labels name="what" toName="image"><Label value="Car"/><Label value="Disc"/></Labels>
<Labels name="else" toName="image"><Label value="Tree"/></Labels></View>"""
CONFIG = parse_label_config(XML)
SIZE = (40, 60)


def _box(top, left, bottom, right, size_hw=SIZE):
    mask_hw = np.zeros(size_hw, dtype=bool)
    mask_hw[top:bottom, left:right] = True
    return mask_hw


def _region(region_id, control, region_type, size_hw=SIZE, labels=None, **value):
    named = {region_type: labels} if labels else {}
    return {
        "id": region_id,
        "from_name": control,
        "to_name": "image",
        "type": region_type,
        "original_width": size_hw[1],
        "original_height": size_hw[0],
        "image_rotation": 0,
        "value": value | named,
    }


def _brush(region_id, mask_hw, label="Car"):
    rle = encode_brush(mask_hw)
    return _region(region_id, "brush", "brushlabels", mask_hw.shape, [label], format="rle", rle=rle)


def _poly(region_id, points, label="Car", size_hw=SIZE):
    return _region(region_id, "poly", "polygonlabels", size_hw, [label], points=points)


def _relation(first, second):
    return {"type": "relation", "from_id": first, "to_id": second, "direction": "right"}


LEFT, RIGHT, LOW = _box(2, 2, 10, 10), _box(5, 30, 20, 50), _box(30, 5, 38, 55)
SQUARE = [[50, 50], [75, 50], [75, 100], [50, 100]]  # _box(20, 30, 40, 45)


def _read(*result, **options):
    return annotation_to_segments(list(result), CONFIG, **options)


def _masks(content):
    return [paste_segment(segment, content.size_hw) for segment in content.segments]


def test_annotation_to_segments_related_regions_are_one_object():
    content = _read(
        _brush("a", LEFT), _poly("b", SQUARE), _brush("c", LOW), _relation("a", "b"), _relation("c", "b")
    )
    (mask_hw,) = _masks(content)
    assert np.array_equal(mask_hw, LEFT | _box(20, 30, 40, 45) | LOW)


def test_annotation_to_segments_grouped_regions_are_one_object():
    content = _read(_brush("a", LEFT), _brush("b", RIGHT) | {"parentID": "a"}, _brush("c", LOW))
    assert [np.count_nonzero(mask_hw) for mask_hw in _masks(content)] == [64 + 300, 400]


@pytest.mark.parametrize(
    "link",
    [
        pytest.param(_relation("a", "b"), id="other label"),
        pytest.param(_relation("a", "gone"), id="deleted region"),
        pytest.param(_relation("a", "a"), id="itself"),
        pytest.param(_relation(None, "b"), id="no end"),
        pytest.param(_relation(["a"], {}), id="no text"),
    ],
)
def test_annotation_to_segments_relation_that_joins_nothing(link):
    content = _read(_brush("a", LEFT), _brush("b", RIGHT, "Disc"), link)
    assert [segment.label for segment in content.segments] == ["Car", "Disc"]
    assert content.problems == ()


def test_annotation_to_segments_smaller_polygon_inside_is_no_hole():
    inner = [[55, 60], [70, 60], [70, 90], [55, 90]]
    (mask_hw,) = _masks(_read(_poly("a", SQUARE), _poly("b", inner), _relation("a", "b")))
    assert np.array_equal(mask_hw, _box(20, 30, 40, 45))


def test_annotation_to_segments_hole_cut_by_hand_stays_open():
    keyhole = [*SQUARE, [50, 50], [60, 75], [60, 90], [70, 90], [70, 75], [60, 75]]
    (mask_hw,) = _masks(_read(_poly("a", keyhole)))
    assert not mask_hw[31:35, 37:41].any()
    assert mask_hw[20:29, 31:44].any()


def test_annotation_to_segments_box_and_ellipse_are_filled():
    box = _region("a", "box", "rectanglelabels", labels=["Car"], x=50, y=25, width=50, height=50, rotation=90)
    oval = {"x": 50, "y": 50, "radiusX": 25, "radiusY": 25, "rotation": 0}
    content = _read(
        box,
        _region("b", "oval", "ellipse", **oval),
        _region("b", "what", "labels", **oval, labels=["Disc"]),
    )
    box_hw, oval_hw = _masks(content)
    assert np.array_equal(box_hw, _box(10, 10, 40, 30))
    assert np.count_nonzero(oval_hw) == pytest.approx(math.pi * 15 * 10, rel=0.02)
    assert [segment.label for segment in content.segments] == ["Car", "Disc"]


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        pytest.param([("what", ["Disc"])], "Disc", id="first labels"),
        pytest.param([("else", ["Tree"])], "Tree", id="second labels"),
        pytest.param(
            [("gone", ["Old"]), ("else", ["Old", "Tree"])], "Tree", id="old label, then a known one"
        ),
    ],
)
def test_annotation_to_segments_labels_beside_the_shape_name_it(labels, expected):
    value = {"x": 0, "y": 0, "width": 50, "height": 50}
    named = [_region("a", name, "labels", **value, labels=given) for name, given in labels]
    content = _read(_region("a", "bare", "rectangle", **value), *named)
    assert ([segment.label for segment in content.segments], content.problems) == ([expected], ())


def test_annotation_to_segments_shape_without_labels_is_an_area_of_no_class():
    content = _read(_region("a", "bare", "rectangle", x=0, y=0, width=50, height=50), _brush("b", LEFT))
    assert sorted(segment.label for segment in content.segments) == [UNLABELLED, "Car"]
    assert content.problems == ()
    assert "region a: has no label" in content.notes[0]


def test_annotation_to_segments_several_labels_take_the_first_known():
    region = _brush("a", LEFT)
    region["value"]["brushlabels"] = ["Old", "Disc", "Car"]
    assert [segment.label for segment in _read(region).segments] == ["Disc"]


def test_annotation_to_segments_label_that_is_gone_is_counted_and_its_area_has_no_class():
    content = _read(_brush("a", LEFT, "Old"), _brush("b", RIGHT))
    assert (content.problems, content.set_aside, content.unknown_labels) == ((), None, {"Old": 1})
    assert "region a: the label config has no label 'Old'" in content.notes[0]
    assert [segment.label for segment in content.segments] == [UNLABELLED, "Car"]
    assert np.array_equal(_masks(content)[0], LEFT)


@pytest.mark.parametrize("drawn_hw", [(24, 36), (80, 120), (201, 300)], ids=["smaller", "double", "rounded"])
def test_annotation_to_segments_old_image_size_is_scaled(drawn_hw):
    height, width = drawn_hw
    drawn = _box(height // 4, width // 4, height // 2, width // 2, drawn_hw)
    content = _read(_brush("a", drawn), _poly("b", SQUARE, size_hw=drawn_hw), size_hw=SIZE)
    brush_hw, polygon_hw = _masks(content)
    assert np.array_equal(brush_hw, _box(10, 15, 20, 30))
    assert np.array_equal(polygon_hw, _box(20, 30, 40, 45))
    assert [f"scaled from {width}x{height} to 60x40" in note for note in content.notes] == [True, True]


def test_annotation_to_segments_other_aspect_is_a_problem():
    content = _read(_brush("a", _box(1, 1, 5, 5, (41, 60))), _brush("b", RIGHT), size_hw=SIZE)
    assert "expected an image of 60x40, got 60x41" in content.problems[0]
    assert len(content.segments) == 1


@pytest.mark.parametrize(
    ("control", "region_type", "value"),
    [
        pytest.param("poly", "polygonlabels", {"points": [[0, 0], [math.nan, 1], [1, 1]]}, id="nan"),
        pytest.param("poly", "polygonlabels", {"points": [[0, 0], [1e308, 1], [1, -1e308]]}, id="far"),
        pytest.param("poly", "polygonlabels", {"points": [[0, 0]] * 1_000_001}, id="a million points"),
        pytest.param("box", "rectanglelabels", {"x": 0, "y": 0, "width": -5, "height": 5}, id="negative"),
        pytest.param("box", "rectanglelabels", {"x": 0, "y": 0, "width": 1e308, "height": 5}, id="wide"),
        pytest.param("box", "rectanglelabels", {}, id="no numbers"),
    ],
)
def test_annotation_to_segments_damaged_shape_is_refused(control, region_type, value):
    content = _read(_region("bad", control, region_type, labels=["Car"], **value), _brush("b", RIGHT))
    (problem,) = content.problems
    assert "region bad" in problem
    assert np.array_equal(_masks(content)[0], RIGHT)


def test_annotation_to_segments_shape_beyond_the_image_is_cut_off():
    over = _region("b", "box", "rectanglelabels", labels=["Car"], x=50, y=50, width=52, height=54)
    (mask_hw,) = _masks(_read(over))
    assert np.array_equal(mask_hw, _box(20, 30, 40, 60))


def test_count_edits_counts_a_shape_with_its_labels_once():
    result = [
        _region("a", "ink", "brush") | {"origin": "prediction"},
        _region("a", "what", "labels") | {"origin": "prediction"},
        _region("b", "box", "rectanglelabels") | {"origin": "manual"},
        {"type": ["brush"]},
    ]
    assert count_edits(result, ["a", "c"]) == EditCounts(kept=1, added=1, removed=1)


@pytest.mark.parametrize(
    ("region", "expected"),
    [
        pytest.param({"type": "brushlabels", "origin": "prediction"}, False, id="brush"),
        pytest.param({"type": "rectanglelabels", "origin": "manual"}, True, id="rectangle"),
        pytest.param({"type": "rectangle"}, True, id="rectangle of a pair"),
        pytest.param({"type": "ellipselabels", "origin": "prediction"}, True, id="ellipse as predicted"),
        pytest.param({"type": "ellipselabels", "origin": "prediction-changed"}, False, id="ellipse changed"),
        pytest.param({"type": 7}, False, id="no type"),
    ],
)
def test_is_approximate_boxes_only(region, expected):
    assert is_approximate([{"type": "polygonlabels"}, region]) is expected
