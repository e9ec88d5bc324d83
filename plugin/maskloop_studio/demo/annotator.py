"""A simulated annotator: corrects tasks through Label Studio's API with the request that its editor sends.

What a browser submits was recorded: untouched regions go back with `origin: "prediction"`, edited ones keep
their id as "prediction-changed", drawn ones are "manual", deleted ones are missing.
"""

from __future__ import annotations

import random
import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from maskloop.errors import StudioError
from maskloop.learning.evaluation.fragments import count_fragments
from maskloop.learning.evaluation.region_edits import compare_segments
from maskloop.masks import segment_iou
from maskloop.types import EditCounts, Segment
from maskloop_studio.formats import Region, annotation_to_segments, segment_to_regions
from maskloop_studio.formats.label_config import Control, LabelConfig, LabelTarget, parse_label_config
from maskloop_studio.labelstudio.client import StudioClient

__all__ = ["AnnotatedTask", "SimulatedAnnotator", "correct_regions"]

KEEP_IOU = 0.9  # good enough to be left alone
EDIT_IOU = 0.3  # worth mending rather than drawing anew
ID_LETTERS = string.ascii_letters + string.digits + "_-"
ID_LENGTH = 10
# A model of effort, in seconds; the demonstration reports edits, not these.
LOOK_S, KEEP_S, CHANGE_S, ADD_S, REMOVE_S = 3.0, 0.5, 8.0, 15.0, 2.0


@dataclass(frozen=True, kw_only=True)
class AnnotatedTask:
    """One submitted annotation."""

    annotation_id: int
    edits: EditCounts  # by geometry
    seconds: float  # the lead time that was sent, after a model of effort
    regions_drawn: int  # objects of the prediction that the annotator began with
    objects: int  # that are really on the image
    fragments: int  # of the predicted ones, see `count_fragments`
    prediction_id: int | None  # what was corrected


@dataclass(frozen=True, kw_only=True, eq=False)
class _Object:
    """The predicted regions that draw one object."""

    regions: tuple[Region, ...]
    segment: Segment


class SimulatedAnnotator:
    """Knows the truth and brings what the model predicted up to it; the same seed acts the same."""

    def __init__(self, client: StudioClient, seed: int = 0, *, polygon_share: float = 0.3) -> None:
        """Args:
        client: Label Studio, as the annotator's account.
        seed: of ids, choices of tools and lead times.
        polygon_share: of newly drawn objects, where the label config has both tools.
        """
        self._client = client
        self._seed = seed
        self._polygon_share = polygon_share

    def annotate(
        self,
        task_id: int,
        truth: Sequence[Segment],
        *,
        size_hw: tuple[int, int],
        config: LabelConfig | None = None,
    ) -> AnnotatedTask:
        """Correct the prediction that a task shows, submit, and return the counts of edits.

        Args:
            task_id: Label Studio's number.
            truth: what is really on the image; labels that the config does not have are not drawn.
            size_hw: of the upright image.
            config: the project's label config, read from the project when not given.

        Raises:
            StudioError: no such task, or Label Studio refuses.
        """
        task = self._client.task(task_id)
        if task is None:
            raise StudioError(f"task {task_id}", expected="a task", got="none", remedy="choose another task")
        project = self._client.project(task.project_id)
        config = config or parse_label_config(project.label_config)
        prediction = self._shown_prediction(task_id, project.model_version)
        predicted: list[Region] = prediction["result"] if prediction else []
        rng = random.Random(f"{self._seed}:{task_id}")
        result = correct_regions(
            predicted, truth, config=config, size_hw=size_hw, rng=rng, polygon_share=self._polygon_share
        )
        shown = annotation_to_segments(predicted, config, size_hw=size_hw).segments
        submitted = annotation_to_segments(result, config, size_hw=size_hw).segments
        edits = sum(compare_segments(shown, submitted).values(), EditCounts())
        seconds = round(_effort_s(edits) * rng.uniform(0.8, 1.25), 3)
        stored = self._client.create_annotation(
            task_id,
            {
                "lead_time": seconds,
                "result": result,
                "draft_id": 0,
                "parent_prediction": prediction["id"] if prediction else None,
                "parent_annotation": None,
                "started_at": (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat(),
                "project": str(task.project_id),
            },
        )
        return AnnotatedTask(
            annotation_id=int(stored["id"]),
            edits=edits,
            seconds=seconds,
            prediction_id=int(prediction["id"]) if prediction else None,
            regions_drawn=len(shown),
            objects=len(truth),
            fragments=count_fragments(shown, truth),
        )

    def _shown_prediction(self, task_id: int, model_version: str) -> dict[str, Any] | None:
        if not model_version:
            return None
        shown = [p for p in self._client.predictions_of(task_id) if p.get("model_version") == model_version]
        return max(shown, key=lambda prediction: int(prediction["id"]), default=None)


def correct_regions(
    predicted: Sequence[Region],
    truth: Sequence[Segment],
    *,
    config: LabelConfig,
    size_hw: tuple[int, int],
    rng: random.Random,
    polygon_share: float = 0.3,
) -> list[Region]:
    """Return the `result` that an annotator submits who starts from a prediction and knows the truth.

    A predicted object with an IoU of 0.9 and the right label stays, one with 0.3 is mended, every other is
    deleted; what is missing then is drawn.

    Args:
        predicted: the prediction's regions.
        truth: what is really there.
        config: which tools there are.
        size_hw: of the upright image.
        rng: chooses tools and ids.
        polygon_share: how many of the drawn objects become polygons, where both tools have the label.
    """
    objects = list(_to_objects(predicted, config, size_hw))
    matches = _match(objects, truth)
    result: list[Region] = []
    done: set[int] = set()
    for index, found in enumerate(objects):
        if index not in matches:
            continue
        target = truth[matches[index]]
        if segment_iou(found.segment, target) >= KEEP_IOU and found.segment.label == target.label:
            result += [{**region, "origin": "prediction"} for region in found.regions]
        else:
            mended = _mend(found, target, config, size_hw, rng)
            if not mended:
                continue
            result += mended
        done.add(matches[index])
    for index, target in enumerate(truth):
        if index not in done:
            result += _draw(target, config, size_hw, rng, polygon_share)
    return result


def _to_objects(
    predicted: Sequence[Region], config: LabelConfig, size_hw: tuple[int, int]
) -> Iterator[_Object]:
    groups: dict[str, list[Region]] = {}
    for region in predicted:
        groups.setdefault(str(region.get("id")).partition("-")[0], []).append(region)
    for regions in groups.values():
        content = annotation_to_segments(regions, config, size_hw=size_hw)
        if content.segments:
            yield _Object(regions=tuple(regions), segment=content.segments[0])


def _match(objects: Sequence[_Object], truth: Sequence[Segment]) -> dict[int, int]:
    """Return which object is which piece of truth, the best pairs first."""
    pairs = [
        (segment_iou(found.segment, target), found.segment.label == target.label, i, j)
        for i, found in enumerate(objects)
        for j, target in enumerate(truth)
    ]
    matches: dict[int, int] = {}
    for iou, _, i, j in sorted(pairs, key=lambda pair: (-pair[0], not pair[1], pair[2], pair[3])):
        if iou >= EDIT_IOU and i not in matches and j not in matches.values():
            matches[i] = j
    return matches


def _mend(
    found: _Object, target: Segment, config: LabelConfig, size_hw: tuple[int, int], rng: random.Random
) -> list[Region]:
    """Return the object's regions as the target, or nothing where its tool has no such label."""
    first = next((region for region in found.regions if region["type"] == "brushlabels"), found.regions[0])
    control = config.control(str(first["from_name"]))
    if control is None or target.label not in control.labels:
        return []
    olds = [region for region in found.regions if region["type"] == first["type"]]
    mended = []
    for number, value in enumerate(_values(target, control, size_hw)):
        if number < len(olds):
            mended.append({**olds[number], "value": value, "origin": "prediction-changed"})
        else:
            mended.append(_new_region(value, control, size_hw, rng))
    return mended


def _draw(
    target: Segment, config: LabelConfig, size_hw: tuple[int, int], rng: random.Random, polygon_share: float
) -> list[Region]:
    wanted = "polygon" if rng.random() < polygon_share else "brush"
    controls = [control for control in config.controls if target.label in control.labels]
    if not controls:
        return []
    control = next((control for control in controls if control.kind == wanted), controls[0])
    values = _values(target, control, size_hw)
    brush = next((control for control in controls if control.kind == "brush"), None)
    if len(values) > 1 and brush is not None:
        # Two drawn polygons are two objects: a person takes the brush for an object in parts.
        control, values = brush, _values(target, brush, size_hw)
    return [_new_region(value, control, size_hw, rng) for value in values]


def _values(target: Segment, control: Control, size_hw: tuple[int, int]) -> list[dict[str, Any]]:
    drawn = LabelTarget(control=control, label=target.label)
    return [region["value"] for region in segment_to_regions(target, drawn, size_hw, object_id="drawn")]


def _new_region(
    value: dict[str, Any], control: Control, size_hw: tuple[int, int], rng: random.Random
) -> Region:
    return {
        "original_width": size_hw[1],
        "original_height": size_hw[0],
        "image_rotation": 0,
        "value": value,
        "id": "".join(rng.choices(ID_LETTERS, k=ID_LENGTH)),
        "from_name": control.name,
        "to_name": control.to_name,
        "type": control.region_type,
        "origin": "manual",
    }


def _effort_s(edits: EditCounts) -> float:
    return (
        LOOK_S
        + KEEP_S * edits.kept
        + CHANGE_S * edits.changed
        + ADD_S * edits.added
        + REMOVE_S * edits.removed
    )
