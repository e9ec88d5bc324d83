"""A simulated annotator who clicks on objects, and the ways to answer: what `clicks` measures.

The first click is the object's innermost point, each further one the innermost point of the largest part
that the answer has too much or too little, as in the literature on interactive segmentation (Sofiiuk et al.,
"Reviving Iterative Training with Mask Guidance for Interactive Segmentation", ICIP 2022).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import cv2
import numpy as np
import torch
from torch.nn import functional

from maskloop.interactive.answer import TIERS, Tier, find_answer
from maskloop.interactive.crop_tier import crop_window, find_with_crop
from maskloop.interactive.image_features import ImageFeatures, image_features
from maskloop.interactive.prompt import Click, Prompt
from maskloop.learning.data.dataset import TrainingExample, load_example_image
from maskloop.masks import paste_segment
from maskloop.segmentation.checkpoint import Checkpoint
from maskloop.segmentation.postprocess import Thresholds
from maskloop.segmentation.predict import RawOutput, forward_batch, postprocess_image, prepare_image
from maskloop.segmentation.test_time_views import ViewPlan
from maskloop.segmentation.upsample import Window
from maskloop.types import BoolMask, Prediction, RgbImage, SegmentationTask

MOST_CLICKS = 20
NOC_LEVELS = (0.80, 0.85, 0.90)
BOX_CLICKS, BOX_ENOUGH = 3, 0.95  # after a box
LEAST_PIXELS = 16  # of an object that is clicked on
TIERS_OF: dict[str, tuple[tuple[Tier, ...], bool]] = {  # and whether colours move the border
    "query": (("query",), False),
    "embedding": (("embedding",), False),
    "click_query": (("click_query",), False),
    "both": (("query", "embedding"), False),
    "both_edges": (("query", "embedding"), True),
    "all": (TIERS, True),
}
# Longest side of an object as a share of the image's shorter side, below which it has this name.
LENGTHS = {"small": 0.25, "middle": 0.5, "large": float("inf")}
SERVED = Thresholds(part=0.02, duplicate=0.7, piece=0.8)  # as the settings have them


@dataclass(frozen=True, kw_only=True, eq=False)
class Scene:
    """One image as it is served."""

    checkpoint: Checkpoint
    image: RgbImage
    features: ImageFeatures
    prediction: Prediction


@dataclass(frozen=True, kw_only=True, eq=False)
class Target:
    """One object that is clicked on."""

    scene: Scene
    label: str
    mask_hw: BoolMask


@dataclass(kw_only=True)
class Tally:
    """What became of the objects of one way."""

    ious: list[list[float]] = field(default_factory=list)  # of each object, after each click
    lengths: list[str] = field(default_factory=list)  # of each object, by LENGTHS
    box_ious: list[list[float]] = field(default_factory=list)  # after a box alone, then after each click
    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)  # what a busy machine does not lengthen
    negatives: int = 0
    disobeyed: int = 0

    def row(self) -> dict[str, float | int | None]:
        """Return the row of the JSON, without what names it."""
        clicked = bool(self.ious)
        noc = {f"noc_{round(100 * level)}": self._noc(level) if clicked else None for level in NOC_LEVELS}
        return {
            **{f"iou_{n}": self._iou(n) if clicked else None for n in (1, 2, 3, 5)},
            **noc,
            "by_length": {
                name: {"objects": count, **{f"iou_{n}": self._iou(n, name) for n in (1, 2, 3, 5)}}
                for name in LENGTHS
                if (count := self.lengths.count(name))
            },
            "failures_85": sum(max(row) < 0.85 for row in self.ious),
            "empty_1": sum(row[0] == 0 for row in self.ious),
            "box_iou": self._box_iou(0),
            "box_iou_1": self._box_iou(1),
            "box_iou_3": self._box_iou(3),
            "negatives": self.negatives,
            "negatives_disobeyed": self.disobeyed,
            "objects": max(len(self.ious), len(self.box_ious)),
            "p50_ms": _milliseconds(self.seconds, 0.5),
            "p95_ms": _milliseconds(self.seconds, 0.95),
            "p50_cpu_ms": _milliseconds(self.cpu_seconds, 0.5),
            "p95_cpu_ms": _milliseconds(self.cpu_seconds, 0.95),
        }

    def _iou(self, clicks: int, length: str | None = None) -> float:
        rows = [
            row for row, name in zip(self.ious, self.lengths, strict=True) if length is None or name == length
        ]
        # an annotator stops when it is good: the last IoU stays
        return round(float(np.mean([row[min(clicks, len(row)) - 1] for row in rows])), 4)

    def _box_iou(self, clicks: int) -> float | None:
        return round(float(np.mean([row[clicks] for row in self.box_ious])), 4) if self.box_ious else None

    def _noc(self, level: float) -> float:
        counts = [
            next((i + 1 for i, iou in enumerate(row) if iou >= level), MOST_CLICKS) for row in self.ious
        ]
        return round(float(np.mean(counts)), 3)


def _milliseconds(seconds: Sequence[float], quantile: float) -> float | None:
    return round(1e3 * float(np.quantile(seconds, quantile)), 2) if seconds else None


Way = Callable[[Target, Prompt], BoolMask]


def make_scene(checkpoint: Checkpoint, image: RgbImage) -> Scene:
    """Return an image after its one forward pass."""
    raw = _forward(checkpoint, image)
    options = {"task": SegmentationTask.INSTANCE, "for_selection": False, "plan": ViewPlan()}
    prediction = postprocess_image(checkpoint, (raw,), thresholds=SERVED, **options)  # type: ignore[arg-type]
    features = image_features(checkpoint, raw)
    return Scene(checkpoint=checkpoint, image=image, features=features, prediction=prediction)


def _forward(checkpoint: Checkpoint, image: RgbImage) -> RawOutput:
    views = [prepare_image(checkpoint, image, for_selection=False, plan=ViewPlan())]
    options = {"task": SegmentationTask.INSTANCE, "for_selection": False, "plan": ViewPlan()}
    ((raw, *_),) = forward_batch(checkpoint, views, keep_output=True, **options)  # type: ignore[arg-type]
    return raw


def targets_of(checkpoint: Checkpoint, examples: Sequence[TrainingExample], most: int) -> Iterator[Target]:
    """Yield objects image after image, `most` at the most, spread evenly over the images."""
    per_image = max(1, -(-most // max(1, len(examples))))
    left = most
    for example in examples:
        image = load_example_image(example)
        scene = None
        for segment in example.segments[:per_image]:
            mask_hw = paste_segment(segment, (image.shape[0], image.shape[1]))
            if left <= 0 or mask_hw.sum() < LEAST_PIXELS:
                continue
            scene = scene or make_scene(checkpoint, image)
            left -= 1
            yield Target(scene=scene, label=segment.label, mask_hw=mask_hw)


def ways() -> dict[str, Way]:
    """Return the ways to answer, by the name that the JSON has."""
    made: dict[str, Way] = {"filter": _filtered, "oracle": _oracle, "grabcut": _grabcut}
    for name, (tiers, snap) in TIERS_OF.items():
        made[name] = _by_tiers(tiers, snap=snap)
    made["crop"] = CropWay()
    return made  # "click_query" answers nothing where the model was not trained for clicks


def run_trials(
    targets: Iterable[Target], chosen: dict[str, Way], *, clicks: int = MOST_CLICKS, jitter: float = 0.0
) -> dict[str, Tally]:
    """Return what becomes of the objects, way by way.

    Args:
        targets: the objects.
        chosen: the ways.
        clicks: at the most; it ends earlier at an IoU of 0.9.
        jitter: how far a click is off, in shares of the distance to the border of what it is meant for.
    """
    tallies = {name: Tally() for name in chosen}
    for number, target in enumerate(targets):
        for name, way in chosen.items():
            # features of its own: answers that another way has asked for are kept with them
            scene = replace(target.scene, features=replace(target.scene.features))
            target = replace(target, scene=scene)
            rng = np.random.default_rng(number)
            _click_through(target, way, tallies[name], clicks, lambda: rng.uniform(-jitter, jitter, 2))  # noqa: B023
            tallies[name].box_ious.append(_draw_and_click(target, way, tallies[name]))
    return tallies


def _click_through(
    target: Target, way: Way, tally: Tally, most: int, offset: Callable[[], np.ndarray]
) -> None:
    clicks: list[Click] = []
    ious: list[float] = []
    answer_hw = np.zeros_like(target.mask_hw)
    while len(ious) < most and (not ious or len(ious) < 5 or ious[-1] < NOC_LEVELS[-1]):
        click = next_click(target.mask_hw, answer_hw, offset())
        if click is None or (ious and ious[-1] >= NOC_LEVELS[-1]):
            break
        clicks.append(click)
        started, cpu = time.perf_counter(), time.process_time()
        answer_hw = way(target, Prompt(clicks=tuple(clicks), labels=frozenset([target.label])))
        tally.seconds.append(time.perf_counter() - started)
        tally.cpu_seconds.append(time.process_time() - cpu)
        if isinstance(way, CropWay):
            way.look(target)
        ious.append(_iou(answer_hw, target.mask_hw))
        for one in clicks:
            if not one.is_positive:
                tally.negatives += 1
                tally.disobeyed += bool(answer_hw[_pixel(one, answer_hw.shape)])
    tally.ious.append(ious)
    tally.lengths.append(length_of(target.mask_hw))


def length_of(mask_hw: BoolMask) -> str:
    """Return the name that LENGTHS has for how long an object is."""
    rows, columns = np.nonzero(mask_hw)
    share = (max(np.ptp(rows), np.ptp(columns)) + 1) / min(mask_hw.shape)
    return next(name for name, most in LENGTHS.items() if share <= most)


def _draw_and_click(target: Target, way: Way, tally: Tally) -> list[float]:
    """Return the IoU after a box and after each of BOX_CLICKS clicks in the largest error."""
    box, labels = _box(target.mask_hw), frozenset([target.label])
    clicks: list[Click] = []
    answer_hw = way(target, Prompt(box_xyxy=box, labels=labels))
    ious = [_iou(answer_hw, target.mask_hw)]
    for _ in range(BOX_CLICKS):
        click = next_click(target.mask_hw, answer_hw, np.zeros(2)) if ious[-1] < BOX_ENOUGH else None
        if click is not None:
            clicks.append(click)
            answer_hw = way(target, Prompt(clicks=tuple(clicks), box_xyxy=box, labels=labels))
            tally.negatives += len([one for one in clicks if not one.is_positive])
            tally.disobeyed += sum(
                bool(answer_hw[_pixel(one, answer_hw.shape)]) for one in clicks if not one.is_positive
            )
        ious.append(_iou(answer_hw, target.mask_hw))
    return ious


def next_click(truth_hw: BoolMask, answer_hw: BoolMask, offset_2: np.ndarray) -> Click | None:
    """Return a click in the middle of the largest error; None where all is right."""
    depths = [_depths(truth_hw & ~answer_hw), _depths(answer_hw & ~truth_hw)]
    is_positive = depths[0].max() >= depths[1].max()
    depth_hw = depths[0 if is_positive else 1]
    if depth_hw.max() <= 0:
        return None
    row, column = np.unravel_index(int(depth_hw.argmax()), depth_hw.shape)
    height, width = truth_hw.shape
    reach = float(depth_hw.max()) - 1
    y, x = row + 0.5 + reach * offset_2[0] * 0.7, column + 0.5 + reach * offset_2[1] * 0.7
    return Click(
        x=float(np.clip(x / width, 0, 1)), y=float(np.clip(y / height, 0, 1)), is_positive=bool(is_positive)
    )


def _depths(mask_hw: BoolMask) -> np.ndarray:
    padded = np.pad(mask_hw, 1).astype(np.uint8)
    return cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]


def _by_tiers(tiers: tuple[Tier, ...], *, snap: bool) -> Way:
    def way(target: Target, prompt: Prompt) -> BoolMask:
        found = find_answer(target.scene.features, prompt, tiers=tiers, snap=snap)
        return _pasted([found.segment] if found is not None else [], target)

    return way


class CropWay:
    """All tiers, and crops of small objects, which are looked at between two clicks."""

    def __init__(self) -> None:
        self._looked: dict[Window, ImageFeatures] = {}  # of one object
        self._target: Target | None = None
        self._wanted: Window | None = None

    def __call__(self, target: Target, prompt: Prompt) -> BoolMask:
        """Return the answer, from the object's crop where it was looked at."""
        if target is not self._target:
            self._target, self._looked = target, {}
        size_hw = (target.mask_hw.shape[0], target.mask_hw.shape[1])
        window = crop_window(prompt, size_hw)
        if window is None:
            self._wanted, found = None, find_answer(target.scene.features, prompt)
        else:
            closer = self._looked.get(window)
            found, use = find_with_crop(target.scene.features, prompt, window, closer)
            self._wanted = window if use == "wanted" else None
        return _pasted([found.segment] if found is not None else [], target)

    def look(self, target: Target) -> None:
        """Look at the crop that the last answer asks for."""
        if (window := self._wanted) is not None:
            crop = target.scene.image[window.top : window.bottom, window.left : window.right]
            raw = _forward(target.scene.checkpoint, np.ascontiguousarray(crop))
            self._looked[window] = image_features(target.scene.checkpoint, raw)


def _filtered(target: Target, prompt: Prompt) -> BoolMask:
    """Answer by the finished prediction: the smallest segment below each click, whatever its sign."""
    segments = target.scene.prediction.segments
    kept = []
    for click in prompt.clicks:
        row, column = _pixel(click, target.mask_hw.shape)
        below = [one for one in segments if paste_segment(one, target.mask_hw.shape)[row, column]]  # type: ignore[arg-type]
        kept += sorted(below, key=lambda one: one.area)[:1]
    if prompt.box_xyxy is not None:
        left, top, right, bottom = prompt.box_xyxy
        height, width = target.mask_hw.shape
        for one in segments:
            y0, x0, y1, x1 = one.box_yxyx
            if left <= (x0 + x1) / 2 / width <= right and top <= (y0 + y1) / 2 / height <= bottom:
                kept.append(one)
    return _pasted(kept, target)


def _oracle(target: Target, prompt: Prompt) -> BoolMask:
    """Answer by the query with the best mask, which only the truth can tell."""
    features = target.scene.features
    best_hw, best = np.zeros_like(target.mask_hw), -1.0
    truth = torch.from_numpy(target.mask_hw.astype(np.float32))[None, None]
    coarse_hw = functional.interpolate(truth, features.coarse_nhw.shape[1:], mode="area")[0, 0] > 0.5
    inside_nhw = features.coarse_nhw > 127
    shared_n = (inside_nhw & coarse_hw).sum((1, 2)) / (inside_nhw | coarse_hw).sum((1, 2)).clamp(min=1)
    for query in shared_n.topk(min(5, len(shared_n))).indices.tolist():
        logits = features.logits_of(query)[None, None]
        mask_hw = functional.interpolate(logits, target.mask_hw.shape, mode="bilinear")[0, 0].numpy() > 0
        if (iou := _iou(mask_hw, target.mask_hw)) > best:
            best_hw, best = mask_hw, iou
    return best_hw


def _grabcut(target: Target, prompt: Prompt) -> BoolMask:
    """Answer by colours alone: OpenCV's GrabCut with the same clicks."""
    image = target.scene.image
    height, width = target.mask_hw.shape
    marks_hw = np.full((height, width), cv2.GC_BGD, dtype=np.uint8)
    if prompt.box_xyxy is not None:
        left, top, right, bottom = prompt.box_xyxy
        inside = (
            slice(int(top * height), int(bottom * height)),
            slice(int(left * width), int(right * width)),
        )
        marks_hw[inside] = cv2.GC_PR_FGD
    else:
        marks_hw[:] = cv2.GC_PR_BGD
        for click in prompt.positive:
            place = (int(click.x * width), int(click.y * height))
            cv2.circle(marks_hw, place, max(3, min(height, width) // 8), cv2.GC_PR_FGD, -1)
        for click in prompt.clicks:
            place = (int(click.x * width), int(click.y * height))
            cv2.circle(marks_hw, place, 2, cv2.GC_FGD if click.is_positive else cv2.GC_BGD, -1)
    if (
        not np.isin(marks_hw, (cv2.GC_FGD, cv2.GC_PR_FGD)).any()
        or not np.isin(marks_hw, (cv2.GC_BGD, cv2.GC_PR_BGD)).any()
    ):
        return np.zeros_like(target.mask_hw)
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.grabCut(np.ascontiguousarray(image[..., ::-1]), marks_hw, None, *models, 3, cv2.GC_INIT_WITH_MASK)
    found_hw = np.isin(marks_hw, (cv2.GC_FGD, cv2.GC_PR_FGD))
    if not prompt.positive:
        return found_hw
    _, parts_hw = cv2.connectedComponents(found_hw.astype(np.uint8))
    kept = {int(parts_hw[_pixel(click, found_hw.shape)]) for click in prompt.positive} - {0}
    return np.isin(parts_hw, list(kept))


def _pasted(segments: Iterable[object], target: Target) -> BoolMask:
    mask_hw: BoolMask = np.zeros_like(target.mask_hw)
    for one in segments:
        mask_hw |= paste_segment(one, target.mask_hw.shape)  # type: ignore[arg-type]
    return mask_hw


def _box(mask_hw: BoolMask) -> tuple[float, float, float, float]:
    rows, columns = np.nonzero(mask_hw)
    height, width = mask_hw.shape
    return (
        float(columns.min() / width),
        float(rows.min() / height),
        float((columns.max() + 1) / width),
        float((rows.max() + 1) / height),
    )


def _pixel(click: Click, size_hw: Sequence[int]) -> tuple[int, int]:
    return min(size_hw[0] - 1, int(click.y * size_hw[0])), min(size_hw[1] - 1, int(click.x * size_hw[1]))


def _iou(first_hw: BoolMask, second_hw: BoolMask) -> float:
    return float((first_hw & second_hw).sum() / max(1, (first_hw | second_hw).sum()))
