"""Pseudo-labels: what is learnt, ignored and left out; made once, and only by a version that can."""

import numpy as np
import pytest
from PIL import Image

from maskloop.errors import StoreError
from maskloop.learning.data import pseudo_labels
from maskloop.learning.data.pseudo_labels import PoolUse, describe_pool, pseudo_examples, why_no_pool
from maskloop.segmentation.postprocess import Thresholds
from maskloop.types import Prediction, Segment, SegmentationTask


@pytest.fixture
def label(tmp_path, monkeypatch):
    """Return a function that labels one image on which a teacher finds some (label, score)."""
    path = tmp_path / "image.png"
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(path)
    asked = []

    def call(found, *, labels=("car", "bus"), thresholds=None, floors=None, images=(path,)):
        def predict(_teacher, read, *, task, thresholds):
            asked.append(thresholds)
            assert task is SegmentationTask.INSTANCE
            segments = tuple(
                Segment(mask_hw=np.ones((2, 2), bool), offset_yx=(0, 2 * place), label=name, score=score)
                for place, (name, score) in enumerate(found)
            )
            return [Prediction(segments=segments, size_hw=(8, 8), confidence=1.0)] * len(read)

        monkeypatch.setattr(pseudo_labels, "predict_images", predict)
        return pseudo_examples(
            None,
            images,
            labels=labels,
            thresholds=thresholds or Thresholds(),
            floors=floors or {},
            kept_in=tmp_path / "kept.json",
        )

    call.asked = asked
    return call


@pytest.mark.parametrize(
    ("found", "changes", "sure", "unsure"),
    [
        ([("car", 0.9), ("car", 0.5), ("bus", 0.49)], {}, ["car", "car"], ["bus"]),
        ([("car", 0.9), ("bus", 0.9)], {"floors": {"bus": 0.95}}, ["car"], ["bus"]),
        ([("car", 0.9), ("bus", 0.9)], {"floors": {"bus": 2.0}}, ["car"], ["bus"]),
        ([("car", 0.4)], {"floors": {"car": 0.2}}, [], ["car"]),  # a floor never lowers the threshold
        ([("car", 0.4), ("bus", 0.4)], {"thresholds": Thresholds(score=0.3)}, ["car", "bus"], []),
        (
            [("car", 0.6), ("bus", 0.6)],
            {"thresholds": Thresholds(score_of_label={"bus": 0.7})},
            ["car"],
            ["bus"],
        ),
        ([("car", 0.9), ("tree", 0.9), ("tree", 0.2)], {}, ["car"], []),  # a class that is not learnt
        ([("car", 0.3), ("bus", 0.2)], {}, [], ["car", "bus"]),
        ([], {}, None, None),
    ],
)
def test_segments_are_learnt_ignored_or_left_out(label, found, changes, sure, unsure):
    examples = label(found, **changes)
    if sure is None:
        assert examples == ()
        return
    (example,) = examples
    assert example.guessed
    assert [one.label for one in example.segments] == sure
    assert [one.label for one in example.ignored] == unsure
    assert {one.score for one in example.segments} <= {1.0}
    assert describe_pool(examples) == PoolUse(images=1, objects=len(sure), unsure=len(unsure))


def test_teacher_is_asked_for_what_it_is_unsure_of(label):
    label([("car", 0.9)], thresholds=Thresholds(score=0.5, score_of_label={"car": 0.8}, part=0.02))
    (asked,) = label.asked
    assert (asked.score_for("car"), asked.part) == (0.1, 0.02)


def test_labels_are_made_once(label):
    first = label([("car", 0.9), ("bus", 0.3)])
    second = label([("bus", 0.9)])
    assert len(label.asked) == 1
    for one, other in zip(first, second, strict=True):
        assert (one.key, one.image) == (other.key, other.image)
        assert [(part.label, part.offset_yx) for part in one.segments] == [
            (part.label, part.offset_yx) for part in other.segments
        ]
        assert np.array_equal(one.ignored[0].mask_hw, other.ignored[0].mask_hw)


@pytest.mark.parametrize("text", ["", "[{}]", '[{"image": "a.png", "segments": "x", "ignored": "[]"}]', "3"])
def test_damaged_file_names_its_remedy(label, tmp_path, text):
    (tmp_path / "kept.json").write_text(text)
    with pytest.raises(StoreError, match=r"kept\.json|stored segments"):
        label([("car", 0.9)])


@pytest.mark.parametrize(
    ("task", "known", "classes", "floors", "why"),
    [
        ("instance", ("car", "bus"), ("car",), {}, None),
        ("instance", ("car",), ("car", "bus"), {}, "does not know bus"),
        ("instance", ("car", "bus"), ("car", "bus"), {"car": 2.0}, None),
        ("instance", ("car", "bus"), ("car", "bus"), {"car": 2.0, "bus": 2.0}, "worth showing"),
        ("semantic", ("car",), ("car",), {}, "semantic"),
        ("panoptic", ("car",), ("car",), {}, "panoptic"),
    ],
)
def test_only_a_version_that_can_label_does(task, known, classes, floors, why):
    found = why_no_pool(SegmentationTask(task), known=known, classes=classes, floors=floors)
    assert found is None if why is None else why in found


def test_nothing_is_described_as_nothing():
    assert describe_pool(()) is None
