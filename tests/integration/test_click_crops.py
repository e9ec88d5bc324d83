"""Clicks on a small object through the whole server: the second one is answered from a crop."""

import base64
import io
import logging
import re
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from fastapi.testclient import TestClient
from label_studio_sdk.converter.brush import decode_rle
from PIL import Image
from tests.benchmarks.click_trials import next_click
from tests.waiting import until

from maskloop.lab.synthetic.shapes import SHAPE_CLASSES, make_image
from maskloop.masks import paste_segment
from maskloop.settings import BASE_MODEL
from maskloop_studio.serving.app import create_app

LABELS = "".join(f'<Label value="{name}"/>' for name in SHAPE_CLASSES)
CONFIG = (
    f'<View><Image name="image" value="$image"/><BrushLabels name="brush" toName="image">{LABELS}'
    "</BrushLabels></View>"
)
MADE = make_image(10_000_004, size_hw=(128, 128), domain="shifted")  # the second object is 28 pixels long


@pytest.fixture
def make_client(make_services):
    opened = []

    def make(**changes):
        services = make_services(model=str(BASE_MODEL), **changes)
        client = TestClient(create_app(services))
        opened.append(client.__enter__())
        return client, services

    yield make
    for client in opened:
        client.__exit__(None, None, None)


@pytest.fixture
def log(caplog):
    caplog.set_level(logging.INFO)
    return caplog


def _data_uri(image):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _answer(client, clicks, image=MADE.image_hwc):
    """Return the mask that Label Studio would show for clicks on an object of an image."""
    height, width = image.shape[:2]
    regions = [
        {
            "type": "keypointlabels",
            "value": {
                "x": 100 * one.x,
                "y": 100 * one.y,
                "width": 1,
                "keypointlabels": [MADE.segments[1].label],
            },
            "is_positive": one.is_positive,
            "original_width": width,
            "original_height": height,
        }
        for one in clicks
    ]
    task = {"id": 1, "data": {"image": _data_uri(image)}}
    body = {"tasks": [task], "label_config": CONFIG, "params": {"context": {"result": regions}}}
    (entry,) = client.post("/predict", json=body).json()["results"]
    mask_hw = np.zeros((height, width), dtype=np.bool_)
    for region in entry["result"]:
        assert region["value"]["brushlabels"] == [MADE.segments[1].label]
        mask_hw |= decode_rle(region["value"]["rle"]).reshape(height, width, 4)[..., 3] > 0
    return mask_hw


def _facts(log, action):
    """Return what the lines of an action say of tiers and crops."""
    lines = [line for line in log.messages if line.startswith(action)]
    return [tuple(re.findall(r"(?:tiers|crops)=(\S+)", line)) for line in lines]


def _click_twice(client, log):
    """Return the IoU after each of two clicks in the middle of the largest error, and the clicks."""
    truth_hw = paste_segment(MADE.segments[1], MADE.image_hwc.shape[:2])
    answer_hw, clicks, ious = np.zeros_like(truth_hw), [], []
    for _ in range(2):
        clicks.append(next_click(truth_hw, answer_hw, np.zeros(2)))
        answer_hw = _answer(client, clicks)
        ious.append((answer_hw & truth_hw).sum() / (answer_hw | truth_hw).sum())
        if len(clicks) == 1 and _facts(log, "click_answered")[-1][1] == "begun":
            until(lambda: any(line.startswith("crop_looked_at") for line in log.messages))
    return ious, clicks, answer_hw


def test_second_click_on_a_small_object_is_answered_from_its_crop(make_client, log):
    client, _ = make_client()
    ious, clicks, answer_hw = _click_twice(client, log)
    assert _facts(log, "click_answered") == [("click_query", "begun"), ("crop", "used")]
    assert ious[1] > 0.95
    for one in clicks:
        assert answer_hw[one.cell(answer_hw.shape)] == one.is_positive


def test_crops_that_are_switched_off_are_not_looked_at(make_client, log):
    client, services = make_client(click_crops=False)
    ious, _, _ = _click_twice(client, log)
    assert _facts(log, "click_answered") == [("click_query", "none")] * 2
    assert ious[1] < 0.8, "else this object shows nothing"
    assert len(services.looks._cache) == 1


def test_crop_is_dropped_by_a_promotion_and_not_used_for_other_content(make_client, log):
    client, services = make_client()
    _, clicks, _ = _click_twice(client, log)
    other = MADE.image_hwc[::-1].copy()
    _answer(client, clicks, other)
    assert "crop" not in _facts(log, "click_answered")[-1][0]
    services.looks.drop_model(str(BASE_MODEL))  # what a promotion calls
    assert len(services.looks._cache) == 0
    _answer(client, clicks)
    assert _facts(log, "click_answered")[-1][1] == "begun"


def test_clicks_of_many_people_meanwhile_are_answered_and_never_wait_for_a_crop(make_client, log):
    client, services = make_client()
    submit, held = services.engine.submit, []

    def hold_crops(images, **given):
        if images[0].window is not None:
            held.append(time.monotonic())
            until(lambda: len(_facts(log, "click_answered")) >= 25)
        return submit(images, **given)

    services.engine.submit = hold_crops
    truth_hw = paste_segment(MADE.segments[1], MADE.image_hwc.shape[:2])
    first = next_click(truth_hw, np.zeros_like(truth_hw), np.zeros(2))
    _answer(client, [first])
    images = [np.roll(MADE.image_hwc, shift, axis=1) for shift in range(6)]
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda n: _answer(client, [first], images[n % 6]), range(24)))
    assert held, "the crops began before, and were not done before the last click"
    assert all(answer_hw.any() for answer_hw in answers)
    until(lambda: any(line.startswith("crop_looked_at") for line in log.messages))
    assert {tiers for tiers, _ in _facts(log, "click_answered")} <= {"click_query", "query", "embedding"}
