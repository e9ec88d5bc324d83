"""A model's judgement on one set of images: tallies kept per image and class, numbers made from them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from maskloop.learning.evaluation.average_precision import (
    Floats,
    average_precision,
    boundary_iou_of_classes,
    mean_known,
    ratio,
)
from maskloop.learning.evaluation.coco_matching import Detections, match_image
from maskloop.learning.evaluation.ground_truth import GroundTruth, merge_stuff
from maskloop.learning.evaluation.pixel_counts import tally_image
from maskloop.types import HoldoutMetrics, Prediction, Segment

__all__ = ["Judgement", "judge"]

_DIGITS = 4  # of what is kept for each class and image


@dataclass(frozen=True, kw_only=True, eq=False)
class Judgement:
    """What came of comparing N predictions with the truth, for each of C classes."""

    labels: tuple[str, ...]  # the C classes
    known: frozenset[str]  # those of them that the model can name
    stuff: frozenset[str]  # those of them without instances
    keys: tuple[str, ...]  # name the N images
    panoptic_4nc: Floats  # IoU sum of the matched, then how many matched, found, wanted segments
    area_3nc: Floats  # pixels shared, found, wanted
    rim_3nc: Floats  # the same of the segments' inner rims
    objects_nc: Floats  # objects that are to be found, crowds not counted
    detections: Detections
    seconds_n: Floats  # from pixels to segments; NaN where it was not measured

    @property
    def images(self) -> int:
        """How many images were judged."""
        return len(self.keys)

    def scores(self, weights_rn: Floats) -> dict[str, Floats]:
        """Return ap50, pq, iou of each class, (R, C), under R weightings of the images.

        NaN where a class occurs neither in the truth nor in the predictions; for ap50 where it does not occur
        in the truth.
        """
        found = average_precision(self.detections, self.objects_nc, weights_rn, thresholds=slice(1))
        iou_sum, _, seen, wanted = self._weighed(self.panoptic_4nc, weights_rn)
        shared, seen_area, wanted_area = self._weighed(self.area_3nc, weights_rn)
        return {
            "ap50": found.precision_rtc[:, 0],
            "pq": ratio(2 * iou_sum, seen + wanted),  # matched + half of the rest = half of all
            "iou": ratio(shared, seen_area + wanted_area - shared),
        }

    @property
    def metrics(self) -> HoldoutMetrics:
        """The numbers of all images together."""
        if not self.images:
            return HoldoutMetrics(ap50=0.0, pq=0.0, miou=0.0, images=0)
        by_class = self._by_class()
        nothing = not (self.panoptic_4nc[2:].any() or self.area_3nc[1:].any() or self.objects_nc.any())
        nothing = nothing and not self.detections.class_d.size
        things_c = np.array([label not in self.stuff for label in self.labels], dtype=np.bool_)
        seconds_n = self.seconds_n[~np.isnan(self.seconds_n)]
        overall = {
            name: _plain(mean_known(values_c, 0), 1.0 if nothing else 0.0)
            for name, values_c in by_class.items()
        }
        return HoldoutMetrics(
            ap50=overall["ap50"],
            pq=overall["pq"],
            miou=overall["iou"],
            images=self.images,
            ap=overall["ap"],
            ar=overall["ar"],
            sq=overall["sq"],
            rq=overall["rq"],
            pq_things=_plain_or_none(mean_known(by_class["pq"][things_c], 0)),
            pq_stuff=_plain_or_none(mean_known(by_class["pq"][~things_c], 0)),
            boundary_iou=overall["boundary_iou"],
            seconds_per_image=float(np.median(seconds_n)) if seconds_n.size else None,
            per_class=self.per_class(),
        )

    def per_class(self) -> dict[str, dict[str, float]]:
        """Return the numbers of each class that occurs, with how many images and objects of it there are."""
        by_class = self._by_class()
        told = {}
        for index, label in enumerate(self.labels):
            numbers = {name: round(float(values_c[index]), _DIGITS) for name, values_c in by_class.items()}
            known = {name: value for name, value in numbers.items() if not np.isnan(value)}
            if known:
                told[label] = {
                    **known,
                    "images": float(np.count_nonzero(self.wanted_nc[:, index])),
                    "objects": float(self.objects_nc[:, index].sum()),
                }
        return told

    def per_image(self) -> list[dict[str, object]]:
        """Return the numbers of each image alone, means over the classes that occur on it."""
        weights_nn = np.eye(self.images)
        by_image = {name: mean_known(values, 1) for name, values in self.scores(weights_nn).items()}
        by_image["boundary_iou"] = mean_known(boundary_iou_of_classes(self.rim_3nc), 1)
        by_image["seconds"] = self.seconds_n
        return [
            {"image": key, **{name: _rounded(values_n[index]) for name, values_n in by_image.items()}}
            for index, key in enumerate(self.keys)
        ]

    @property
    def wanted_nc(self) -> NDArray[np.bool_]:
        """Which classes the truth has on which images, crowds not counted."""
        wanted_nc: NDArray[np.bool_] = (self.objects_nc > 0) | (self.panoptic_4nc[3] > 0)
        return wanted_nc

    def _by_class(self) -> dict[str, Floats]:
        """Return every number of each class, (C,), NaN where it is not defined."""
        all_1n = np.ones((1, self.images))
        found = average_precision(self.detections, self.objects_nc, all_1n)
        iou_sum, matched, seen, wanted = self.panoptic_4nc.sum(axis=1)
        by_class = {name: values_rc[0] for name, values_rc in self.scores(all_1n).items()}
        by_class["ap"] = found.precision_rtc[0].mean(axis=0)
        by_class["ar"] = found.recall_rtc[0].mean(axis=0)
        # panopticapi counts a class that occurs but was never matched with 0
        by_class["sq"] = np.where(seen + wanted > 0, np.nan_to_num(ratio(iou_sum, matched)), np.nan)
        by_class["rq"] = ratio(2 * matched, seen + wanted)
        by_class["boundary_iou"] = boundary_iou_of_classes(self.rim_3nc.sum(axis=1))
        return by_class

    @staticmethod
    def _weighed(tallies_xnc: Floats, weights_rn: Floats) -> Floats:
        return np.stack([weights_rn @ tally_nc for tally_nc in tallies_xnc])


def judge(
    predictions: Sequence[Prediction],
    truths: Sequence[GroundTruth | tuple[Segment, ...]],
    labels: Sequence[str],
    *,
    stuff_labels: Collection[str] = (),
    known: Collection[str] | None = None,
    keys: Sequence[str] | None = None,
    seconds: Sequence[float] | None = None,
) -> Judgement:
    """Compare predictions with what annotators drew.

    Args:
        predictions: one per image, segments best first; they may overlap.
        truths: one per image, in the same order.
        labels: class names; a segment of any other label is an error.
        stuff_labels: classes without instances; their segments of one image are judged as one area.
        known: labels that the model can name; None for all.
        keys: name the images; None for their positions.
        seconds: each image took.

    Raises:
        ValueError: different numbers of predictions and truths, or a label outside `labels`.
    """
    if len(predictions) != len(truths):
        raise ValueError(
            f"judge: expected one truth per prediction, got {len(truths)} for {len(predictions)}"
        )
    wanted = [item if isinstance(item, GroundTruth) else GroundTruth(segments=item) for item in truths]
    class_ids = {label: index for index, label in enumerate(labels)}
    _check_labels(predictions, wanted, class_ids)
    stuff = frozenset(stuff_labels)
    pixel, detections, objects = [], [], []
    for index, (prediction, truth) in enumerate(zip(predictions, wanted, strict=True)):
        found = merge_stuff(prediction.segments, prediction.size_hw, stuff)
        there = GroundTruth(
            segments=merge_stuff(truth.segments, prediction.size_hw, stuff),
            crowds=truth.crowds,
            ignored_hw=truth.ignored_hw,
        )
        pixel.append(tally_image(found, there, prediction.size_hw, class_ids))
        detections.append(match_image(found, there, labels=labels, image=index))
        objects.append(_count(there.segments, class_ids))
    return Judgement(
        labels=tuple(labels),
        known=frozenset(labels if known is None else known) & set(labels),
        stuff=stuff,
        keys=tuple(map(str, range(len(wanted)))) if keys is None else tuple(keys),
        panoptic_4nc=_stacked([tally.panoptic_4c for tally in pixel], (4, len(labels))),
        area_3nc=_stacked([tally.area_3c for tally in pixel], (3, len(labels))),
        rim_3nc=_stacked([tally.rim_3c for tally in pixel], (3, len(labels))),
        objects_nc=np.array(objects, np.float64).reshape(len(wanted), len(labels)),
        detections=Detections.joined(detections),
        seconds_n=np.full(len(wanted), np.nan) if seconds is None else np.asarray(seconds, np.float64),
    )


def _check_labels(
    predictions: Sequence[Prediction], truths: Sequence[GroundTruth], class_ids: Mapping[str, int]
) -> None:
    said = [prediction.segments for prediction in predictions]
    drawn = [(*truth.segments, *truth.crowds) for truth in truths]
    unknown = {segment.label for segments in (*said, *drawn) for segment in segments} - set(class_ids)
    if unknown:
        raise ValueError(f"judge: expected labels among {sorted(class_ids)}, got {sorted(unknown)}")


def _count(segments: Sequence[Segment], class_ids: Mapping[str, int]) -> Floats:
    ids = np.array([class_ids[segment.label] for segment in segments], np.int64)
    return np.bincount(ids, minlength=len(class_ids)).astype(np.float64)


def _stacked(tallies: Sequence[Floats], shape_xc: tuple[int, int]) -> Floats:
    return np.stack(tallies, axis=1) if tallies else np.zeros((shape_xc[0], 0, shape_xc[1]))


def _plain(value: Floats, otherwise: float) -> float:
    return otherwise if np.isnan(value) else float(value)


def _plain_or_none(value: Floats) -> float | None:
    return None if np.isnan(value) else float(value)


def _rounded(value: np.float64) -> float | None:
    return None if np.isnan(value) else round(float(value), _DIGITS)
