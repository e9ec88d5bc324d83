"""Interactive requests: clicks, boxes and areas on a task's images -> regions of the tool's label."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from maskloop.errors import CodecError, LabelConfigError, MaskloopError
from maskloop.interactive.answer import Answer, find_answer
from maskloop.interactive.crop_tier import CropUse, crop_window, find_with_crop
from maskloop.log import log_action
from maskloop_studio.errors import OverloadedError
from maskloop_studio.formats import LabelTarget, Region, TaskImage, segment_to_regions, tool_targets
from maskloop_studio.formats.bitmask import encode_bitmask
from maskloop_studio.formats.prediction_writer import object_id_of
from maskloop_studio.images.crop_looks import CropState, LookedImage
from maskloop_studio.images.time_limit import TimeLimit
from maskloop_studio.labelstudio.protocol import (
    PredictRequest,
    PredictResponse,
    PredictTask,
    RefusedPrediction,
    TaskPrediction,
)
from maskloop_studio.serving.prompts import Interaction, ObjectPrompt, is_on_image, object_prompts
from maskloop_studio.serving.refusals import deadline_error, no_such_image, refused_entry

if TYPE_CHECKING:
    from maskloop.interactive.image_features import ImageFeatures
    from maskloop.interactive.prompt import Prompt
    from maskloop_studio.images.image_looks import ImageLooks
    from maskloop_studio.projects.prediction_plan import PredictionPlan, ProjectPlan
    from maskloop_studio.serving.model_directory import ServedModel

__all__ = ["ClickAnswerer", "capabilities"]

logger = logging.getLogger(__name__)
MAX_TASKS = 4  # of one interactive request; Label Studio sends one
MAX_PREWARMS = 2  # at the same time
PREWARM_S = 60.0
# What the development line of Label Studio may bind to this backend: tag of a control, and form of an answer.
TARGETS = (
    ("BrushLabels", "mask"),
    ("BitmaskLabels", "mask"),
    ("PolygonLabels", "polygon"),
    ("VectorLabels", "polygon"),
    ("RectangleLabels", "bbox"),
    ("EllipseLabels", "bbox"),
)


@dataclass(frozen=True, kw_only=True)
class _Place:
    """One image of one task, and how it is predicted."""

    task_id: int | None
    image: TaskImage
    plan: PredictionPlan
    source: str

    @property
    def looked(self) -> LookedImage:
        return LookedImage(
            address=self.image.address, task_id=self.task_id, task=self.plan.task, source=self.source
        )


class ClickAnswerer:
    """One per process; safe to call from many threads."""

    def __init__(self, looks: Callable[[], ImageLooks], *, crops: bool = True) -> None:
        """Args:
        looks: made at the first request: it needs torch.
        crops: whether small objects are looked at again at a higher resolution.
        """
        self._looks, self._crops = looks, crops
        self._prewarms = threading.Semaphore(MAX_PREWARMS)

    def respond(
        self,
        request: PredictRequest,
        interaction: Interaction,
        plan: ProjectPlan,
        model: ServedModel,
        limit: TimeLimit,
    ) -> PredictResponse:
        """Return one entry a task, in order; an entry without regions where nothing is meant.

        Args:
            request: the tasks; Label Studio sends one.
            interaction: what is asked about them.
            plan: of the project.
            model: what answers.
            limit: when the answer has to be there.
        """
        if len(request.tasks) > MAX_TASKS:
            raise OverloadedError(
                "predict, params.context",
                expected=f"at most {MAX_TASKS} tasks in an interactive request",
                got=str(len(request.tasks)),
                remedy="send one task",
            )
        entries: list[RefusedPrediction | TaskPrediction | list[TaskPrediction]] = []
        for task in request.tasks:
            try:
                entries.append(self._entry(task, interaction, plan, model, limit))
            except MaskloopError as exc:
                log_action(
                    logger, "prompt_refused", level=logging.WARNING, task_id=task.id, tasks=1, error=exc
                )
                entries.append(refused_entry(model.tag, exc))
        return PredictResponse(results=entries, model_version=model.tag)

    def _entry(
        self,
        task: PredictTask,
        interaction: Interaction,
        plan: ProjectPlan,
        model: ServedModel,
        limit: TimeLimit,
    ) -> TaskPrediction:
        images = plan.images(task.data, place=f"task {task.id}")
        task_plan = plan.of_task(task.data)
        places = [
            _Place(task_id=task.id, image=image, plan=task_plan, source=model.source) for image in images
        ]
        if interaction.event in ("prewarm", "release"):
            return self._acknowledge(interaction, places, plan, model)
        started = time.monotonic()
        regions: list[Region] = []
        scores: list[float] = []
        tiers: list[str] = []
        crops: list[str] = []
        here = [one for one in places if any(is_on_image(r, one.image) for r in interaction.regions)]
        if not here:
            raise no_such_image(task, (image.to_name for image in images))
        kept = all(self._looks().known(one.looked) is not None for one in here)
        for one in here:
            asked = [region for region in interaction.regions if is_on_image(region, one.image)]
            objects = object_prompts(asked)
            targets = [self._targets(wanted, one, plan) for wanted in objects]
            features = self._features(one, _sizes(asked), limit)
            for wanted, tool in zip(objects, targets, strict=True):
                labels = _classes(wanted, one.plan)
                prompt = replace(wanted.prompt, labels=labels)
                answer, crop = self._answer(one, features, prompt)
                tiers.append(answer.tier if answer is not None else "none")
                crops.append(crop)
                if answer is None:
                    continue
                scores.append(answer.segment.score)
                if interaction.has_labels:
                    regions += _drawn(answer, tool or _class_targets(answer, one), features, one)
                else:
                    regions.append(_bare_bitmask(answer, features, one, plan))
        log_action(
            logger,
            "click_answered",
            task_id=task.id,
            tiers=",".join(tiers),
            kept=kept,
            crops=",".join(crops),
            model_version=model.tag,
            duration_s=time.monotonic() - started,
        )
        return TaskPrediction(result=regions, score=max(scores, default=0.0), model_version=model.tag)

    def _answer(
        self, one: _Place, features: ImageFeatures, prompt: Prompt
    ) -> tuple[Answer | None, CropUse | CropState | Literal["none"]]:
        """Return the answer, and for the log what a crop had to do with it."""
        looks = self._looks()
        window = crop_window(prompt, features.size_hw) if self._crops else None
        # Features that are not kept have no crop either: it would be made again for each click.
        if window is None or looks.known(one.looked) is not features:
            return find_answer(features, prompt), "none"
        closer = looks.known(one.looked, window)
        answer, use = find_with_crop(features, prompt, window, closer)
        return answer, looks.look_closer(one.looked, window) if use == "wanted" else use

    def _targets(self, wanted: ObjectPrompt, one: _Place, plan: ProjectPlan) -> tuple[LabelTarget, ...]:
        """Return where the tool's label is drawn; nothing where the tool has none."""
        if wanted.label is None:
            return ()
        config = one.plan.label_map.config if one.plan.label_map is not None else plan.config
        return tool_targets(
            config, wanted.label, image_name=one.image.to_name, prefer=one.plan.drawing.prefer
        )

    def _features(self, one: _Place, drawn_sizes: set[tuple[int, int]], limit: TimeLimit) -> ImageFeatures:
        """Return the features of an image of the size that the regions were drawn at.

        Raises:
            CodecError: the image has another size, also after a second look.
        """
        looks = self._looks()
        features = looks.look(one.looked, limit)
        if features is not None and drawn_sizes and drawn_sizes != {features.size_hw}:
            looks.forget(one.looked)  # its content may have changed since it was looked at
            features = looks.look(one.looked, limit)
        if features is None:
            raise deadline_error()
        height, width = features.size_hw
        if not drawn_sizes or drawn_sizes == {(height, width)}:
            return features
        raise CodecError(
            f"task {one.task_id}, params.context",
            expected=f"regions drawn on an image of {width}x{height}",
            got=", ".join(f"{w}x{h}" for h, w in sorted(drawn_sizes))[:80],
            remedy="open the task again: its image has changed meanwhile",
        )

    def _acknowledge(
        self, interaction: Interaction, places: Sequence[_Place], plan: ProjectPlan, model: ServedModel
    ) -> TaskPrediction:
        looks = self._looks()
        if interaction.event == "release":
            for one in places:
                looks.forget(one.looked)
            value: dict[str, object] = {"status": "released"}
        else:
            pending = [i for i, one in enumerate(places) if looks.known(one.looked) is None]
            cached = [i for i in range(len(places)) if i not in pending]
            self._prewarm([places[index] for index in pending])
            value = {"status": "ok", "cached": cached, "pending": pending}
        item = {
            "id": uuid.uuid4().hex[:8],
            "type": f"{interaction.event}_ack",
            "from_name": plan.config.controls[0].name,
            "to_name": plan.config.image_name,
            "origin": "manual",
            "value": value,
        }
        return TaskPrediction(result=[item], score=0.0, model_version=model.tag)

    def _prewarm(self, places: Sequence[_Place]) -> None:
        """Look at images in the background; where enough is under way nothing is begun."""
        if not places or not self._prewarms.acquire(blocking=False):
            return

        def look() -> None:
            limit = TimeLimit(PREWARM_S)
            try:
                for one in places:
                    self._looks().look(one.looked, limit)
            except Exception as exc:  # the click itself will name it
                log_action(logger, "prewarm_failed", level=logging.WARNING, error=exc)
            finally:
                self._prewarms.release()

        threading.Thread(target=look, name="prewarm", daemon=True).start()


def capabilities(tag: str) -> TaskPrediction:
    """Return what this backend can be asked for, as the development line of Label Studio reads it.

    Source: examples/segment_anything_video_interactive of label-studio-ml-backend.
    """
    value = {
        "prompts": ["point", "box"],
        "targets": [{"tag": name, "output": form} for name, form in TARGETS],
        "model_info": {"name": "maskloop", "version": tag},
    }
    item = {"id": uuid.uuid4().hex[:8], "type": "capabilities", "origin": "manual", "value": value}
    return TaskPrediction(result=[item], score=0.0, model_version=tag)


def _sizes(regions: Sequence[object]) -> set[tuple[int, int]]:
    """Return the sizes of image that regions say they were drawn on."""
    found = set()
    for one in regions:
        region = one.region  # type: ignore[attr-defined]
        height, width = region.get("original_height"), region.get("original_width")
        if isinstance(height, int) and isinstance(width, int):
            found.add((height, width))
    return found


def _classes(wanted: ObjectPrompt, plan: PredictionPlan) -> frozenset[str]:
    """Return the classes of the model that the tool's label shows."""
    if wanted.label is None or plan.label_map is None:
        return frozenset()
    folded = wanted.label.strip().casefold()
    return frozenset(
        name
        for name, targets in plan.label_map.targets.items()
        if any(target.label.casefold() == folded for target in targets)
    )


def _class_targets(answer: Answer, one: _Place) -> tuple[LabelTarget, ...]:
    """Return where the answer's own class is drawn.

    Raises:
        LabelConfigError: the label config has no label for it.
    """
    label_map = one.plan.label_map
    targets = (
        label_map.targets_of(answer.segment.label, image_name=one.image.to_name)
        if label_map is not None
        else ()
    )
    if not targets:
        raise LabelConfigError(
            "prompt without a label",
            expected="a class of the model that the label config has a label for",
            got=repr(answer.segment.label)[:80],
            remedy="choose a label before the click",
        )
    return targets


def _drawn(
    answer: Answer, targets: Sequence[LabelTarget], features: ImageFeatures, one: _Place
) -> list[Region]:
    """Return the regions that show the answer; ids are new, since an earlier answer may still be there."""
    object_id = object_id_of(uuid.uuid4().hex, answer.segment, set())
    drawn = []
    for target in targets[:1]:
        drawn += segment_to_regions(
            answer.segment, target, features.size_hw, object_id=object_id, drawing=one.plan.drawing
        )
    if one.image.item_index is not None:
        for region in drawn:
            region["item_index"] = one.image.item_index
    return drawn


def _bare_bitmask(answer: Answer, features: ImageFeatures, one: _Place, plan: ProjectPlan) -> Region:
    height, width = features.size_hw
    segment = answer.segment
    item: Region = {
        "id": uuid.uuid4().hex[:8],
        "from_name": plan.config.controls[0].name,
        "to_name": one.image.to_name,
        "type": "bitmask",
        "origin": "manual",
        "score": round(segment.score, 4),
        "value": {
            "imageDataURL": encode_bitmask(segment.mask_hw, segment.offset_yx, features.size_hw),
            "width": width,
            "height": height,
        },
    }
    if one.image.item_index is not None:
        item["item_index"] = one.image.item_index
    return item
