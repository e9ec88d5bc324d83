import numpy as np
import pytest
import torch

from maskloop.lab.synthetic.shapes import SHAPE_CLASSES, make_image
from maskloop.learning.evaluation.prediction_metrics import evaluate_predictions
from maskloop.masks import segments_to_index_map
from maskloop.types import HoldoutMetrics, Prediction, Segment

SIZE_HW = (20, 20)
LABELS = ("a", "b")


def box(top, left, height, width, label="a", score=1.0):
    return Segment(
        mask_hw=np.ones((height, width), dtype=bool), offset_yx=(top, left), label=label, score=score
    )


def predict(*segments, size_hw=SIZE_HW):
    return Prediction(segments=segments, size_hw=size_hw, confidence=1.0)


def make_imperfect(seed):
    """Return a truth and a prediction that misses, moves and mislabels some of it."""
    rng = np.random.default_rng(seed)
    truth = make_image(seed, size_hw=(64, 64)).segments
    seen = []
    for segment in truth:
        if rng.random() < 0.2:
            continue
        top, left = segment.offset_yx
        moved = (max(0, top + int(rng.integers(-6, 7))), max(0, left + int(rng.integers(-6, 7))))
        label = segment.label if rng.random() < 0.8 else str(rng.choice(SHAPE_CLASSES))
        seen.append(
            Segment(
                mask_hw=segment.mask_hw, offset_yx=moved, label=label, score=round(float(rng.random()), 3)
            )
        )
    return truth, predict(*sorted(seen, key=lambda s: -s.score), size_hw=(64, 64))


@pytest.mark.parametrize(
    ("found", "truth", "expected"),
    [
        ((box(2, 2, 10, 10),), (box(2, 2, 10, 10),), (1.0, 1.0, 1.0)),
        ((), (box(2, 2, 10, 10),), (0.0, 0.0, 0.0)),
        ((box(2, 2, 10, 10),), (), (0.0, 0.0, 0.0)),
        ((), (), (1.0, 1.0, 1.0)),
        # 10x10 against 10x8 inside it: IoU 0.8, one match
        ((box(2, 2, 10, 8),), (box(2, 2, 10, 10),), (1.0, 0.8, 0.8)),
        # half as large: IoU 0.5 is a match for COCO (>=), not for PQ (>)
        ((box(2, 2, 10, 5),), (box(2, 2, 10, 10),), (1.0, 0.0, 0.5)),
        # one of two objects found: AP is 51 of COCO's 101 recall points, PQ 1 / 1.5
        ((box(0, 0, 5, 5),), (box(0, 0, 5, 5), box(10, 10, 5, 5)), (51 / 101, 2 / 3, 0.5)),
        # right place, wrong class: "b" occurs in the prediction alone
        ((box(2, 2, 10, 10, "b"),), (box(2, 2, 10, 10),), (0.0, 0.0, 0.0)),
        # filling the background around a 5x5 object
        ((box(0, 0, 20, 20),), (box(0, 0, 5, 5),), (0.0, 0.0, 25 / 400)),
    ],
    ids=["same", "missed", "made-up", "nothing", "iou-0.8", "iou-0.5", "one-of-two", "wrong-class", "fills"],
)
def test_evaluate_predictions_hand_computed_cases(found, truth, expected):
    metrics = evaluate_predictions([predict(*found)], [truth], LABELS).metrics
    assert (metrics.ap50, metrics.pq, metrics.miou) == pytest.approx(expected)
    assert metrics.images == 1


def test_evaluate_predictions_no_images_is_zero():
    assert evaluate_predictions([], [], LABELS).metrics == HoldoutMetrics(
        ap50=0.0, pq=0.0, miou=0.0, images=0
    )


def test_evaluate_predictions_overlapping_predictions_best_lies_on_top():
    found = (box(0, 0, 10, 10, "a", 0.9), box(0, 0, 10, 20, "b", 0.5))
    truth = (box(0, 0, 10, 10, "a"), box(0, 10, 10, 10, "b"))
    metrics = evaluate_predictions([predict(*found)], [truth], LABELS).metrics
    assert (metrics.pq, metrics.miou) == pytest.approx((1.0, 1.0))


def test_evaluate_predictions_stuff_parts_count_as_one():
    found = (box(0, 0, 10, 20),)
    truth = (box(0, 0, 10, 10), box(0, 10, 10, 10))
    assert evaluate_predictions([predict(*found)], [truth], LABELS).metrics.pq == 0.0
    metrics = evaluate_predictions([predict(*found)], [truth], LABELS, stuff_labels=["a"]).metrics
    assert (metrics.ap50, metrics.pq, metrics.miou) == pytest.approx((1.0, 1.0, 1.0))


def test_evaluate_predictions_images_of_different_sizes():
    found = [predict(box(0, 0, 4, 4)), predict(box(0, 0, 30, 9), size_hw=(30, 10))]
    assert evaluate_predictions(
        found, [(box(0, 0, 4, 4),), (box(0, 0, 30, 9),)], LABELS
    ).metrics.pq == pytest.approx(1.0)


def test_evaluate_predictions_unknown_label_raises():
    with pytest.raises(ValueError, match="cat"):
        evaluate_predictions([predict(box(0, 0, 4, 4, "cat"))], [()], LABELS)


def test_evaluate_predictions_unequal_numbers_raises():
    with pytest.raises(ValueError, match="got 0 for 1"):
        evaluate_predictions([predict()], [], LABELS)


def test_evaluate_predictions_random_images_agrees_with_torchmetrics():
    from torchmetrics.detection import PanopticQuality  # a second, for this test alone
    from torchmetrics.functional.segmentation import mean_iou

    pairs = [make_imperfect(seed) for seed in range(12)]
    metrics = evaluate_predictions(
        [found for _, found in pairs], [truth for truth, _ in pairs], SHAPE_CLASSES
    ).metrics
    ids = {label: index for index, label in enumerate(SHAPE_CLASSES, start=1)}
    quality = PanopticQuality(things=set(ids.values()), stuffs={0}, return_per_class=True)
    planes = []
    for truth, found in pairs:
        maps = []
        for segments in (tuple(reversed(found.segments)), truth):
            index_hw = segments_to_index_map(segments, (64, 64))
            lookup = np.array([0, *(ids[s.label] for s in segments)])
            maps.append(torch.from_numpy(np.stack([lookup[index_hw], index_hw], axis=-1)))
        quality.update(maps[0][None], maps[1][None])
        planes.append([plane[..., 0].flatten() for plane in maps])
    flat = [torch.cat([pair[side] for pair in planes])[None] for side in (0, 1)]
    per_class = mean_iou(*flat, num_classes=6, per_class=True, include_background=False, input_format="index")
    assert metrics.pq == pytest.approx(float(quality.compute()[0, :-1].mean()))
    assert metrics.miou == pytest.approx(float(per_class.mean()), abs=1e-6)


def test_evaluate_predictions_random_images_ap_agrees_with_plain_python():
    pairs = [make_imperfect(seed) for seed in range(20)]
    metrics = evaluate_predictions(
        [found for _, found in pairs], [truth for truth, _ in pairs], SHAPE_CLASSES
    ).metrics
    per_class = [plain_ap50(pairs, label) for label in SHAPE_CLASSES]
    assert metrics.ap50 == pytest.approx(np.mean(per_class), abs=1e-9)


def plain_ap50(pairs, label):
    """COCO's AP at IoU 0.5, written out: greedy matching, precision made monotone, 101 recall points."""
    total, hits = 0, []
    for truth, found in pairs:
        true_masks = [paste(s) for s in truth if s.label == label]
        free = set(range(len(true_masks)))
        total += len(true_masks)
        for segment in (s for s in found.segments if s.label == label):
            plane = paste(segment)
            ious = {i: (plane & true_masks[i]).sum() / (plane | true_masks[i]).sum() for i in free}
            best = max(ious, key=ious.get, default=None)
            hit = best is not None and ious[best] >= 0.5
            free -= {best} if hit else set()
            hits.append((segment.score, hit))
    right = np.cumsum([hit for _, hit in sorted(hits, key=lambda pair: -pair[0])])
    precision = np.maximum.accumulate((right / np.arange(1, len(right) + 1))[::-1])[::-1]
    places = np.searchsorted(right / total, np.linspace(0, 1, 101))
    return np.mean([precision[i] if i < len(precision) else 0.0 for i in places])


def paste(segment):
    return segments_to_index_map((segment,), (64, 64)).astype(bool)
