"""Which contexts are prompts, which ask for nothing, and which are refused."""

import json
import math

import numpy as np
import pytest

from maskloop.errors import CodecError, MaskloopError
from maskloop.interactive.prompt import Click
from maskloop_studio.formats import encode_brush
from maskloop_studio.serving.prompts import object_prompts, read_interaction

SIZE = {"original_width": 80, "original_height": 60}
CLICK = {"type": "keypointlabels", "value": {"x": 50, "y": 50, "width": 1, "keypointlabels": ["Car"]}}
BOX = {
    "type": "rectanglelabels",
    "value": {"x": 10, "y": 20, "width": 30, "height": 40, "rectanglelabels": ["Car"]},
}


def _click(**value):
    return {"result": [{"type": "keypointlabels", "value": {"x": 50, "y": 50, "width": 1} | value}]}


def _prompts(*regions):
    return object_prompts(read_interaction({"result": list(regions)}).regions)


@pytest.mark.parametrize(
    "context",
    [
        pytest.param(None, id="none"),
        pytest.param({}, id="the label-studio-ml 2.x host's empty one"),
        pytest.param({"result": []}, id="no regions"),
        pytest.param({"result": None}, id="null regions"),
        pytest.param({"user": {"id": 1}}, id="a key of others"),
        pytest.param({"event": None}, id="null event"),
    ],
)
def test_read_interaction_context_that_asks_for_nothing_is_plain(context):
    assert read_interaction(context) is None


@pytest.mark.parametrize("event", ["prewarm", "release", "capabilities"])
def test_read_interaction_events_of_the_newer_protocol_are_known(event):
    assert read_interaction({"event": event, "frame": 0}).event == event


def test_read_interaction_regions_name_their_image_sign_and_label():
    region = CLICK | {"to_name": "ir", "item_index": 2, "is_positive": False}
    (one,) = read_interaction({"result": [region]}).regions
    assert (one.to_name, one.item_index, one.is_positive, one.label) == ("ir", 2, False, "Car")


def test_read_interaction_newer_prompts_have_their_sign_inside_and_no_labels():
    points = [
        {"type": "keypointlabels", "value": {"x": 9, "y": 8, "positive": sign}} for sign in (True, False)
    ]
    interaction = read_interaction({"frame": 0, "result": points})
    assert not interaction.has_labels
    assert [one.is_positive for one in interaction.regions] == [True, False]


def test_object_prompts_clicks_and_box_of_one_label_are_one_object():
    (one,) = _prompts(CLICK, CLICK | {"is_positive": False}, BOX)
    assert one.label == "Car"
    assert one.prompt.clicks == (Click(x=0.5, y=0.5), Click(x=0.5, y=0.5, is_positive=False))
    assert one.prompt.box_xyxy == pytest.approx((0.1, 0.2, 0.4, 0.6))


def test_object_prompts_labels_and_boxes_are_objects_of_their_own():
    other = BOX | {"value": BOX["value"] | {"x": 50}}
    tree = CLICK | {"value": CLICK["value"] | {"keypointlabels": ["Tree"]}}
    assert [one.label for one in _prompts(BOX, other, tree)] == ["Car", "Car", "Tree"]


def test_object_prompts_label_in_an_item_of_its_own_is_found():
    point = {"id": "a", "type": "keypoint", "value": {"x": 5, "y": 5, "width": 1}}
    named = {"id": "a", "type": "labels", "value": point["value"] | {"labels": ["Car"]}}
    (one,) = _prompts(point, named)
    assert (one.label, len(one.prompt.clicks)) == ("Car", 1)


AREA = np.zeros((60, 80), dtype=np.bool_)
AREA[12:36, 8:32] = True


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        pytest.param("brush", {"format": "rle", "rle": encode_brush(AREA)}, id="brush"),
        pytest.param("polygon", {"points": [[10, 20], [40, 20], [40, 60], [10, 60]]}, id="polygon"),
        pytest.param("ellipse", {"x": 25, "y": 40, "radiusX": 17, "radiusY": 23}, id="ellipse"),
        pytest.param(
            "rectangle",
            {"x": 40, "y": 20, "width": 30, "height": 40, "rotation": 90},
            id="turned rectangle",
        ),
    ],
)
def test_object_prompts_drawn_regions_are_areas(kind, value):
    (one,) = _prompts(SIZE | {"type": f"{kind}labels", "value": value})
    area_hw = one.prompt.area_hw
    assert np.sum(area_hw & AREA) / np.sum(area_hw | AREA) > 0.7


def test_object_prompts_negative_region_is_forbidden():
    negative = SIZE | BOX | {"is_positive": False}
    (one,) = _prompts(CLICK, negative)
    assert one.prompt.box_xyxy is None
    assert np.sum(one.prompt.forbidden_hw ^ AREA) == 0


@pytest.mark.parametrize(
    ("context", "words"),
    [
        *(
            pytest.param({"event": event}, "params.context.event", id=event)
            for event in ("track", "track_progress", "track_cancel")
        ),
        pytest.param({"event": 7}, "context.event", id="event is a number"),
        pytest.param({"event": "predict", "positive": [[1, 2]]}, "context.result", id="no regions"),
        pytest.param({"result": {"x": 1}}, "a list of at most", id="regions are an object"),
        pytest.param({"result": [CLICK] * 10_000}, "10000", id="10,000 points"),
        pytest.param({"result": [CLICK] * 101}, "at most 100 clicks", id="more clicks than one object has"),
        pytest.param({"result": ["click"]}, r"result\[0\]", id="region is a text"),
        pytest.param({"result": [{"type": "keypoint"}]}, r"result\[0\]", id="region without a value"),
        pytest.param(_click(x=math.nan), r"value\.x.*nan", id="NaN"),
        pytest.param(json.loads('{"result":[{"value":{"x":1e999,"y":1}}]}'), r"value\.x.*inf", id="1e999"),
        pytest.param(_click(y=-math.inf), r"value\.y", id="minus infinity"),
        pytest.param(_click(x="50"), r"value\.x", id="a text"),
        pytest.param(_click(x=True), r"value\.x", id="a boolean"),
        pytest.param(_click(y=None), r"value\.y.*none", id="null"),
        pytest.param(_click(x=10**400), r"value\.x", id="beyond floats"),
        pytest.param(_click(x=101), "inside the image", id="right of the image"),
        pytest.param(_click(y=-3), "inside the image", id="above the image"),
        pytest.param(
            {"result": [BOX | {"value": BOX["value"] | {"width": math.nan}}]}, r"value\.width", id="NaN width"
        ),
        pytest.param(
            {"result": [BOX | {"value": BOX["value"] | {"width": 0}}]}, "area above zero", id="no area"
        ),
        pytest.param(
            {"result": [CLICK | {"is_positive": False}]}, "click on the object first", id="negative alone"
        ),
        pytest.param(
            {"result": [SIZE | {"type": "brush", "value": {"rle": [1]}}]}, r"result\[0\]", id="damaged brush"
        ),
        pytest.param(
            {"result": [{"type": "polygon", "value": {"points": [[1, 1]]}}]}, "area", id="one corner"
        ),
    ],
)
def test_prompts_what_is_not_understood_is_refused(context, words):
    with pytest.raises(MaskloopError, match=words):
        object_prompts(read_interaction(context).regions)


def test_read_interaction_refusal_names_the_place():
    with pytest.raises(CodecError, match=r"params\.context"):
        read_interaction({"event": "dance"})
