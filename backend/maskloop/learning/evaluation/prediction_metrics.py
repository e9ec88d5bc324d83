"""The evaluation of one model on a set of images: counts per image and class, and the metrics from them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

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
from maskloop.learning.evaluation.pixel_counts import count_pixels
from maskloop.types import HoldoutMetrics, Prediction, Segment

__all__ = ["Evaluation", "evaluate_predictions", "join_evaluations"]

_DIGITS = 4  # of the stored metrics of each class and image


@dataclass(frozen=True, kw_only=True, eq=False)
class Evaluation:
    """Counts from comparing predictions on N images with the ground truth, for C classes."""

    labels: tuple[str, ...]  # names of the C classes
    known: frozenset[str]  # classes that the model has
    stuff: frozenset[str]  # classes without instances
    keys: tuple[str, ...]  # names of the N images
    panoptic_4nc: Floats  # sum of IoU of matched segments; number of matched, predicted, true segments
    area_3nc: Floats  # pixels: intersection, predicted, true
    boundary_3nc: Floats  # the same of boundary pixels
    objects_nc: Floats  # objects in the ground truth without crowds
    detections: Detections
    seconds_n: Floats  # seconds from pixels to segments; NaN where not measured
    groups: tuple[str, ...] = ()  # of the N images: copies are in one; empty: each image is alone

    @property
    def images(self) -> int:
        """Number of images."""
        return len(self.keys)

    @property
    def independent_images(self) -> int:
        """Number of images where copies count once."""
        return len(set(self.groups)) if self.groups else self.images

    def count_images(self, chosen_n: Any) -> int:
        """Return how many of the chosen images there are where copies count once; bool (N,)."""
        if not self.groups:
            return int(np.count_nonzero(chosen_n))
        return len({group for group, chosen in zip(self.groups, chosen_n, strict=True) if chosen})

    def scores(self, weights_rn: Floats) -> dict[str, Floats]:
        """Return ap50, pq and iou of each class, (R, C), under R weightings of the images.

        pq and iou are NaN where a class occurs neither in the ground truth nor in the predictions, ap50 where
        it does not occur in the ground truth.
        """
        found = average_precision(self.detections, self.objects_nc, weights_rn, thresholds=slice(1))
        iou_sum, _, found_count, true_count = self._weighted(self.panoptic_4nc, weights_rn)
        shared, found_area, true_area = self._weighted(self.area_3nc, weights_rn)
        return {
            "ap50": found.precision_rtc[:, 0],
            "pq": ratio(2 * iou_sum, found_count + true_count),  # TP + FP/2 + FN/2 = half of all segments
            "iou": ratio(shared, found_area + true_area - shared),
        }

    @property
    def metrics(self) -> HoldoutMetrics:
        """The metrics of all images; all 0 without images, 1 where nothing is there and nothing predicted."""
        if not self.images:
            return HoldoutMetrics(ap50=0.0, pq=0.0, miou=0.0, images=0)
        by_class = self._by_class()
        anything = self.panoptic_4nc[2:].any() or self.area_3nc[1:].any() or self.objects_nc.any()
        empty = not anything and not self.detections.class_d.size
        things_c = np.array([label not in self.stuff for label in self.labels], dtype=np.bool_)
        seconds_n = self.seconds_n[~np.isnan(self.seconds_n)]
        overall = {
            name: _plain(mean_known(values_c, 0), 1.0 if empty else 0.0)
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
        """Return the metrics of each class that occurs, and its number of images and objects."""
        by_class = self._by_class()
        metrics = {}
        for index, label in enumerate(self.labels):
            numbers = {name: round(float(values_c[index]), _DIGITS) for name, values_c in by_class.items()}
            known = {name: value for name, value in numbers.items() if not np.isnan(value)}
            if known:
                metrics[label] = {
                    **known,
                    "images": float(np.count_nonzero(self.present_nc[:, index])),
                    "objects": float(self.objects_nc[:, index].sum()),
                }
        return metrics

    def per_image(self) -> list[dict[str, object]]:
        """Return the metrics of each image alone, means over the classes that occur on it."""
        weights_nn = np.eye(self.images)
        by_image = {name: mean_known(values, 1) for name, values in self.scores(weights_nn).items()}
        by_image["boundary_iou"] = mean_known(boundary_iou_of_classes(self.boundary_3nc), 1)
        by_image["seconds"] = self.seconds_n
        return [
            {"image": key, **{name: _rounded(values_n[index]) for name, values_n in by_image.items()}}
            for index, key in enumerate(self.keys)
        ]

    @property
    def present_nc(self) -> NDArray[np.bool_]:
        """Bool (N, C): which classes the ground truth of which image has, without crowds."""
        present: NDArray[np.bool_] = (self.objects_nc > 0) | (self.panoptic_4nc[3] > 0)
        return present

    def _by_class(self) -> dict[str, Floats]:
        """Return each metric of each class, (C,); NaN where it is not defined."""
        all_1n = np.ones((1, self.images))
        found = average_precision(self.detections, self.objects_nc, all_1n)
        iou_sum, matched, found_count, true_count = self.panoptic_4nc.sum(axis=1)
        by_class = {name: values_rc[0] for name, values_rc in self.scores(all_1n).items()}
        by_class["ap"] = found.precision_rtc[0].mean(axis=0)
        by_class["ar"] = found.recall_rtc[0].mean(axis=0)
        # as in panopticapi, a class that occurs and is never matched has 0
        by_class["sq"] = np.where(
            found_count + true_count > 0, np.nan_to_num(ratio(iou_sum, matched)), np.nan
        )
        by_class["rq"] = ratio(2 * matched, found_count + true_count)
        by_class["boundary_iou"] = boundary_iou_of_classes(self.boundary_3nc.sum(axis=1))
        return by_class

    @staticmethod
    def _weighted(counts_xnc: Floats, weights_rn: Floats) -> Floats:
        return np.stack([weights_rn @ counts_nc for counts_nc in counts_xnc])


def evaluate_predictions(
    predictions: Sequence[Prediction],
    truths: Sequence[GroundTruth | tuple[Segment, ...]],
    labels: Sequence[str],
    *,
    stuff_labels: Collection[str] = (),
    known: Collection[str] | None = None,
    keys: Sequence[str] | None = None,
    seconds: Sequence[float] | None = None,
    groups: Sequence[str] = (),
) -> Evaluation:
    """Return the evaluation of predictions against the ground truth.

    AP is the mean over the classes that occur in the ground truth; PQ and IoU over those that occur there or
    in the predictions. An object predicted on background counts against the model; background is no class.

    Args:
        predictions: one per image, segments best first; they may overlap.
        truths: one per image, in the same order.
        labels: class names; a segment of any other label is an error.
        stuff_labels: classes without instances; their segments of one image are evaluated as one area.
        known: labels that the model has; None for all.
        keys: names of the images; None for their positions.
        seconds: time of each image.
        groups: group of each image, the same for copies; empty: each image is alone.

    Raises:
        ValueError: different numbers of predictions and truths, or a label outside `labels`.
    """
    if len(predictions) != len(truths):
        raise ValueError(
            "evaluate_predictions: expected one truth per prediction, "
            f"got {len(truths)} for {len(predictions)}"
        )
    given = [item if isinstance(item, GroundTruth) else GroundTruth(segments=item) for item in truths]
    class_ids = {label: index for index, label in enumerate(labels)}
    _check_labels(predictions, given, class_ids)
    stuff = frozenset(stuff_labels)
    counts, detections, objects = [], [], []
    for index, (prediction, truth) in enumerate(zip(predictions, given, strict=True)):
        found = merge_stuff(prediction.segments, prediction.size_hw, stuff)
        merged = GroundTruth(
            segments=merge_stuff(truth.segments, prediction.size_hw, stuff),
            crowds=truth.crowds,
            ignored_hw=truth.ignored_hw,
        )
        counts.append(count_pixels(found, merged, prediction.size_hw, class_ids))
        detections.append(match_image(found, merged, labels=labels, image=index))
        objects.append(_count(merged.segments, class_ids))
    return Evaluation(
        labels=tuple(labels),
        known=frozenset(labels if known is None else known) & set(labels),
        stuff=stuff,
        keys=tuple(map(str, range(len(given)))) if keys is None else tuple(keys),
        panoptic_4nc=_stacked([one.panoptic_4c for one in counts], (4, len(labels))),
        area_3nc=_stacked([one.area_3c for one in counts], (3, len(labels))),
        boundary_3nc=_stacked([one.boundary_3c for one in counts], (3, len(labels))),
        objects_nc=np.array(objects, np.float64).reshape(len(given), len(labels)),
        detections=Detections.joined(detections),
        seconds_n=np.full(len(given), np.nan) if seconds is None else np.asarray(seconds, np.float64),
        groups=tuple(groups),
    )


def join_evaluations(parts: Sequence[Evaluation]) -> Evaluation:
    """Return evaluations of the same classes on different images as one.

    Raises:
        ValueError: none, or other classes.
    """
    if not parts or len({(part.labels, part.stuff) for part in parts}) != 1:
        raise ValueError(f"join_evaluations: expected parts with the same classes, got {len(parts)} parts")
    starts = np.cumsum([0, *(part.images for part in parts)])
    shifted = [
        replace(part.detections, image_d=part.detections.image_d + start)
        for part, start in zip(parts, starts[:-1], strict=True)
    ]
    grouped = any(part.groups for part in parts)
    return Evaluation(
        labels=parts[0].labels,
        known=frozenset[str]().union(*(part.known for part in parts)),
        stuff=parts[0].stuff,
        keys=tuple(key for part in parts for key in part.keys),
        panoptic_4nc=np.concatenate([part.panoptic_4nc for part in parts], axis=1),
        area_3nc=np.concatenate([part.area_3nc for part in parts], axis=1),
        boundary_3nc=np.concatenate([part.boundary_3nc for part in parts], axis=1),
        objects_nc=np.concatenate([part.objects_nc for part in parts]),
        detections=Detections.joined(shifted),
        seconds_n=np.concatenate([part.seconds_n for part in parts]),
        groups=tuple(group for part in parts for group in (part.groups or part.keys)) if grouped else (),
    )


def _check_labels(
    predictions: Sequence[Prediction], truths: Sequence[GroundTruth], class_ids: Mapping[str, int]
) -> None:
    predicted = [prediction.segments for prediction in predictions]
    drawn = [(*truth.segments, *truth.crowds) for truth in truths]
    unknown = {segment.label for segments in (*predicted, *drawn) for segment in segments} - set(class_ids)
    if unknown:
        raise ValueError(
            f"evaluate_predictions: expected labels among {sorted(class_ids)}, got {sorted(unknown)}"
        )


def _count(segments: Sequence[Segment], class_ids: Mapping[str, int]) -> Floats:
    ids = np.array([class_ids[segment.label] for segment in segments], np.int64)
    return np.bincount(ids, minlength=len(class_ids)).astype(np.float64)


def _stacked(counts: Sequence[Floats], shape_xc: tuple[int, int]) -> Floats:
    return np.stack(counts, axis=1) if counts else np.zeros((shape_xc[0], 0, shape_xc[1]))


def _plain(value: Floats, default: float) -> float:
    return default if np.isnan(value) else float(value)


def _plain_or_none(value: Floats) -> float | None:
    return None if np.isnan(value) else float(value)


def _rounded(value: np.float64) -> float | None:
    return None if np.isnan(value) else round(float(value), _DIGITS)
