"""How good predictions are: COCO mask AP, panoptic quality and mean IoU over one set of images.

Neighbour `promotion` decides by these numbers; nothing here knows where images or models come from.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics.classification import MulticlassConfusionMatrix

from maskloop.masks import crop_mask, paste_segment, segments_to_index_map
from maskloop.types import HoldoutMetrics, Prediction, Segment, SegmentationTask

if TYPE_CHECKING:
    from maskloop.learning.dataset import TrainingExample
    from maskloop.segmentation.checkpoint import Checkpoint
    from maskloop.segmentation.postprocess import Thresholds

__all__ = ["evaluate", "evaluate_checkpoint"]

_BACKGROUND = 0  # class id of pixels that belong to no segment; label i has id i + 1


def evaluate(
    predictions: Sequence[Prediction],
    truths: Sequence[tuple[Segment, ...]],
    labels: Sequence[str],
    *,
    stuff_labels: Collection[str] = (),
) -> HoldoutMetrics:
    """Return AP50, PQ and mean IoU of predictions against what annotators drew.

    AP50 averages over the classes that occur in the truth; PQ and mean IoU over those that occur in truth or
    prediction. The background counts against a model that fills it but is no class of its own.

    Args:
        predictions: one per image, segments best first; they may overlap.
        truths: one tuple of segments per image, in the same order; later ones lie on top.
        labels: class names; a segment of any other label is an error.
        stuff_labels: classes without instances; their segments of one image are judged as one area.

    Returns:
        Metrics 0..1; all 0 with `images=0` where there is no image, and 1 where nothing was to be found
        and nothing was predicted.

    Raises:
        ValueError: different numbers of predictions and truths, or a label outside `labels`.
    """
    if len(predictions) != len(truths):
        raise ValueError(
            f"evaluate: expected one truth per prediction, got {len(truths)} for {len(predictions)}"
        )
    if not predictions:
        return HoldoutMetrics(ap50=0.0, pq=0.0, miou=0.0, images=0)
    class_ids = {label: index for index, label in enumerate(labels, start=1)}
    _check_labels([*truths, *(prediction.segments for prediction in predictions)], class_ids)
    sizes = [prediction.size_hw for prediction in predictions]
    stuff = frozenset(stuff_labels)
    found = [_merge_stuff(item.segments, item.size_hw, stuff) for item in predictions]
    wanted = [_merge_stuff(segments, size_hw, stuff) for segments, size_hw in zip(truths, sizes, strict=True)]
    if not any(found) and not any(wanted):
        return HoldoutMetrics(ap50=1.0, pq=1.0, miou=1.0, images=len(predictions))
    pq, miou = _pixel_metrics(found, wanted, sizes, class_ids)
    ap50 = _average_precision(found, wanted, sizes, class_ids)
    return HoldoutMetrics(ap50=ap50, pq=pq, miou=miou, images=len(predictions))


def evaluate_checkpoint(
    checkpoint: Checkpoint,
    examples: Sequence[TrainingExample],
    *,
    labels: Sequence[str] | None = None,
    task: SegmentationTask = SegmentationTask.INSTANCE,
    thresholds: Thresholds | None = None,
    batch: int = 8,
) -> HoldoutMetrics:
    """Return how good a model is on examples.

    Args:
        checkpoint: the model.
        examples: images and what annotators drew on them.
        labels: classes that count; what the model says of others is left out. None for those the model can
            name and those that occur.
        task: how the model is asked; for "semantic" each class of an image is judged as one area.
        thresholds: as the model is served with; the defaults of Thresholds where none are given.
        batch: images in one forward pass.

    Raises:
        ImageError: an example's image cannot be read.
    """
    from maskloop.learning.dataset import load_example_image
    from maskloop.segmentation.postprocess import Thresholds
    from maskloop.segmentation.predict import predict_images

    truths = [example.segments for example in examples]
    if labels is None:
        named = {segment.label for segments in truths for segment in segments}
        labels = (*checkpoint.labels, *sorted(named - set(checkpoint.labels)))
    predictions: list[Prediction] = []
    for start in range(0, len(examples), batch):
        images = [load_example_image(example) for example in examples[start : start + batch]]
        predictions.extend(
            predict_images(checkpoint, images, task=task, thresholds=thresholds or Thresholds())
        )
    counted = [_only_labels(prediction, frozenset(labels)) for prediction in predictions]
    return evaluate(counted, truths, labels, stuff_labels=_stuff_labels(checkpoint, labels, task))


def _only_labels(prediction: Prediction, labels: frozenset[str]) -> Prediction:
    return replace(prediction, segments=tuple(item for item in prediction.segments if item.label in labels))


def _stuff_labels(checkpoint: Checkpoint, labels: Sequence[str], task: SegmentationTask) -> set[str]:
    if task is SegmentationTask.INSTANCE:
        return set()
    things = {checkpoint.labels[index] for index in checkpoint.thing_ids}
    known = set(checkpoint.labels)
    return {label for label in labels if task is SegmentationTask.SEMANTIC or label in known - things}


def _check_labels(images: Sequence[tuple[Segment, ...]], class_ids: dict[str, int]) -> None:
    unknown = {segment.label for segments in images for segment in segments} - set(class_ids)
    if unknown:
        raise ValueError(f"evaluate: expected labels among {sorted(class_ids)}, got {sorted(unknown)}")


def _merge_stuff(
    segments: tuple[Segment, ...], size_hw: tuple[int, int], stuff: frozenset[str]
) -> tuple[Segment, ...]:
    """Return the segments with all those of one stuff class made one, with the best score among them."""
    merged = [segment for segment in segments if segment.label not in stuff]
    for label in sorted({segment.label for segment in segments} & stuff):
        parts = [segment for segment in segments if segment.label == label]
        mask_hw = np.logical_or.reduce([paste_segment(part, size_hw) for part in parts])
        crop_hw, offset_yx = crop_mask(mask_hw)
        if crop_hw.size:
            score = max(part.score for part in parts)
            merged.append(Segment(mask_hw=crop_hw, offset_yx=offset_yx, label=label, score=score))
    return tuple(merged)


def _pixel_metrics(
    found: Sequence[tuple[Segment, ...]],
    wanted: Sequence[tuple[Segment, ...]],
    sizes: Sequence[tuple[int, int]],
    class_ids: dict[str, int],
) -> tuple[float, float]:
    """Return panoptic quality and mean IoU; where segments overlap, the best prediction lies on top."""
    confusion = MulticlassConfusionMatrix(num_classes=len(class_ids) + 1, validate_args=False)
    tallies_4c = np.zeros((4, len(class_ids) + 1))  # IoU sum, matched, found, wanted
    for seen, truth, size_hw in zip(found, wanted, sizes, strict=True):
        on_top_last = tuple(reversed(seen))
        found_hw = segments_to_index_map(on_top_last, size_hw)
        wanted_hw = segments_to_index_map(truth, size_hw)
        found_class = np.array([_BACKGROUND, *(class_ids[segment.label] for segment in on_top_last)])
        wanted_class = np.array([_BACKGROUND, *(class_ids[segment.label] for segment in truth)])
        shape_fw = (len(found_class), len(wanted_class))
        joint = found_hw.ravel() * shape_fw[1] + wanted_hw.ravel()
        overlap_fw = np.bincount(joint, minlength=shape_fw[0] * shape_fw[1]).reshape(shape_fw)
        tallies_4c += _panoptic_tallies(overlap_fw, found_class, wanted_class, tallies_4c.shape[1])
        confusion.update(
            torch.from_numpy(found_class[found_hw].ravel()), torch.from_numpy(wanted_class[wanted_hw].ravel())
        )
    return _mean_quality(tallies_4c), _mean_iou(confusion.compute().to(torch.float64))


def _panoptic_tallies(
    overlap_fw: NDArray[np.int64],
    found_class: NDArray[np.int64],
    wanted_class: NDArray[np.int64],
    classes: int,
) -> NDArray[np.float64]:
    """Return float64 (4, classes) of one image: IoU sum, matched, found and wanted segments of each class.

    Args:
        overlap_fw: pixels that segment f of the prediction shares with segment w of the truth; row and
            column 0 are the background.
        found_class: class id of each row.
        wanted_class: class id of each column.
        classes: number of class ids.

    Source:
        Kirillov et al., Panoptic Segmentation, CVPR 2019, section 4.1; without void, so that what is
        predicted on the background counts as wrong.
    """
    found_area = overlap_fw.sum(axis=1)
    wanted_area = overlap_fw.sum(axis=0)
    union_fw = found_area[:, None] + wanted_area[None] - overlap_fw
    iou_fw = overlap_fw / np.maximum(union_fw, 1)
    match_fw = (iou_fw > 0.5) & (found_class[:, None] == wanted_class[None])
    rows, columns = np.nonzero(match_fw)
    matched_class = wanted_class[columns]
    return np.stack(
        [
            np.bincount(matched_class, weights=iou_fw[rows, columns], minlength=classes),
            np.bincount(matched_class, minlength=classes),
            np.bincount(found_class[found_area > 0], minlength=classes),
            np.bincount(wanted_class[wanted_area > 0], minlength=classes),
        ]
    )


def _mean_quality(tallies_4c: NDArray[np.float64]) -> float:
    iou_sum, _, found, wanted = tallies_4c[:, _BACKGROUND + 1 :]
    occurs = found + wanted > 0  # matched + half of the rest = half of all found and wanted
    return float((2 * iou_sum[occurs] / (found + wanted)[occurs]).mean()) if occurs.any() else 0.0


def _mean_iou(confusion_cc: Tensor) -> float:
    overlap_c = confusion_cc.diagonal()
    union_c = confusion_cc.sum(dim=0) + confusion_cc.sum(dim=1) - overlap_c
    occurs = union_c > 0
    occurs[_BACKGROUND] = False
    return float((overlap_c[occurs] / union_c[occurs]).mean()) if bool(occurs.any()) else 0.0


def _average_precision(
    found: Sequence[tuple[Segment, ...]],
    wanted: Sequence[tuple[Segment, ...]],
    sizes: Sequence[tuple[int, int]],
    class_ids: dict[str, int],
) -> float:
    """Return COCO mask AP at IoU 0.5 with at most 100 objects an image; 0 where the truth has no object."""
    from faster_coco_eval import COCO, COCOeval_faster

    if not any(wanted):
        return 0.0
    images = [
        {"id": index, "height": size_hw[0], "width": size_hw[1]}
        for index, size_hw in enumerate(sizes, start=1)
    ]
    annotations = _coco_records(wanted, sizes, class_ids)
    categories = [{"id": number, "name": label} for label, number in class_ids.items()]
    truth = COCO({"images": images, "annotations": annotations, "categories": categories})
    results = truth.loadRes(_coco_records(found, sizes, class_ids))
    judge = COCOeval_faster(truth, results, "segm", print_function=lambda *_: None)
    judge.params.iouThrs = np.array([0.5])
    judge.evaluate()
    judge.accumulate()
    # (IoU, recall, class, area, detections): all areas, the largest number of detections
    precision_rk: NDArray[np.float64] = judge.eval["precision"].reshape(
        1, len(judge.params.recThrs), len(categories), len(judge.params.areaRng), len(judge.params.maxDets)
    )[0, :, :, 0, -1]
    valid = precision_rk[precision_rk > -1]
    return float(valid.mean()) if valid.size else 0.0


def _coco_records(
    images: Sequence[tuple[Segment, ...]], sizes: Sequence[tuple[int, int]], class_ids: dict[str, int]
) -> list[dict[str, Any]]:
    from faster_coco_eval import mask as coco_mask

    records: list[dict[str, Any]] = []
    for image_id, (segments, size_hw) in enumerate(zip(images, sizes, strict=True), start=1):
        for segment in segments:
            top, left, bottom, right = segment.box_yxyx
            plane_hw1 = np.asfortranarray(paste_segment(segment, size_hw)[..., None].astype(np.uint8))
            records.append(
                {
                    "id": len(records) + 1,
                    "image_id": image_id,
                    "category_id": class_ids[segment.label],
                    "segmentation": coco_mask.encode(plane_hw1)[0],
                    "bbox": [left, top, right - left, bottom - top],
                    "area": segment.area,
                    "iscrowd": 0,
                    "score": segment.score,
                }
            )
    return records
