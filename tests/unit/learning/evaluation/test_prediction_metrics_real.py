"""Our numbers against the reference definitions, on real annotations where they are at hand."""

import contextlib
import io
import json
from collections import defaultdict

import numpy as np
import pytest
from faster_coco_eval import COCO, COCOeval_faster
from faster_coco_eval import mask as coco_mask
from PIL import Image
from tests.paths import SHARED

from maskloop.lab.synthetic.coco import read_coco
from maskloop.learning.evaluation.ground_truth import GroundTruth
from maskloop.learning.evaluation.prediction_metrics import evaluate_predictions
from maskloop.masks import mask_to_segment, paste_segment
from maskloop.types import Prediction, Segment

DATA = SHARED / "data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="real images are not at hand")


def imperfect(segments, size_hw, labels, rng):
    """Return segments of which some are missed, moved, mislabelled, doubled or made up; best first."""
    found = []
    for segment in segments:
        for _ in range(int(rng.choice([0, 1, 1, 1, 2]))):
            shift = rng.normal(scale=0.06, size=2) * segment.mask_hw.shape
            top, left = np.maximum(0, np.rint(segment.offset_yx + shift)).astype(int)
            mask_hw = segment.mask_hw[: size_hw[0] - top, : size_hw[1] - left]
            if not mask_hw.any():
                continue
            label = segment.label if rng.random() < 0.85 else str(rng.choice(labels))
            score = round(float(rng.random()), 2)  # ties happen
            found.append(Segment(mask_hw=mask_hw, offset_yx=(int(top), int(left)), label=label, score=score))
    return Prediction(
        segments=tuple(sorted(found, key=lambda item: -item.score)), size_hw=size_hw, confidence=1.0
    )


def coco_numbers(truths, predictions, labels):
    """Return AP, AP50 and AR of faster-coco-eval, over objects of all sizes."""

    def records(image_id, segments, size_hw, crowd):
        for segment in segments:
            plane_hw = paste_segment(segment, size_hw).astype(np.uint8)
            yield {
                "image_id": image_id,
                "category_id": labels.index(segment.label) + 1,
                "segmentation": coco_mask.encode(np.asfortranarray(plane_hw[..., None]))[0],
                "bbox": [segment.offset_yx[1], segment.offset_yx[0], *segment.mask_hw.shape[::-1]],
                "area": segment.area,
                "iscrowd": int(crowd),
                "score": segment.score,
            }

    annotations, found = [], []
    for image_id, (truth, prediction) in enumerate(zip(truths, predictions, strict=True), start=1):
        annotations += records(image_id, truth.segments, prediction.size_hw, False)
        annotations += records(image_id, truth.crowds, prediction.size_hw, True)
        found += records(image_id, prediction.segments, prediction.size_hw, False)
    for number, record in enumerate(annotations, start=1):
        record["id"] = number
    images = [
        {"id": number, "height": item.size_hw[0], "width": item.size_hw[1]}
        for number, item in enumerate(predictions, start=1)
    ]
    categories = [{"id": number, "name": label} for number, label in enumerate(labels, start=1)]
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO({"images": images, "annotations": annotations, "categories": categories})
        coco_eval = COCOeval_faster(coco, coco.loadRes(found), "segm", print_function=lambda *_: None)
        coco_eval.evaluate()
        coco_eval.accumulate()
        coco_eval.summarize()
    return coco_eval.stats[0], coco_eval.stats[1], coco_eval.stats[8]


@needs_data
@pytest.mark.parametrize("name", ["coco104", "fruits"])
def test_evaluate_predictions_real_annotations_ap_is_cocos(name):
    rng = np.random.default_rng(5)
    images = read_coco(DATA / name)[:40]
    truths = [GroundTruth(segments=image.segments, crowds=image.crowds) for image in images]
    labels = sorted({segment.label for truth in truths for segment in (*truth.segments, *truth.crowds)})
    predictions = [
        imperfect((*image.segments, *image.crowds), image.size_hw, labels, rng) for image in images
    ]
    assert name != "coco104" or any(truth.crowds for truth in truths)
    metrics = evaluate_predictions(predictions, truths, labels).metrics
    assert (metrics.ap, metrics.ap50, metrics.ar) == pytest.approx(
        coco_numbers(truths, predictions, labels), abs=1e-9
    )


def pq_compute(truths, predictions, labels):
    """panopticapi's `pq_compute_single_core` and `pq_average`, pixel sets in place of its arrays.

    Returns pq, sq, rq; what no segment of the truth covers is void, as in its PNG files.
    """
    iou_sum, hits, wrong, missed = (defaultdict(float) for _ in range(4))
    for truth, prediction in zip(truths, predictions, strict=True):
        gt_map = np.zeros(prediction.size_hw, int)
        gt_segms, pred_segms = {}, {}
        for number, segment in enumerate((*truth.crowds, *truth.segments), start=1):
            gt_map[paste_segment(segment, prediction.size_hw)] = number
            gt_segms[number] = (segment.label, number <= len(truth.crowds))
        pred_map = np.zeros(prediction.size_hw, int)
        for number, segment in enumerate(reversed(prediction.segments), start=1):
            pred_map[paste_segment(segment, prediction.size_hw)] = number
            pred_segms[number] = segment.label
        pairs, counts = np.unique(np.stack([gt_map.ravel(), pred_map.ravel()]), axis=1, return_counts=True)
        joint = {(int(g), int(p)): int(n) for (g, p), n in zip(pairs.T, counts, strict=True)}
        gt_matched, pred_matched = set(), set()
        for (g, p), shared in joint.items():
            if g not in gt_segms or p not in pred_segms:
                continue
            label, crowd = gt_segms[g]
            if crowd or label != pred_segms[p]:
                continue
            union = (pred_map == p).sum() + (gt_map == g).sum() - shared - joint.get((0, p), 0)
            if shared / union > 0.5:
                hits[label] += 1
                iou_sum[label] += shared / union
                gt_matched.add(g)
                pred_matched.add(p)
        crowd_of_label = {}
        for g, (label, crowd) in gt_segms.items():
            if g in gt_matched or not (gt_map == g).any():
                continue
            if crowd:
                crowd_of_label[label] = g
            else:
                missed[label] += 1
        for p, label in pred_segms.items():
            if p in pred_matched or not (pred_map == p).any():
                continue
            excused = joint.get((0, p), 0) + joint.get((crowd_of_label.get(label, -1), p), 0)
            if excused / (pred_map == p).sum() <= 0.5:
                wrong[label] += 1
    rows = []
    for label in labels:
        tp, fp, fn = hits[label], wrong[label], missed[label]
        if tp + fp + fn:
            rows.append(
                (
                    iou_sum[label] / (tp + fp / 2 + fn / 2),
                    iou_sum[label] / tp if tp else 0.0,
                    tp / (tp + fp / 2 + fn / 2),
                )
            )
    return tuple(np.mean(rows, axis=0))


def read_panoptic(folder):
    """Return (truths, sizes, class names, names of stuff) of the folder, void as it is in its files."""
    content = json.loads((folder / "panoptic.json").read_text())
    names = {category["id"]: category["name"] for category in content["categories"]}
    stuff = {category["name"] for category in content["categories"] if not category["isthing"]}
    truths = []
    for annotation in content["annotations"]:
        with Image.open(folder / "panoptic" / annotation["file_name"]) as opened:
            ids_hw = np.asarray(opened.convert("RGB"), int) @ [1, 256, 65536]
        segments, crowds = [], []
        for record in annotation["segments_info"]:
            segment = mask_to_segment(ids_hw == record["id"], label=names[record["category_id"]])
            (crowds if record["iscrowd"] else segments).append(segment)
        truths.append(GroundTruth(segments=tuple(segments), crowds=tuple(crowds), ignored_hw=ids_hw == 0))
    return truths, sorted(names.values()), stuff


def with_void(image):
    """Return the truth of an image of COCO instances, with void wherever it has nothing."""
    drawn = [paste_segment(segment, image.size_hw) for segment in (*image.segments, *image.crowds)]
    ignored_hw = ~np.logical_or.reduce([np.zeros(image.size_hw, bool), *drawn])
    return GroundTruth(segments=image.segments, crowds=image.crowds, ignored_hw=ignored_hw)


@needs_data
@pytest.mark.parametrize("name", ["panoptic2", "coco104", "fruits"])
def test_evaluate_predictions_real_annotations_pq_is_panopticapis(name):
    rng = np.random.default_rng(6)
    if name == "panoptic2":
        truths, labels, stuff = read_panoptic(DATA / name)
    else:
        images = read_coco(DATA / name)[: 12 if name == "coco104" else 3]
        truths, stuff = [with_void(image) for image in images], set()
        labels = sorted({segment.label for truth in truths for segment in (*truth.segments, *truth.crowds)})
    predictions = [
        imperfect((*truth.segments, *truth.crowds), truth.ignored_hw.shape, labels, rng) for truth in truths
    ]
    metrics = evaluate_predictions(predictions, truths, labels).metrics
    assert (metrics.pq, metrics.sq, metrics.rq) == pytest.approx(
        pq_compute(truths, predictions, labels), abs=1e-12
    )
    parts = evaluate_predictions(predictions, truths, labels, stuff_labels=stuff).metrics
    assert (parts.pq_stuff is None) is (name != "panoptic2")


@needs_data
def test_evaluate_predictions_real_panoptic_against_itself_is_one():
    truths, labels, stuff = read_panoptic(DATA / "panoptic2")
    predictions_as_stuff = [
        Prediction(segments=(*truth.segments, *truth.crowds), size_hw=truth.ignored_hw.shape, confidence=1.0)
        for truth in truths
    ]
    metrics = evaluate_predictions(predictions_as_stuff, truths, labels, stuff_labels=stuff).metrics
    assert (metrics.pq, metrics.pq_things, metrics.pq_stuff, metrics.miou) == (1.0, 1.0, 1.0, 1.0)
    assert (metrics.ap, metrics.ar, metrics.boundary_iou) == pytest.approx((1.0, 1.0, 1.0))
