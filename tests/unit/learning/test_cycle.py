"""From corrections to examples: classes, rules, and what does not teach."""

import pytest

from maskloop.errors import TrainingError
from maskloop.learning.cycle import train_and_judge
from maskloop.learning.data.training_set import LabelPlan, to_examples
from maskloop.segmentation.postprocess import Thresholds
from maskloop.settings import Settings
from maskloop.store.images import ImageCache
from maskloop.testing.memory import MemoryRegistry
from maskloop.types import ModelVersion, SegmentationTask


def test_label_plan_alias_keeps_the_class_and_new_labels_are_added():
    plan = LabelPlan(labels=("Auto", "Tree", "Wagen"), class_of_label={"Auto": "car", "Wagen": "car"})
    assert plan.classes == ("car", "Tree")
    assert plan.class_for("Wagen") == "car"


def _train(settings, tmp_path, *corrections):
    return train_and_judge(
        ModelVersion(name="m", number=1, path=tmp_path / "none", labels=("disc",)),
        train=corrections,
        holdout=(),
        plan=LabelPlan(labels=("disc",), class_of_label={}),
        image_cache=ImageCache(tmp_path / "images"),
        registry=MemoryRegistry(tmp_path / "registry"),
        settings=settings,
        task=SegmentationTask.INSTANCE,
        thresholds=Thresholds(),
        key="training-1",
        work_dir=tmp_path / "work",
    )


def test_train_and_judge_nothing_to_learn_from_says_what_to_do(settings, tmp_path):
    with pytest.raises(TrainingError, match="at least one correction"):
        _train(settings, tmp_path)


def test_train_and_judge_boxes_do_not_teach(settings, tmp_path, make_correction):
    with pytest.raises(TrainingError, match="masks instead of boxes"):
        _train(settings, tmp_path, make_correction(approximate=True))


def test_label_plan_without_ignored_labels_has_no_class_for_them():
    plan = LabelPlan(labels=("disc", "unclear"), class_of_label={})
    assert plan.without({"unclear"}).classes == ("disc",)


def test_examples_ignored_labels_become_areas_and_new_versions_are_fresh(
    settings, tmp_path, make_correction, make_segment
):
    said = (make_segment(label="disc"), make_segment(label="unclear"))
    corrections = [make_correction(version_id=number, segments=said) for number in (1, 2)]
    plan = LabelPlan(labels=("disc",), class_of_label={"disc": "circle"})
    asked = Settings(home=settings.home, ignore_labels=frozenset({"unclear"}))
    old, new = to_examples(corrections, plan, ImageCache(tmp_path), asked, {1})
    assert [segment.label for segment in old.segments] == ["circle"]
    assert [segment.label for segment in old.ignored] == ["unclear"]
    assert (old.fresh, new.fresh) == (False, True)
