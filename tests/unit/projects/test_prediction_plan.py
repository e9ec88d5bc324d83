"""Settings, then extra_params, then the label config say how a project is predicted."""

import numpy as np
import pytest
from tests.fakes.models import two_areas_checkpoint

from maskloop.errors import LabelConfigError
from maskloop.segmentation.predict import predict_images
from maskloop.types import SegmentationTask
from maskloop_studio.formats.label_config import parse_label_config
from maskloop_studio.projects.prediction_plan import ProjectOptions, ProjectPlan, parse_options

CONFIG = (
    '<View{view}><Image name="image" value="$image"/><BrushLabels name="brush" toName="image"{brush}>'
    '<Label value="Car"/></BrushLabels></View>'
)


def _plan(settings, options=None, *, view="", brush=""):
    config = parse_label_config(CONFIG.format(view=view, brush=brush))
    return ProjectPlan(
        settings=settings,
        options=options or ProjectOptions(),
        config=config,
        model_labels=("Car", "Tree"),
        model_version="v1",
    ).of_project


def test_of_project_nothing_said_is_the_settings(settings):
    plan = _plan(settings)
    assert plan.task is SegmentationTask.INSTANCE
    assert (plan.thresholds.score, plan.thresholds.part) == (0.5, settings.part_threshold)


def test_of_project_options_win_over_settings(settings):
    plan = _plan(settings, parse_options({"task": "panoptic", "score_threshold": 0.2}))
    assert (plan.task, plan.thresholds.score) == (SegmentationTask.PANOPTIC, 0.2)


def test_of_project_label_config_names_the_task(settings):
    plan = _plan(settings, parse_options({"task": "panoptic"}), view=' maskloop_task="semantic"')
    assert plan.task is SegmentationTask.SEMANTIC


def test_of_project_control_threshold_counts_for_its_classes(settings):
    plan = _plan(settings, brush=' model_score_threshold="0.3"')
    assert dict(plan.thresholds.score_of_label) == {"Car": 0.3}
    again = _plan(
        settings, parse_options({"label_thresholds": {"Car": 0.7}}), brush=' model_score_threshold="0.3"'
    )
    assert dict(again.thresholds.score_of_label) == {"Car": 0.7}


@pytest.mark.parametrize("nothing", [None, {}, {"a": 1}])
def test_parse_options_nothing_of_ours_is_empty(nothing):
    assert parse_options(nothing) == ProjectOptions()


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param({"task": "boxes"}, id="unknown task"),
        pytest.param({"score_threshold": 2}, id="over one"),
        pytest.param("panoptic", id="not an object"),
    ],
)
def test_parse_options_wrong_value_is_refused(wrong):
    with pytest.raises(LabelConfigError, match="extra_params"):
        parse_options(wrong)


@pytest.mark.parametrize(
    ("kinds", "stuff", "things"),
    [
        pytest.param(("", ""), set(), set(), id="not marked"),
        pytest.param(("stuff", ""), {"sky-other-merged", "sky"}, set(), id="stuff"),
        pytest.param(("", "thing"), set(), {"Car"}, id="thing"),
        pytest.param(("stuff", "thing"), {"sky-other-merged", "sky"}, {"Car"}, id="both"),
    ],
)
def test_plan_kinds_of_labels_become_kinds_of_the_models_classes(settings, kinds, stuff, things):
    sky, car = (f' maskloop_kind="{kind}"' if kind else "" for kind in kinds)
    config = parse_label_config(
        '<View><Image name="image" value="$image"/><BrushLabels name="brush" toName="image">'
        f'<Label value="sky" predicted_values="sky-other-merged"{sky}/><Label value="Car"{car}/>'
        "</BrushLabels></View>"
    )
    plan = ProjectPlan(
        settings=settings,
        options=ProjectOptions(),
        config=config,
        model_labels=("Car", "Tree", "sky-other-merged", "sky"),
        model_version="v1",
    ).of_project
    assert plan.thresholds.kinds.config_stuff == stuff
    assert plan.thresholds.kinds.config_things == things


@pytest.mark.parametrize("model_labels", [("Car",), ("disc",)], ids=["other labels", "no label matches"])
def test_plan_kinds_of_labels_that_the_model_lacks_keep_the_labels_name(settings, model_labels):
    config = parse_label_config(
        '<View><Image name="image" value="$image"/><BrushLabels name="brush" toName="image">'
        '<Label value="sky" maskloop_kind="stuff"/><Label value="Car"/></BrushLabels></View>'
    )
    plan = _plan_of(settings, config, model_labels)
    assert plan.thresholds.kinds.config_stuff == {"sky"}


@pytest.mark.parametrize(
    ("kind", "setting", "segments"),
    [
        pytest.param("", [], 2, id="thing"),
        pytest.param(' maskloop_kind="stuff"', [], 1, id="label config"),
        pytest.param("", ["sky"], 1, id="setting"),
        pytest.param(' maskloop_kind="thing"', ["sky"], 2, id="label config over setting"),
    ],
)
def test_plan_kind_of_a_label_decides_how_many_segments_are_served(settings, kind, setting, segments):
    config = parse_label_config(
        '<View maskloop_task="panoptic"><Image name="image" value="$image"/>'
        f'<BrushLabels name="brush" toName="image"><Label value="sky"{kind}/></BrushLabels></View>'
    )
    plan = _plan_of(
        settings.model_copy(update={"stuff_labels": frozenset(setting)}), config, ("sky", "ground")
    )
    (prediction,) = predict_images(
        two_areas_checkpoint(("sky", "ground")),
        [np.zeros((48, 64, 3), np.uint8)],
        task=plan.task,
        thresholds=plan.thresholds,
    )
    assert [segment.label for segment in prediction.segments] == ["sky"] * segments


def _plan_of(settings, config, model_labels):
    return ProjectPlan(
        settings=settings,
        options=ProjectOptions(),
        config=config,
        model_labels=model_labels,
        model_version="v1",
    ).of_project
