"""Whether unlabelled images are learnt from, by the gains of a few folds, and how long that holds."""

import dataclasses
import json

import numpy as np
import pytest

from maskloop.learning.pool_verdict import FoldScores, PoolSubject, PoolVerdict, judge_folds
from maskloop.types import SegmentationTask

SUBJECT = PoolSubject(base="tiny", classes=("disc", "star"), task="instance", wanted=100, images=16)


def folds(*gains, without=0.0):
    return tuple(
        FoldScores(images=5, without=without, with_pool=without + gain, pool_images=90, seconds=2.0)
        for gain in gains
    )


def verdict(**changes):
    values = {
        "use": True,
        "gain": 0.03,
        "needed": 0.02,
        "folds": folds(0.02, 0.04),
        "start": "m-v1",
        "teacher": "m-v1",
        "subject": SUBJECT,
        "training": "training-5",
    }
    return PoolVerdict(**(values | changes))


@pytest.mark.parametrize(
    ("gains", "use"),
    [
        pytest.param((0.05, 0.04, 0.06), True, id="helps in each fold"),
        pytest.param((0.09, 0.05, -0.01), True, id="helps, one fold loses a little"),
        pytest.param((-0.05, -0.04, -0.06), False, id="hurts"),
        pytest.param((0.0, 0.0, 0.0), False, id="changes nothing"),
        pytest.param((0.015, 0.02, 0.018), False, id="within what the order of the views makes"),
        pytest.param((0.02, 0.02), False, id="as much, not more"),
        pytest.param((0.20, -0.05, -0.05), False, id="one fold alone, within the folds' own spread"),
        pytest.param((0.03, 0.03), True, id="two folds"),
    ],
)
def test_judge_folds_asks_for_more_than_chance(gains, use):
    assert judge_folds(folds(*gains))[0] is use


def plain_rule(gains):
    """The same, written down number by number."""
    total = 0.0
    for gain in gains:
        total += gain
    mean = total / len(gains)
    squares = sum((gain - mean) * (gain - mean) for gain in gains)
    error = (squares / (len(gains) - 1)) ** 0.5 / len(gains) ** 0.5
    return mean > 0.02 and mean > error, mean, error if error > 0.02 else 0.02


@pytest.mark.parametrize("count", [2, 3, 5])
def test_judge_folds_agrees_with_a_plain_version(count):
    rng = np.random.default_rng(count)
    used = 0
    for _ in range(300):
        gains = [float(gain) for gain in rng.normal(0.02, 0.03, count)]
        use, gain, needed = judge_folds(folds(*gains))
        expected = plain_rule(gains)
        assert use is expected[0]
        assert (gain, needed) == (pytest.approx(expected[1]), pytest.approx(expected[2]))
        used += use
    assert 50 < used < 250, "both answers occur"


@pytest.mark.parametrize("gains", [(), (0.5,)])
def test_judge_folds_too_few_raises(gains):
    with pytest.raises(ValueError, match=f"at least 2 folds, got {len(gains)}"):
        judge_folds(folds(*gains))


@pytest.mark.parametrize(
    ("changes", "holds"),
    [
        pytest.param({}, True, id="the same"),
        pytest.param({"classes": ("star", "disc")}, True, id="classes in another order"),
        pytest.param({"images": 23}, True, id="not grown by half"),
        pytest.param({"images": 24}, False, id="grown by half"),
        pytest.param({"images": 10}, False, id="shrunk by a third"),
        pytest.param({"classes": ("disc",)}, False, id="a label gone from the label config"),
        pytest.param({"classes": ("disc", "star", "cat")}, False, id="a new label"),
        pytest.param({"base": "other"}, False, id="another base"),
        pytest.param({"task": "panoptic"}, False, id="another task"),
        pytest.param({"wanted": 50}, False, id="another pool"),
    ],
)
def test_verdict_holds_for_as_long_as_little_changes(changes, holds):
    assert verdict().holds_for(dataclasses.replace(SUBJECT, **changes)) is holds


def test_subject_counts_an_image_once(make_correction):
    train = [make_correction(image_key=key * 64, annotation_id=number) for number, key in enumerate("aab")]
    subject = PoolSubject.of(
        train, base="tiny", classes=["disc", "star"], task=SegmentationTask.INSTANCE, wanted=100
    )
    assert subject == dataclasses.replace(SUBJECT, images=2)


def test_verdict_is_read_again_from_an_outcome():
    stored = json.loads(json.dumps(verdict().as_json()))
    assert PoolVerdict.from_json(stored) == verdict()
    assert stored["seconds"] == 4.0
    assert stored["text"] == (
        "unlabelled images gain in the project's cross-validation: +0.030 of score on 10 annotated images "
        "in 2 folds (+0.020, +0.040), more than 0.020 is needed; started from m-v1, pseudo-labels by m-v1, "
        "measured by training-5 with 16 annotated images"
    )
    assert "do not gain enough" in verdict(use=False).in_words()


@pytest.mark.parametrize("name", ["use", "folds", "subject", "needed"])
def test_verdict_that_is_damaged_is_none(name):
    stored = verdict().as_json()
    assert PoolVerdict.from_json({key: value for key, value in stored.items() if key != name}) is None
    assert PoolVerdict.from_json(stored | {name: [7] if name != "use" else None}) is None or name == "use"
    assert PoolVerdict.from_json(None) is None
    assert PoolVerdict.from_json("gain") is None
