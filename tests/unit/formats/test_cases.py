"""The table of cases in `cases/`: what each `result` must become."""

import base64
import io
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from label_studio_sdk.converter import brush as sdk
from PIL import Image

from maskloop.masks import paste_segment
from maskloop_studio.formats import (
    TaskImage,
    annotation_to_segments,
    config_for_task,
    parse_label_config,
)

CASES = Path(__file__).parent / "cases"


def _cases():
    for path in sorted(CASES.glob("*.json")):
        book = json.loads(path.read_text())
        for case in book["cases"]:
            yield pytest.param(
                {"config": book.get("config"), **case}, id=f"{path.stem}: {case['name']}".replace("::", ":")
            )


def _paint(size_hw, shape):
    canvas_hw = np.zeros(size_hw, dtype=np.uint8)
    for left, top, right, bottom in shape.get("rectangles", ()):
        canvas_hw[top:bottom, left:right] = 1
    if "polygon" in shape:
        corners = np.array(shape["polygon"], dtype=np.float64)
        # Corners are pixel edges; OpenCV counts from the middle of a pixel, in 1/16 of it.
        cv2.fillPoly(canvas_hw, [np.rint((corners - 0.5) * 16).astype(np.int32)], 1, shift=4)
    return canvas_hw.astype(bool)


def _expand(value, size_hw):
    """Replace `$brush` and `$png` by what they stand for."""
    if isinstance(value, list):
        return [_expand(item, size_hw) for item in value]
    if not isinstance(value, dict):
        return value
    if "$brush" in value:
        mask_hw = _paint(value.get("size", size_hw), {"rectangles": value["$brush"]})
        levels = mask_hw.astype(np.uint8) * np.uint8(value.get("alpha", 255))
        return sdk.encode_rle(np.repeat(levels.ravel(), 4))
    if "$png" in value:
        mask_hw = _paint(value.get("size", size_hw), {"rectangles": value["$png"]})
        front, back = value.get("front", [0, 0, 0, 255]), value.get("back", [0, 0, 0, 0])
        file = io.BytesIO()
        pixels = np.where(mask_hw[..., None], front, back).astype(np.uint8)
        Image.fromarray(pixels.squeeze(), mode=value.get("mode", "RGBA")).save(file, format="PNG")
        return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
    return {key: _expand(item, size_hw) for key, item in value.items()}


def _read(case, size_hw):
    config = config_for_task(parse_label_config(case["config"]), case.get("data", {}))
    image = TaskImage(
        to_name=case.get("to_name", config.image_name), item_index=case.get("item_index"), address="/x.png"
    )
    return annotation_to_segments(
        _expand(case["result"], size_hw),
        config,
        size_hw=size_hw,
        image=image,
        label_renames=case.get("renames", {}),
    )


def _check_words(found, expected):
    assert len(found) == len(expected), found
    for text, words in zip(found, expected, strict=True):
        assert words in text


@pytest.mark.parametrize("case", list(_cases()))
def test_annotation_to_segments_case_becomes_what_it_says(case):
    width, height = (int(side) for side in case["image"].split("x"))
    content, expect = _read(case, (height, width)), case["expect"]
    _check_words([str(refusal) for refusal in content.refusals], expect.get("refusals", []))
    _check_words(content.notes, expect.get("notes", []))
    _check_words([content.set_aside or ""], [expect.get("set_aside", "")])
    assert bool(content.set_aside) == ("set_aside" in expect)
    assert content.unknown_labels == expect.get("unknown_labels", {})
    assert content.other_answers == expect.get("other_answers", False)
    assert [s.label for s in content.segments] == [s["label"] for s in expect.get("segments", [])]
    for segment, shape in zip(content.segments, expect.get("segments", []), strict=True):
        found_hw, wanted_hw = paste_segment(segment, (height, width)), _paint((height, width), shape)
        shared = np.count_nonzero(found_hw & wanted_hw) / max(1, np.count_nonzero(found_hw | wanted_hw))
        assert shared >= shape.get("iou", 1.0)


def test_cases_have_names_of_their_own():
    names = [case.id for case in _cases()]
    assert len(names) == len(set(names)) > 60
