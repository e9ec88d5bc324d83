"""Which segments of a prediction are drawn: by the version, by what annotators kept, by a person."""

import numpy as np
import pytest

from maskloop.learning.evaluation.calibration import ScoreCalibration
from maskloop.learning.evaluation.showing import HIDDEN, Showing
from maskloop.types import Prediction, Segment, ShowMode
from maskloop_studio.formats.controls import TaskImage
from maskloop_studio.formats.label_config import parse_label_config
from maskloop_studio.projects.prediction_plan import ProjectOptions, ProjectPlan

CONFIG = (
    '<View><Image name="image" value="$image"/><BrushLabels name="brush" toName="image">'
    '<Label value="Car"/><Label value="Tree"/></BrushLabels></View>'
)
HALF = ScoreCalibration(slope=1.0, shift=-2.0, segments=50)  # a score of .9 becomes .55
SCORES = (("Car", 0.9), ("Car", 0.6), ("Tree", 0.9), ("Tree", 0.6))


def plan(settings, *, showing=None, kept_floors=None, options=None):
    return ProjectPlan(
        settings=settings,
        options=ProjectOptions.model_validate(options or {}),
        config=parse_label_config(CONFIG),
        model_labels=("Car", "Tree"),
        model_version="v1",
        showing=showing,
        kept_floors=kept_floors or {},
    )


def prediction():
    mask_hw = np.ones((4, 4), np.bool_)
    segments = [
        Segment(mask_hw=mask_hw, offset_yx=(0, 4 * place), label=label, score=score)
        for place, (label, score) in enumerate(SCORES)
    ]
    return Prediction(segments=tuple(segments), size_hw=(8, 40), confidence=0.5)


def drawn(project_plan):
    shown = project_plan.of_project.shown(prediction())
    return "".join(f"{one.label[0]}{one.score:.1f} " for one in shown.segments).strip()


ALL = "C0.9 C0.6 T0.9 T0.6"
HIDE_TREE = Showing(floors={"Car": 0.7, "Tree": HIDDEN}, images=3)
HIDE_ALL = Showing(floors={"Car": HIDDEN, "Tree": HIDDEN}, images=3)
CASES = [
    pytest.param({}, ALL, id="an older version draws all"),
    pytest.param({"showing": HIDE_TREE}, "C0.9", id="floors of the version"),
    pytest.param({"showing": HIDE_TREE, "options": {"show": "all"}}, ALL, id="a person wants all"),
    pytest.param({"options": {"show": "none"}}, "", id="a person wants none"),
    pytest.param(
        {"showing": HIDE_TREE, "options": {"label_thresholds": {"Tree": 0.5}}},
        "C0.9 T0.9 T0.6",
        id="a person's threshold of a label wins",
    ),
    pytest.param({"kept_floors": {"Car": 0.7}}, "C0.9 T0.9 T0.6", id="annotators kept the sure ones"),
    pytest.param({"kept_floors": {"Car": HIDDEN}}, "T0.9 T0.6", id="annotators kept none"),
    pytest.param(
        {"showing": Showing(calibration=HALF), "kept_floors": {"Car": 0.5}},
        "C0.9 T0.9 T0.6",
        id="what annotators kept is of the score that they saw",
    ),
    pytest.param({"showing": HIDE_ALL, "kept_floors": {"Car": 0.1}}, "", id="floors add up"),
]


@pytest.mark.parametrize(("known", "expected"), CASES)
def test_shown_leaves_out_what_is_not_worth_drawing(settings, known, expected):
    assert drawn(plan(settings, **known)) == expected


def test_why_empty_only_where_all_is_hidden_by_plan(settings):
    assert "draws nothing" in plan(settings, showing=HIDE_ALL).why_empty
    assert plan(settings, showing=HIDE_TREE).why_empty is None
    assert plan(settings, showing=HIDE_ALL, options={"show": "all"}).why_empty is None
    none = settings.model_copy(update={"show": ShowMode.NONE})
    assert "MASKLOOP_SHOW" in plan(none).why_empty


def test_regions_have_the_calibrated_score_in_the_same_order(settings):
    project_plan = plan(settings, showing=Showing(calibration=HALF)).of_project
    image = TaskImage(to_name="image", address="a", item_index=None)
    regions = project_plan.regions(prediction(), model_version="v1", task_id=1, image=image)
    scores = [region["score"] for region in regions]
    assert scores == pytest.approx([HALF.apply(score) for _, score in SCORES], abs=1e-4)
    assert scores[0] == pytest.approx(1 / (1 + np.exp(2) / 9), abs=1e-4)
