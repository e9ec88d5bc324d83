"""The judge of the fault test finds what it is there to find."""

import dataclasses
import json
import random
from datetime import UTC, datetime

import pytest

from maskloop.types import Correction
from maskloop_studio.formats import TaskImage, annotation_to_segments
from maskloop_studio.formats.label_config import parse_label_config

from .annotators import damaged
from .killer import plan_strikes
from .processes import VICTIMS
from .studio_view import Said, StudioView, canonical
from .verdict import differences, file_faults, mask_faults, prediction_faults, set_aside_faults

SAID = Said(
    annotation_id=1, task_id=7, updated_at=datetime(2026, 1, 2, tzinfo=UTC), state="submitted", result="[]"
)


@pytest.mark.parametrize(
    ("studio", "kept", "kind"),
    [
        pytest.param({1: SAID}, {}, "lost", id="lost"),
        pytest.param({}, {1: SAID}, "left behind", id="left behind"),
        pytest.param({1: SAID}, {1: dataclasses.replace(SAID, state="skipped")}, "out of date", id="state"),
        pytest.param({1: SAID}, {1: dataclasses.replace(SAID, result="[1]")}, "out of date", id="regions"),
        pytest.param({1: SAID}, {1: dataclasses.replace(SAID, task_id=8)}, "out of date", id="task"),
    ],
)
def test_differences_one_fault_is_found_once(studio, kept, kind):
    found = differences(studio, kept)
    assert {name: len(faults) for name, faults in found.items() if faults} == {kind: 1}


def test_differences_same_on_both_sides_is_nothing():
    assert not any(differences({1: SAID}, {1: SAID}).values())


def _region(page=0, **fields):
    return {"id": "r", "item_index": page, "to_name": "image", "from_name": "polygon"} | fields


def _view(**rows):
    said = {
        number: dataclasses.replace(SAID, annotation_id=number, **row)
        for number, row in ((int(name[1:]), row) for name, row in rows.items())
    }
    return StudioView(
        said=said,
        predictions={},
        unlabelled=frozenset(),
        shown_version="",
        pages={7: ["/a.png", "/b.png"]},
    )


GOOD, BAD = canonical([_region()]), canonical([_region(), _region(1, id="damaged-1")])


@pytest.mark.parametrize(
    ("row", "set_aside", "fault"),
    [
        pytest.param({"result": BAD}, {1: "why"}, None, id="unreadable and set aside"),
        pytest.param({"result": GOOD}, {}, None, id="readable"),
        pytest.param({"result": BAD, "state": "skipped"}, {}, None, id="unreadable and skipped"),
        pytest.param({"result": BAD}, {}, "not set aside", id="not set aside"),
        pytest.param({"result": GOOD}, {1: "why"}, "can be read: why", id="mended, still set aside"),
        pytest.param({"result": GOOD}, {2: "why"}, "can be read: why", id="unknown"),
    ],
)
def test_set_aside_faults_are_found_both_ways(row, set_aside, fault):
    faults = set_aside_faults(_view(_1=row).said, set_aside)
    assert [fault in one for one in faults] == ([True] if fault else [])


POINTS = {"points": [[10, 10], [60, 10], [60, 60]], "polygonlabels": ["square"]}
ON_TWO = canonical(
    [
        _region(page, type="polygonlabels", value=POINTS, original_width=64, original_height=64)
        for page in (0, 1)
    ]
)
CONFIG = parse_label_config(
    '<View><Image name="image" valueList="$pages"/><PolygonLabels name="polygon" toName="image">'
    '<Label value="square"/></PolygonLabels></View>'
)


def _correction(page, **fields):
    image = TaskImage(to_name="image", item_index=page, address="")
    content = annotation_to_segments(json.loads(ON_TWO), CONFIG, size_hw=(64, 64), image=image)
    return Correction(
        project_id=1,
        task_id=7,
        annotation_id=1,
        updated_at=SAID.updated_at,
        image_key="0" * 64,
        size_hw=(64, 64),
        **{"segments": content.segments, "image_uri": ("/a.png", "/b.png")[page]} | fields,
    )


@pytest.mark.parametrize(
    ("corrections", "faults"),
    [
        pytest.param({(1, 0): _correction(0), (1, 1): _correction(1)}, [], id="both images"),
        pytest.param({(1, 0): _correction(0)}, ["image 1: no masks"], id="one is missing"),
        pytest.param(
            {(1, 0): _correction(0), (1, 1): _correction(1), (1, 2): _correction(1)},
            ["image 2: masks of nothing"],
            id="one too many",
        ),
        pytest.param(
            {(1, 0): _correction(0), (1, 1): _correction(1, image_uri="/a.png")},
            ["image 1: its masks lie on /a.png"],
            id="on the wrong image",
        ),
        pytest.param(
            {(1, 0): _correction(0), (1, 1): _correction(1, segments=_correction(1).segments * 2)},
            ["image 1: its masks are not those of its regions"],
            id="other masks",
        ),
    ],
)
def test_mask_faults_of_a_task_with_two_images(corrections, faults):
    found = mask_faults(_view(_1={"result": ON_TWO}), corrections, CONFIG)
    assert [one.partition(", ")[2] for one in found] == faults


@pytest.mark.parametrize("masks", [{}, {(1, 0): _correction(0)}], ids=["none", "some"])
def test_mask_faults_unreadable_annotation_has_none(masks):
    assert len(mask_faults(_view(_1={"result": BAD}), masks, CONFIG)) == len(masks)


def test_damaged_regions_are_set_aside_by_the_reader():
    regions = json.loads(ON_TWO)
    for seed in range(8):
        bad = damaged(regions, random.Random(seed))
        assert not dataclasses.replace(SAID, result=canonical(bad)).is_readable
        image = TaskImage(to_name="image", item_index=0, address="")
        assert annotation_to_segments(bad, CONFIG, size_hw=(64, 64), image=image).set_aside


def test_prediction_faults_missing_and_double_are_found():
    view = StudioView(
        said={},
        predictions={1: ["v2"], 2: ["v1"], 3: ["v2", "v2"], 4: ["v1", "v1"]},  # 4 is annotated
        unlabelled=frozenset({1, 2, 3}),
        shown_version="v1",
    )
    found = prediction_faults(view, "v2")
    assert [len(found[kind]) for kind in ("predictions missing", "predictions twice", "shown version")] == [
        1,
        1,
        1,
    ]


def test_file_faults_half_an_image_is_found(tmp_path):
    path = tmp_path / "images" / "00" / ("0" * 64)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"half")
    assert len(list(file_faults(tmp_path))) == 1


def test_plan_strikes_same_seed_same_plan_and_every_victim():
    plan = plan_strikes(7, 20, mean_s=1.0)
    assert plan == plan_strikes(7, 20, mean_s=1.0)
    assert {strike.victim for strike in plan if strike.pause_s is None} == set(VICTIMS)
    assert sum(strike.pause_s is None for strike in plan) == 20
