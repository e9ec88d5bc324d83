"""The judge of the fault test finds what it is there to find."""

import dataclasses
from datetime import UTC, datetime

import pytest

from .killer import plan_strikes
from .processes import VICTIMS
from .studio_view import Said, StudioView
from .verdict import differences, file_faults, prediction_faults

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
