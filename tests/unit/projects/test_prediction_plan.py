"""Settings, then extra_params, then the label config say how a project is predicted."""

import pytest

from maskloop.errors import LabelConfigError
from maskloop.types import SegmentationTask
from maskloop_studio.formats.label_config import parse_label_config
from maskloop_studio.projects.prediction_plan import ProjectOptions, parse_options, plan_prediction

CONFIG = (
    '<View{view}><Image name="image" value="$image"/><BrushLabels name="brush" toName="image"{brush}>'
    '<Label value="Car"/></BrushLabels></View>'
)


def _plan(settings, options=None, *, view="", brush=""):
    config = parse_label_config(CONFIG.format(view=view, brush=brush))
    return plan_prediction(settings, options or ProjectOptions(), config, ("Car", "Tree"), model_version="v1")


def test_plan_prediction_nothing_said_is_the_settings(settings):
    plan = _plan(settings)
    assert plan.task is SegmentationTask.INSTANCE
    assert (plan.thresholds.score, plan.thresholds.part) == (0.5, settings.part_threshold)


def test_plan_prediction_options_win_over_settings(settings):
    plan = _plan(settings, parse_options({"task": "panoptic", "score_threshold": 0.2}))
    assert (plan.task, plan.thresholds.score) == (SegmentationTask.PANOPTIC, 0.2)


def test_plan_prediction_label_config_names_the_task(settings):
    plan = _plan(settings, parse_options({"task": "panoptic"}), view=' maskloop_task="semantic"')
    assert plan.task is SegmentationTask.SEMANTIC


def test_plan_prediction_control_threshold_counts_for_its_classes(settings):
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
