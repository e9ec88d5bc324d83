"""From one image's query logits to segments: pure functions, one per task.

After the reference code of Mask2Former (`maskformer_model.py`); transformers' port of it fills the
background, collapses overlaps and passes every mask through 384x384.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from maskloop.masks import crop_mask
from maskloop.segmentation.class_kinds import ClassKinds
from maskloop.segmentation.upsample import Window, reach_window, upsample_strips, upsample_window
from maskloop.settings import Settings
from maskloop.types import BoolMask, Segment, SegmentationTask

__all__ = [
    "Thresholds",
    "instance_segments",
    "panoptic_segments",
    "segments_of",
    "semantic_segments",
]

TILE_VALUES = 1 << 20  # floats of one strip of rows: 4 MB for an image of any size
# Floats of one object's strip of rows: they stay in the processor's cache, and torch calls no second thread.
STRIP_VALUES = 1 << 15


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """What counts; each 0..1. Equal thresholds may share a batch."""

    score: float = 0.5  # the least score of a segment
    mask: float = 0.5  # the least probability of a pixel
    overlap: float = 0.8  # panoptic: the least share of a mask that others leave to it
    part: float = 0.0  # the least share of a segment's area that a separate part of it may have
    duplicate: float = 1.0  # instance: a segment with more IoU than this with a better one is the same object
    piece: float = 1.0  # instance: a segment with more of its area than this inside a better one of its label
    # the least score of a segment with this label, in place of `score`; for semantic segments the only one
    score_of_label: Mapping[str, float] = field(default_factory=dict, hash=False)
    mask_of_label: Mapping[str, float] = field(default_factory=dict, hash=False)  # in place of `mask`
    overlap_of_label: Mapping[str, float] = field(default_factory=dict, hash=False)  # in place of `overlap`
    kinds: ClassKinds = field(default_factory=ClassKinds)  # stuff beyond what the checkpoint says

    def __post_init__(self) -> None:
        for name in ("score", "mask", "overlap", "part", "duplicate", "piece"):
            value = getattr(self, name)
            if not 0.0 <= value <= 1.0:
                raise ValueError(f"Thresholds.{name}: expected 0..1, got {value}")
        for name in ("score_of_label", "mask_of_label", "overlap_of_label"):
            of_label = dict(getattr(self, name))  # a copy: the caller may change its own
            object.__setattr__(self, name, of_label)
            for label, value in of_label.items():
                if not 0.0 <= value <= 1.0:
                    raise ValueError(f"Thresholds.{name}[{label!r}]: expected 0..1, got {value}")

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """Return the thresholds of the settings, the same for serving and evaluation."""
        return cls(
            score=settings.score_threshold,
            mask=settings.mask_threshold,
            overlap=settings.overlap_threshold,
            part=settings.part_threshold,
            duplicate=settings.duplicate_threshold,
            piece=settings.piece_threshold,
            score_of_label=settings.label_thresholds,
            mask_of_label=settings.label_mask_thresholds,
            overlap_of_label=settings.label_overlap_thresholds,
            kinds=ClassKinds(setting=settings.stuff_labels),
        )

    def score_for(self, label: str) -> float:
        """Return the least score of a segment with this label."""
        return self.score_of_label.get(label, self.score)

    def mask_for(self, label: str) -> float:
        """Return the least probability of a pixel of a segment with this label."""
        return self.mask_of_label.get(label, self.mask)

    def overlap_for(self, label: str) -> float:
        """Return the least share of its mask that others leave to a segment with this label."""
        return self.overlap_of_label.get(label, self.overlap)


def instance_segments(
    class_logits_qk: Tensor,
    mask_logits_qhw: Tensor,
    *,
    labels: Sequence[str],
    thing_ids: Collection[int],
    thresholds: Thresholds,
    size_hw: tuple[int, int],
) -> tuple[Segment, ...]:
    """Return one segment per query that is sure of an object; segments may overlap.

    A query stands for its likeliest class only. Its score is that class's probability times the mean mask
    probability over its foreground. Where the checkpoint has things at all, stuff is left out.

    Args:
        class_logits_qk: float (Q, K + 1), the last column is "no object".
        mask_logits_qhw: float (Q, h, w), cropped to the part of the input that is not padding.
        labels: K class names in the order of their ids.
        thing_ids: ids of the classes whose objects are counted.
        thresholds: `score`, `score_of_label` and `mask`.
        size_hw: of the image.

    Returns:
        Best first; empty where nothing was found. Pixels without an object belong to no segment.
    """
    scores_q, classes_q = _class_scores(class_logits_qk)
    keep_q = scores_q >= _floors(labels, thresholds, class_logits_qk.device)[classes_q]
    if thing_ids:
        keep_q &= torch.isin(classes_q, torch.tensor(sorted(thing_ids), device=classes_q.device))
    # few queries are left: one transfer from the device, then crops on the CPU
    kept_nhw = mask_logits_qhw[keep_q].float().cpu()
    segments = []
    for logits_hw, score, class_id in zip(
        kept_nhw, scores_q[keep_q].tolist(), classes_q[keep_q].tolist(), strict=True
    ):
        label = labels[class_id]
        found = _instance(logits_hw, size_hw, _logit(thresholds.mask_for(label)))
        if found is not None and score * found[2] >= thresholds.score_for(label):
            mask_hw, offset_yx, mask_score = found
            segments.append(_segment(mask_hw, offset_yx, label, score * mask_score))
    return _best_first(segments)


def semantic_segments(
    class_logits_qk: Tensor,
    mask_logits_qhw: Tensor,
    *,
    labels: Sequence[str],
    thing_ids: Collection[int],
    thresholds: Thresholds,
    size_hw: tuple[int, int],
) -> tuple[Segment, ...]:
    """Return one segment per class: where it is the likeliest.

    A pixel's class has the largest sum over queries of class probability times mask probability. The sum
    over all classes is the expected number of segments there; where it is below the class's mask threshold
    the model sees nothing, and the pixel is left without a label (with 0 every pixel gets one).

    Args:
        class_logits_qk: float (Q, K + 1), the last column is "no object".
        mask_logits_qhw: float (Q, h, w), cropped to the part of the input that is not padding.
        labels: K class names in the order of their ids.
        thing_ids: not used: a class's objects are one area.
        thresholds: `mask`, `mask_of_label`, and `score_of_label` of the labels it names.
        size_hw: of the image.

    Returns:
        Best first; the score is the mean of the class's sum over its pixels, relative to all classes' sum
        where that is above 1.
    """
    probs_qk = class_logits_qk.float().softmax(dim=-1)[:, :-1]
    # collapsed before it is enlarged: K maps instead of Q, and never all of them at full size
    sums_khw = torch.einsum("qk,qhw->khw", probs_qk, mask_logits_qhw.float().sigmoid())
    coverage_hw = sums_khw.sum(dim=0)
    # the winner of a covered pixel has at least its share of the floor there: no other class is enlarged
    floors_k = torch.tensor([thresholds.mask_for(label) for label in labels], device=sums_khw.device)
    rivals = torch.nonzero(sums_khw.amax(dim=(1, 2)) >= floors_k.min() / len(labels)).flatten()
    maps_nhw = torch.cat([sums_khw[rivals], coverage_hw[None]])
    class_hw = np.full(size_hw, -1, dtype=np.int32)
    totals = np.zeros(len(labels))
    counts = np.zeros(len(labels), dtype=np.int64)

    for window in _strips(maps_nhw.shape[0], size_hw) if len(rivals) else ():
        tile_nhw = upsample_window(maps_nhw, size_hw, window)
        best_hw, winner_hw = tile_nhw[:-1].max(dim=0)
        class_of_winner_hw = rivals[winner_hw]
        seen_hw = tile_nhw[-1] >= floors_k[class_of_winner_hw]
        tile_hw = torch.where(seen_hw, class_of_winner_hw, -1).cpu().numpy()
        share_hw = (best_hw / tile_nhw[-1].clamp(min=1.0)).cpu().numpy()
        class_hw[window.top : window.bottom] = tile_hw
        seen = tile_hw >= 0
        totals += np.bincount(tile_hw[seen], weights=share_hw[seen], minlength=len(labels))
        counts += np.bincount(tile_hw[seen], minlength=len(labels))

    segments = []
    for class_id in np.flatnonzero(counts):
        score = float(totals[class_id] / counts[class_id])
        if score < thresholds.score_of_label.get(labels[class_id], 0.0):
            continue
        mask_hw, offset_yx = crop_mask(class_hw == class_id)
        segments.append(_segment(mask_hw, offset_yx, labels[class_id], score))
    return _best_first(segments)


def panoptic_segments(
    class_logits_qk: Tensor,
    mask_logits_qhw: Tensor,
    *,
    labels: Sequence[str],
    thing_ids: Collection[int],
    thresholds: Thresholds,
    size_hw: tuple[int, int],
) -> tuple[Segment, ...]:
    """Return segments that share no pixel: one per thing, one per class of stuff.

    Each pixel goes to the query with the largest class probability times mask probability, if that query's
    mask reaches the mask threshold of its class there; a query that keeps less of its own mask than the
    overlap threshold of its class is dropped whole.

    Args:
        class_logits_qk: float (Q, K + 1), the last column is "no object".
        mask_logits_qhw: float (Q, h, w), cropped to the part of the input that is not padding.
        labels: K class names in the order of their ids.
        thing_ids: classes kept apart; segments of any other class are merged.
        thresholds: `score`, `mask`, `overlap`, and the same of single labels.
        size_hw: of the image.

    Returns:
        Best first by class probability, for merged stuff its best query's. Pixels that no mask reaches
        belong to no segment.

    Source:
        `panoptic_inference` of facebookresearch/Mask2Former, mask2former/maskformer_model.py; MaskFormer
        (Cheng et al., NeurIPS 2021), section 3.4.
    """
    probs_qk = class_logits_qk.float().softmax(dim=-1)
    scores_q, classes_q = probs_qk.max(dim=-1)
    floors_k = _floors(labels, thresholds, class_logits_qk.device)
    # "no object" has no floor: the last one only keeps the index inside
    keep_q = (classes_q != len(labels)) & (scores_q > floors_k[classes_q.clamp(max=len(labels) - 1)])
    if not bool(keep_q.any()):
        return ()
    scores_n, classes_n = scores_q[keep_q], classes_q[keep_q].tolist()
    owner_hw, won_n, own_n, given_n = _assign_pixels(
        mask_logits_qhw[keep_q].float(),
        scores_n,
        torch.tensor([thresholds.mask_for(labels[k]) for k in classes_n], device=scores_n.device),
        size_hw,
    )
    groups: dict[tuple[str, int], list[int]] = {}
    for index, class_id in enumerate(classes_n):
        if given_n[index] == 0 or won_n[index] / own_n[index] < thresholds.overlap_for(labels[class_id]):
            continue
        key = ("thing", index) if class_id in thing_ids else ("stuff", class_id)
        groups.setdefault(key, []).append(index)
    segments = []
    for members in groups.values():
        chosen_n = np.zeros(
            len(classes_n) + 1, dtype=np.bool_
        )  # the last entry is for -1: pixels without a query
        chosen_n[members] = True
        mask_hw, offset_yx = crop_mask(chosen_n[owner_hw])
        if mask_hw.size:
            score = max(float(scores_n[index]) for index in members)
            segments.append(_segment(mask_hw, offset_yx, labels[classes_n[members[0]]], score))
    return _best_first(segments)


def segments_of(task: SegmentationTask) -> Callable[..., tuple[Segment, ...]]:
    """Return the function above that belongs to a task."""
    return {
        SegmentationTask.INSTANCE: instance_segments,
        SegmentationTask.SEMANTIC: semantic_segments,
        SegmentationTask.PANOPTIC: panoptic_segments,
    }[task]


def _class_scores(class_logits_qk: Tensor) -> tuple[Tensor, Tensor]:
    scores_q, classes_q = class_logits_qk.float().softmax(dim=-1)[:, :-1].max(dim=-1)
    return scores_q, classes_q


def _floors(labels: Sequence[str], thresholds: Thresholds, device: torch.device) -> Tensor:
    return torch.tensor([thresholds.score_for(label) for label in labels], device=device)


def _instance(
    logits_hw: Tensor, size_hw: tuple[int, int], level: float
) -> tuple[BoolMask, tuple[int, int], float] | None:
    window = reach_window(logits_hw, size_hw, level)
    if window is None:
        return None
    inside_hw = np.empty((window.bottom - window.top, window.right - window.left), dtype=np.bool_)
    total, row = 0.0, 0
    for strip_hw in upsample_strips(logits_hw, size_hw, window, most_values=STRIP_VALUES):
        np.greater(strip_hw.numpy(), level, out=inside_hw[row : row + len(strip_hw)])
        row += len(strip_hw)
        # what is not above counts 0; a product with the mask would turn each of its bytes into a number
        total += float(functional.threshold(strip_hw, level, -math.inf, inplace=True).sigmoid_().sum())
    mask_hw, (top, left) = crop_mask(inside_hw)
    if not mask_hw.size:
        return None
    return mask_hw, (window.top + top, window.left + left), total / int(np.count_nonzero(mask_hw))


def _assign_pixels(
    mask_logits_nhw: Tensor, scores_n: Tensor, floors_n: Tensor, size_hw: tuple[int, int]
) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return each pixel's query (-1 for none), and per query its pixels: won, covered by its mask, both."""
    count = mask_logits_nhw.shape[0]
    owner_hw = np.empty(size_hw, dtype=np.int32)
    won_n, own_n, given_n = np.zeros((3, count), dtype=np.int64)
    for window in _strips(count, size_hw):
        probs_nhw = upsample_window(mask_logits_nhw, size_hw, window).sigmoid_()
        covered_nhw = probs_nhw >= floors_n[:, None, None]
        winner_hw = (
            (probs_nhw * scores_n[:, None, None]).max(dim=0).indices
        )  # argmax takes five times as long
        inside_hw = covered_nhw.gather(0, winner_hw[None])[0]
        won_n += torch.bincount(winner_hw.flatten(), minlength=count).cpu().numpy()
        given_n += torch.bincount(winner_hw[inside_hw], minlength=count).cpu().numpy()
        own_n += covered_nhw.flatten(1).sum(dim=1, dtype=torch.int64).cpu().numpy()
        owner_hw[window.top : window.bottom] = torch.where(inside_hw, winner_hw, -1).cpu().numpy()
    return owner_hw, won_n, own_n, given_n


def _strips(maps: int, size_hw: tuple[int, int]) -> list[Window]:
    height, width = size_hw
    rows = max(1, TILE_VALUES // max(1, maps * width))
    return [
        Window(top=top, left=0, bottom=min(height, top + rows), right=width) for top in range(0, height, rows)
    ]


def _logit(probability: float) -> float:
    if probability <= 0.0:
        return -math.inf
    return math.inf if probability >= 1.0 else math.log(probability / (1.0 - probability))


def _segment(mask_hw: BoolMask, offset_yx: tuple[int, int], label: str, score: float) -> Segment:
    return Segment(mask_hw=mask_hw, offset_yx=offset_yx, label=label, score=min(1.0, max(0.0, score)))


def _best_first(segments: list[Segment]) -> tuple[Segment, ...]:
    return tuple(sorted(segments, key=lambda segment: -segment.score))
