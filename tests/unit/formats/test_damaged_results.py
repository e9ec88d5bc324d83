"""Damaged results: only CodecError leaves the reader, and a drawn region never reads as "nothing here"."""

import copy
import json
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskloop.errors import CodecError
from maskloop.masks import mask_to_segment
from maskloop.types import UNLABELLED, Prediction
from maskloop_studio.formats import (
    annotation_reader,
    annotation_to_segments,
    map_labels,
    parse_label_config,
    prediction_to_regions,
)
from maskloop_studio.formats.controls import GEOMETRY_KINDS

TAGS = {"keypoint": "KeyPoint"}
TOOLS = "".join(
    f'<{TAGS.get(kind, kind.title())}Labels name="{kind}" toName="image"><Label value="Car"/>'
    f"</{TAGS.get(kind, kind.title())}Labels>"
    for kind in GEOMETRY_KINDS
)
CONFIG = parse_label_config(f'<View><Image name="image" value="$image"/>{TOOLS}</View>')
SIZE = (20, 30)
MASK = np.zeros(SIZE, dtype=bool)
MASK[4:15, 6:25] = True


def _regions():
    prediction = Prediction(
        segments=(mask_to_segment(MASK, label="Car", score=0.5),), size_hw=SIZE, confidence=0.5
    )
    label_map = map_labels(CONFIG, ["Car"], prefer="both")
    return json.loads(json.dumps(prediction_to_regions(prediction, label_map, id_seed="v1/7")))


REGIONS = _regions()
JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**12), 10**12),
    st.floats(),
    st.text(max_size=8),
    st.lists(st.integers(0, 300), max_size=6),
    st.dictionaries(st.sampled_from(["x", "y", "rle", "points"]), st.integers(0, 9), max_size=3),
)
KEYS = sorted({key for region in REGIONS for key in region})
VALUE_KEYS = sorted({key for region in REGIONS for key in region["value"]})


@settings(deadline=None, max_examples=400)
@given(
    kind=st.integers(0, len(REGIONS) - 1),
    key=st.sampled_from([*KEYS, *(f"value.{key}" for key in VALUE_KEYS)]),
    junk=JUNK,
)
def test_annotation_to_segments_one_damaged_field_is_never_nothing_here(kind, key, junk):
    region = copy.deepcopy(REGIONS[kind])
    holder = region["value"] if key.startswith("value.") else region
    holder[key.removeprefix("value.")] = junk
    content = annotation_to_segments([region], CONFIG, size_hw=SIZE)
    assert content.segments or content.set_aside or content.other_answers
    assert content.set_aside is None or content.refusals or content.notes


@pytest.mark.parametrize("kind", GEOMETRY_KINDS)
def test_annotation_to_segments_other_key_order_and_extra_keys_change_nothing(kind):
    (region,) = [region for region in REGIONS if region["from_name"] == kind]
    shuffled = dict(reversed(region.items())) | {
        "meta": {"text": ["hello"]},
        "readonly": True,
        "hidden": False,
    }
    first, second = (annotation_to_segments([item], CONFIG) for item in (region, shuffled))
    assert [s.area for s in first.segments] == [s.area for s in second.segments]
    assert (second.refusals, second.regions_here) == ((), 1)


@pytest.mark.parametrize(
    ("bound", "limit", "kind"),
    [
        pytest.param("MAX_DECODED_PIXELS", 3 * 600, "brush", id="decoded brushes"),
        pytest.param("MAX_DECODED_PIXELS", 3 * 600, "bitmask", id="decoded bitmasks"),
        pytest.param("MAX_CROP_PIXELS", 3 * 209, "rectangle", id="masks"),
    ],
)
def test_annotation_to_segments_too_many_pixels_raises(bound, limit, kind, monkeypatch):
    (region,) = [region for region in REGIONS if region["from_name"] == kind]
    monkeypatch.setattr(annotation_reader, bound, limit)
    three = [region | {"id": f"r{index}"} for index in range(3)]
    assert len(annotation_to_segments(three, CONFIG).segments) == 3
    with pytest.raises(CodecError, match="split the annotation"):
        annotation_to_segments([*three, region], CONFIG)


def test_annotation_to_segments_thousand_boxes_of_a_large_image_raise_within_the_bound():
    (region,) = [region for region in REGIONS if region["from_name"] == "rectangle"]
    whole = region["value"] | {"x": 0, "y": 0, "width": 100, "height": 100, "rotation": 0}
    large = region | {"original_width": 2000, "original_height": 2000, "value": whole}
    tracemalloc.start()
    try:
        with pytest.raises(CodecError, match="masks of at most 400000000 pixels"):
            annotation_to_segments([large | {"id": f"r{n}"} for n in range(1000)], CONFIG)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak_bytes < 500_000_000


def test_annotation_to_segments_joined_corners_are_bounded(monkeypatch):
    (region,) = [region for region in REGIONS if region["from_name"] == "rectangle"]
    corners = [(0, 0), (90, 90)]
    pair = [
        region | {"id": f"r{index}", "value": region["value"] | {"x": x, "y": y, "width": 9, "height": 9}}
        for index, (x, y) in enumerate(corners)
    ]
    relation = {"type": "relation", "from_id": "r0", "to_id": "r1"}
    monkeypatch.setattr(annotation_reader, "MAX_CROP_PIXELS", 100)
    assert len(annotation_to_segments(pair, CONFIG).segments) == 2
    with pytest.raises(CodecError, match="split the annotation"):
        annotation_to_segments([*pair, relation], CONFIG)


def test_annotation_to_segments_faint_mask_of_many_values_is_an_area_of_no_class():
    sdk = pytest.importorskip("label_studio_sdk.converter.brush")
    levels = (MASK * np.arange(MASK.size).reshape(SIZE) % 100).astype(np.uint8)
    (region,) = [region for region in REGIONS if region["from_name"] == "brush"]
    region = region | {"value": {"rle": sdk.encode_rle(np.repeat(levels.ravel(), 4)), "brushlabels": ["Car"]}}
    content = annotation_to_segments([region], CONFIG, size_hw=SIZE)
    (refusal,), (segment,) = content.refusals, content.segments
    assert (refusal.area_known, segment.label, content.set_aside) == (True, UNLABELLED, None)
    assert "which are all below 128" in str(refusal)
    assert segment.area == np.count_nonzero(levels)


def test_annotation_to_segments_colours_without_alpha_are_no_empty_mask():
    sdk = pytest.importorskip("label_studio_sdk.converter.brush")
    rgba_hwc = MASK[..., None] * np.array([0, 255, 0, 0], dtype=np.uint8)
    (region,) = [region for region in REGIONS if region["from_name"] == "brush"]
    region = region | {"value": {"rle": sdk.encode_rle(rgba_hwc.ravel()), "brushlabels": ["Car"]}}
    content = annotation_to_segments([region], CONFIG, size_hw=SIZE)
    assert "an alpha of 0 everywhere" in str(content.set_aside)
