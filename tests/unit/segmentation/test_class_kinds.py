"""Things and stuff: which source decides, and two segments of stuff become one."""

from __future__ import annotations

import pytest
from tests.fakes.models import two_areas_checkpoint

from maskloop.segmentation.class_kinds import (
    ADE20K_STUFF,
    CITYSCAPES_STUFF,
    CITYSCAPES_THINGS,
    COCO_STUFF,
    ClassKinds,
    published_stuff,
    stuff_classes,
)
from maskloop.segmentation.postprocess import Thresholds
from maskloop.segmentation.predict import predict_images
from maskloop.types import SegmentationTask

LABELS = ("sky", "cat", "road", "dog")
ALL = frozenset(range(4))

CASES = {
    "checkpoint names things": ({1, 3}, (), ClassKinds(), {"sky", "road"}),
    "no source names any": (ALL, ALL, ClassKinds(), set()),
    "setting": (ALL, ALL, ClassKinds(setting=frozenset({"sky"})), {"sky"}),
    "setting over checkpoint": (ALL, (), ClassKinds(setting=frozenset({"sky"})), {"sky"}),
    "config stuff": (ALL, ALL, ClassKinds(config_stuff=frozenset({"road"})), {"road"}),
    "config things over setting": (
        {1},
        (),
        ClassKinds(config_things=frozenset({"sky"}), setting=frozenset({"sky"})),
        {"road", "dog"},
    ),
    "observed where nothing else says": (ALL, ALL, ClassKinds(observed={"sky": True, "cat": False}), {"sky"}),
    "checkpoint over observed": (ALL, (), ClassKinds(observed={"sky": True}), set()),
    "unknown labels": (ALL, ALL, ClassKinds(setting=frozenset({"sea"}), observed={"sea": True}), set()),
}


@pytest.mark.parametrize(("thing_ids", "undeclared", "kinds", "expected"), CASES.values(), ids=CASES)
def test_stuff_classes_first_source_that_names_a_label_decides(
    thing_ids: set[int], undeclared: frozenset[int], kinds: ClassKinds, expected: set[str]
) -> None:
    assert stuff_classes(LABELS, thing_ids, undeclared_ids=undeclared, kinds=kinds) == expected


def test_class_kinds_label_of_two_kinds_raises() -> None:
    with pytest.raises(ValueError, match=r"got two for \['sky'\]"):
        ClassKinds(config_stuff=frozenset({"sky"}), config_things=frozenset({"sky"}))


PUBLISHED = {
    "coco": ([*sorted(COCO_STUFF), "person", "cat"], COCO_STUFF),
    "ade20k": ([*sorted(ADE20K_STUFF), "bed"], ADE20K_STUFF),
    "cityscapes": ([*CITYSCAPES_STUFF, *CITYSCAPES_THINGS], CITYSCAPES_STUFF),
    "cityscapes capitals": (
        [name.title() for name in (*CITYSCAPES_STUFF, *CITYSCAPES_THINGS)],
        CITYSCAPES_STUFF,
    ),
}


@pytest.mark.parametrize(("labels", "stuff"), PUBLISHED.values(), ids=PUBLISHED)
def test_published_stuff_of_a_known_data_set(labels: list[str], stuff: frozenset[str]) -> None:
    found = published_stuff(labels)
    assert found is not None
    assert {label.lower() for label in found} == stuff


def test_published_stuff_sizes_are_the_papers() -> None:
    assert [len(stuff) for stuff in (COCO_STUFF, ADE20K_STUFF, CITYSCAPES_STUFF)] == [53, 50, 11]


def test_published_stuff_long_and_other_names_of_ade20k() -> None:
    others = {"road": "road, route", "pool": "swimming pool", "falls": "waterfall", "sky": "sky "}
    found = published_stuff([others.get(name, name) for name in ADE20K_STUFF])
    assert found is not None
    assert set(others.values()) <= found


@pytest.mark.parametrize("labels", [("sky", "person", "road"), (), ("disc",)], ids=["few", "none", "own"])
def test_published_stuff_of_other_labels_is_unknown(labels: tuple[str, ...]) -> None:
    assert published_stuff(labels) is None


@pytest.mark.parametrize(
    ("kinds", "segments"),
    [
        (ClassKinds(), 2),
        (ClassKinds(setting=frozenset({"sky"})), 1),
        (ClassKinds(config_stuff=frozenset({"sky"})), 1),
    ],
    ids=["thing", "setting", "label config"],
)
def test_predict_images_panoptic_stuff_is_one_segment(kinds: ClassKinds, segments: int, make_image) -> None:
    (prediction,) = predict_images(
        two_areas_checkpoint(("sky", "circle", "square")),
        [make_image()],
        task=SegmentationTask.PANOPTIC,
        thresholds=Thresholds(kinds=kinds),
    )
    assert [segment.label for segment in prediction.segments] == ["sky"] * segments
