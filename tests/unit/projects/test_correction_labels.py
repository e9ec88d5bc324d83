"""Labels of stored corrections against a label config that has changed since."""

import pytest

from maskloop.learning.data.training_set import LabelPlan
from maskloop.types import UNLABELLED
from maskloop_studio.projects.correction_labels import add_correction_labels, match_correction_labels

CONFIG = (
    '<View><Image name="image" value="$image"/><BrushLabels name="b" toName="image">'
    '<Label value="circle_new" predicted_values="round"/><Label value="Square"/></BrushLabels></View>'
)


def _labels(parts):
    return [[segment.label for one in part for segment in one.segments] for part in parts]


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        pytest.param("circle_new", "circle_new", id="exact"),
        pytest.param("square", "Square", id="another case"),
        pytest.param("round", "circle_new", id="alias"),
        pytest.param("disc", "circle_new", id="renamed by the setting"),
        pytest.param("void", "void", id="ignored label"),
        pytest.param(UNLABELLED, UNLABELLED, id="unlabelled"),
        pytest.param("triangle", UNLABELLED, id="unknown"),
    ],
)
def test_match_correction_labels_finds_the_label(settings, make_correction, make_segment, label, expected):
    changes = {"label_renames": {"disc": "circle_new"}, "ignore_labels": frozenset({"void"})}
    correction = make_correction(segments=(make_segment(label=label),))
    matched = match_correction_labels(
        [correction], label_config=CONFIG, settings=settings.model_copy(update=changes)
    )
    assert _labels(matched) == [[expected]]


def test_match_correction_labels_names_unknown_ones_once(settings, make_correction, make_segment, caplog):
    train = [make_correction(segments=(make_segment(label="disc"), make_segment(label="Square")))] * 2
    holdout = [make_correction(segments=(make_segment(label="disc"),))]
    matched = match_correction_labels(train, holdout, label_config=CONFIG, settings=settings)
    assert _labels(matched) == [[UNLABELLED, "Square"] * 2, [UNLABELLED]]
    (record,) = caplog.records
    assert "labels_unknown" in record.getMessage()
    assert "disc (3)" in record.getMessage()
    assert "MASKLOOP_LABEL_RENAMES" in record.getMessage()


def test_match_correction_labels_of_each_task_stay(settings, make_correction, make_segment):
    config = '<View><Image name="i" value="$i"/><BrushLabels name="b" toName="i" value="$options"/></View>'
    correction = make_correction(segments=(make_segment(label="a label of one task"),))
    ((matched,),) = match_correction_labels([correction], label_config=config, settings=settings)
    assert matched is correction


def test_add_correction_labels_adds_what_the_config_lacks(settings, make_correction, make_segment):
    correction = make_correction(segments=[make_segment(label=label) for label in ("kite", "Disc", "a", "")])
    plan = add_correction_labels(
        LabelPlan(labels=("a",), class_of_label={"a": "ring"}),
        [correction],
        model_labels=("disc", "ring"),
        settings=settings,
    )
    assert plan.labels == ("a", "Disc", "kite")
    assert plan.classes == ("ring", "disc", "kite")
