"""What the simulated annotator does to predicted regions."""

import random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from maskloop.masks import mask_to_segment, segment_iou
from maskloop.types import EditCounts, Prediction, Segment
from maskloop_studio.demo.annotator import AnnotatedTask, SimulatedAnnotator, correct_regions
from maskloop_studio.formats import Region, annotation_to_segments, prediction_to_regions
from maskloop_studio.formats.label_config import map_labels, parse_label_config

SIZE_HW = (60, 80)
CONFIG = parse_label_config(
    '<View><Image name="img" value="$image"/><BrushLabels name="brush" toName="img"><Label value="Car"/>'
    '<Label value="Tree"/></BrushLabels><PolygonLabels name="poly" toName="img"><Label value="Car"/>'
    '<Label value="House"/></PolygonLabels></View>'
)


def disc(y: int, x: int, radius: int, label: str = "Car") -> Segment:
    rows, columns = np.mgrid[: SIZE_HW[0], : SIZE_HW[1]]
    segment = mask_to_segment(np.hypot(rows - y, columns - x) <= radius, label=label)
    assert segment is not None
    return segment


def predict(*segments: Segment) -> list[Region]:
    prediction = Prediction(segments=segments, size_hw=SIZE_HW, confidence=0.5)
    return prediction_to_regions(prediction, map_labels(CONFIG, ["Car", "Tree", "House"]), id_seed="1:v1")


def correct(predicted: list[Region], *truth: Segment, polygon_share: float = 0.0) -> list[Region]:
    return correct_regions(
        predicted, truth, config=CONFIG, size_hw=SIZE_HW, rng=random.Random(0), polygon_share=polygon_share
    )


@pytest.mark.parametrize(
    ("predicted", "truth", "origins"),
    [
        ([], [], []),
        ([disc(30, 30, 12)], [disc(30, 30, 12)], ["prediction"]),
        ([disc(30, 30, 12)], [disc(33, 30, 12)], ["prediction-changed"]),
        ([disc(30, 30, 12)], [disc(30, 30, 12, "Tree")], ["prediction-changed"]),
        ([disc(30, 30, 12)], [disc(30, 30, 12, "House")], ["manual"]),
        ([disc(30, 20, 12)], [disc(30, 60, 12)], ["manual"]),
        ([disc(30, 20, 12)], [], []),
        ([], [disc(30, 20, 12)], ["manual"]),
        ([disc(30, 20, 9, "House")], [disc(32, 20, 9, "House")], ["prediction-changed"]),
    ],
    ids=[
        "empty",
        "right",
        "moved",
        "wrong label",
        "tool lacks label",
        "elsewhere",
        "nothing there",
        "missed",
        "ring",
    ],
)
def test_correct_regions_origin_says_what_was_done(
    predicted: list[Segment], truth: list[Segment], origins: list[str]
) -> None:
    result = correct(predict(*predicted), *truth)
    assert [region["origin"] for region in result] == origins
    found = annotation_to_segments(result, CONFIG).segments
    assert [segment.label for segment in found] == [segment.label for segment in truth]
    assert all(segment_iou(*pair) > 0.9 for pair in zip(found, truth, strict=True))


def test_correct_regions_kept_region_is_untouched() -> None:
    predicted = predict(disc(30, 30, 12))
    assert correct(predicted, disc(30, 30, 12)) == [{**predicted[0], "origin": "prediction"}]


def test_correct_regions_changed_region_keeps_id_and_score() -> None:
    predicted = predict(disc(30, 30, 12))
    changed = correct(predicted, disc(33, 30, 12))[0]
    assert (changed["id"], changed["score"]) == (predicted[0]["id"], predicted[0]["score"])
    assert changed["value"]["rle"] != predicted[0]["value"]["rle"]


def test_correct_regions_two_claim_one_object_second_is_removed() -> None:
    result = correct(predict(disc(30, 30, 12), disc(31, 30, 12)), disc(30, 30, 12))
    assert [region["origin"] for region in result] == ["prediction"]


def test_correct_regions_polygon_share_chooses_the_tool() -> None:
    drawn = correct([], disc(30, 30, 12), polygon_share=1.0)
    assert [region["type"] for region in drawn] == ["polygonlabels"]
    assert len(drawn[0]["id"]) == 10


def test_correct_regions_object_in_parts_is_drawn_with_the_brush() -> None:
    rows, columns = np.mgrid[: SIZE_HW[0], : SIZE_HW[1]]
    parts = mask_to_segment((abs(columns - 40) > 10) & (rows > 20) & (rows < 40), label="Car")
    assert parts is not None
    drawn = correct([], parts, polygon_share=1.0)
    assert [region["type"] for region in drawn] == ["brushlabels"]


class StudioOfOneTask:
    """The calls of Label Studio's API that an annotator makes."""

    def __init__(self, *predicted: Segment) -> None:
        self.sent: dict[str, Any] = {}
        self._prediction = {"id": 5, "model_version": "v1", "result": predict(*predicted)}

    def task(self, task_id: int) -> SimpleNamespace:
        return SimpleNamespace(id=task_id, project_id=1)

    def project(self, project_id: int) -> SimpleNamespace:
        return SimpleNamespace(id=project_id, model_version="v1")

    def predictions_of(self, task_id: int) -> list[dict[str, Any]]:
        return [self._prediction]

    def create_annotation(self, task_id: int, body: dict[str, Any]) -> dict[str, int]:
        self.sent = body
        return {"id": 70}


def annotated(predicted: list[Segment], *truth: Segment) -> AnnotatedTask:
    studio: Any = StudioOfOneTask(*predicted)
    return SimulatedAnnotator(studio).annotate(7, truth, size_hw=SIZE_HW, config=CONFIG)


def test_annotate_counts_edits_by_geometry_and_fragments_by_the_truth() -> None:
    pieces = [disc(20, 30, 6, "Tree"), disc(32, 30, 6, "Tree"), disc(30, 65, 10)]
    done = annotated(pieces, disc(26, 30, 14, "Tree"), disc(32, 65, 10))
    assert (done.regions_drawn, done.objects, done.fragments) == (3, 2, 2)
    assert done.edits.predicted == 3
    assert done.edits.submitted == 2
    assert (done.edits.kept, done.edits.redrawn) == (0, 1)


def test_annotate_right_prediction_is_kept_whole() -> None:
    done = annotated([disc(30, 30, 12)], disc(30, 30, 12))
    assert done.edits == EditCounts(kept=1)
    assert (done.regions_drawn, done.objects, done.fragments) == (1, 1, 0)
