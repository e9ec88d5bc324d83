"""Which contexts are prompts, which ask for nothing, and which are refused."""

import json
import math

import numpy as np
import pytest

from maskloop.errors import CodecError
from maskloop.types import Prediction, Segment
from maskloop_studio.serving.prompts import Prompt, keep_prompted, read_prompts

CLICK = {"type": "keypointlabels", "value": {"x": 50, "y": 50, "width": 1}}
BOX = {"type": "rectanglelabels", "value": {"x": 10, "y": 20, "width": 30, "height": 40}}


def _click(**value):
    return {"result": [{"type": "keypointlabels", "value": {"x": 50, "y": 50, "width": 1} | value}]}


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
def test_read_prompts_context_that_asks_for_nothing_is_plain(context):
    assert read_prompts(context) == ()


def test_read_prompts_clicks_and_boxes_are_read():
    region = CLICK | {"to_name": "ir", "item_index": 2}
    assert read_prompts({"result": [region, BOX]}) == (
        Prompt(x=50.0, y=50.0, to_name="ir", item_index=2),
        Prompt(x=10.0, y=20.0, width=30.0, height=40.0),
    )


@pytest.mark.parametrize(
    ("context", "words"),
    [
        *(
            pytest.param({"event": event}, "params.context.event", id=event)
            for event in ("capabilities", "prewarm", "release", "track", "track_progress", "track_cancel")
        ),
        pytest.param({"event": "prewarm", "result": [CLICK]}, "context.event", id="event with a click"),
        pytest.param({"event": 7}, "context.event", id="event is a number"),
        pytest.param({"event": "predict", "positive": [[1, 2]]}, "context.result", id="the newer prompt"),
        pytest.param({"result": {"x": 1}}, "a list of at most", id="regions are an object"),
        pytest.param({"result": [CLICK] * 1001}, "1001", id="too many"),
        pytest.param({"result": ["click"]}, r"result\[0\]", id="region is a text"),
        pytest.param({"result": [{"type": "keypoint"}]}, r"result\[0\]", id="region without a value"),
        pytest.param(_click(x=math.nan), r"value\.x.*nan", id="NaN"),
        pytest.param(json.loads('{"result":[{"value":{"x":1e999,"y":1}}]}'), r"value\.x.*inf", id="1e999"),
        pytest.param(_click(y=-math.inf), r"value\.y", id="minus infinity"),
        pytest.param(_click(x="50"), r"value\.x", id="a text"),
        pytest.param(_click(x=True), r"value\.x", id="a boolean"),
        pytest.param(_click(y=None), r"value\.y.*none", id="null"),
        pytest.param(_click(x=10**400), r"value\.x", id="beyond floats"),
        pytest.param(
            {"result": [BOX | {"value": BOX["value"] | {"width": math.nan}}]}, r"value\.width", id="NaN width"
        ),
        pytest.param({"result": [{"type": "brush", "value": {"rle": [1]}}]}, r"value\.x", id="a brush"),
    ],
)
def test_read_prompts_what_is_not_understood_is_refused(context, words):
    with pytest.raises(CodecError, match=words):
        read_prompts(context)


def _prediction():
    return Prediction(
        segments=(
            Segment(mask_hw=np.ones((10, 10), bool), offset_yx=(0, 0), label="all"),
            Segment(mask_hw=np.ones((4, 4), bool), offset_yx=(4, 4), label="small"),
        ),
        size_hw=(10, 10),
        confidence=0.5,
    )


@pytest.mark.parametrize(
    ("prompt", "labels"),
    [
        pytest.param(Prompt(x=50, y=50), ["small"], id="click on both keeps the smaller"),
        pytest.param(Prompt(x=10, y=10), ["all"], id="click on one"),
        pytest.param(Prompt(x=100, y=100), [], id="click on the far border"),
        pytest.param(Prompt(x=-1, y=50), [], id="click left of the image"),
        pytest.param(Prompt(x=1e300, y=1e300), [], id="click far away"),
        pytest.param(Prompt(x=55, y=55, width=10, height=10), ["small"], id="box around a centre"),
        pytest.param(Prompt(x=0, y=0, width=100, height=100), ["all", "small"], id="box around all"),
    ],
)
def test_keep_prompted_segments_that_are_meant(prompt, labels):
    kept = keep_prompted(_prediction(), [prompt])
    assert [segment.label for segment in kept.segments] == labels
