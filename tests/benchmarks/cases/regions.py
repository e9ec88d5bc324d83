"""Logits -> 30 regions as JSON text, brush and polygon: time, memory, and how alike both ways draw."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from ..harness.case import Budget, Case, Result, Skip, Spread
from ..harness.memory import peak_bytes
from ..harness.timing import side_by_side

__all__ = ["CASES"]

SIZES_HW = {"480p": (480, 640), "1080p": (1080, 1920), "12MP": (3000, 4000)}
LOW_HW = {"480p": (200, 272), "1080p": (200, 356), "12MP": (200, 272)}  # a quarter of the model's input
FORMS = ("brush", "polygon")
QUERIES, CLASSES, OBJECTS = 100, 80, 30
LEAST_MEAN_IOU = 0.9
SEED = 7


def make_logits(low_hw: tuple[int, int]) -> tuple[Any, Any]:
    """Return class logits (1, Q, K + 1) and mask logits (1, Q, h, w): 30 objects among blobs."""
    import cv2
    import numpy as np
    import torch

    rng = np.random.default_rng(SEED)
    height, width = low_hw
    y, x = np.mgrid[:height, :width].astype(np.float32)
    class_logits = rng.normal(0, 1, (QUERIES, CLASSES + 1)).astype(np.float32)
    class_logits[:, -1] += 8.0
    masks = np.empty((QUERIES, height, width), dtype=np.float32)
    for query in range(QUERIES):
        wave = cv2.GaussianBlur(rng.standard_normal(low_hw).astype(np.float32), (0, 0), 4)
        center_y, center_x = rng.uniform(0.1, 0.9) * height, rng.uniform(0.1, 0.9) * width
        # most objects of a photo are small, few are large
        radius = height * np.exp(rng.uniform(np.log(0.04), np.log(0.35)))
        stretch, angle = rng.uniform(0.5, 2.0), rng.uniform(0, np.pi)
        along = (x - center_x) * np.cos(angle) + (y - center_y) * np.sin(angle)
        across = (y - center_y) * np.cos(angle) - (x - center_x) * np.sin(angle)
        distance = np.hypot(along / stretch, across * stretch)
        masks[query] = np.clip((1 - distance / radius + 1.5 * wave) * 12, -15, 15)
    for query in rng.choice(QUERIES, OBJECTS, replace=False):
        class_logits[query, rng.integers(CLASSES)] += 16.0
    return torch.from_numpy(class_logits)[None], torch.from_numpy(masks)[None]


def reference_way(name: str, form: str) -> Callable[[], tuple[str, list[Any]]]:
    """Return the work as a user would write it; it gives the JSON text and the masks it drew."""
    import numpy as np
    from transformers import Mask2FormerImageProcessorPil

    processor = Mask2FormerImageProcessorPil()
    class_logits, mask_logits = make_logits(LOW_HW[name])
    outputs = SimpleNamespace(class_queries_logits=class_logits, masks_queries_logits=mask_logits)
    size_hw = SIZES_HW[name]

    def work() -> tuple[str, list[Any]]:
        found = processor.post_process_instance_segmentation(
            outputs, threshold=0.5, target_sizes=[size_hw], return_binary_maps=True
        )[0]
        masks = [mask.numpy().astype(np.uint8) for mask in found["segmentation"]]
        regions = [
            {
                "from_name": "drawn",
                "to_name": "image",
                "type": f"{form}labels",
                "original_width": size_hw[1],
                "original_height": size_hw[0],
                "image_rotation": 0,
                "score": info["score"],
                "value": {**value, f"{form}labels": [f"class{info['label_id']}"]},
            }
            for mask, info in zip(masks, found["segments_info"], strict=True)
            for value in reference_values(mask, form)
        ]
        return json.dumps(regions), masks

    return work


def reference_values(mask_hw: Any, form: str) -> list[dict[str, Any]]:
    """Return a mask as the geometry of one brush region, or of a polygon for each of its parts."""
    import cv2
    from label_studio_sdk.converter.brush import mask2rle

    if form == "brush":
        return [{"format": "rle", "rle": mask2rle(mask_hw * 255)}]
    height, width = mask_hw.shape
    contours, _ = cv2.findContours(mask_hw, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    outlines = [cv2.approxPolyDP(contour, 1.0, True)[:, 0] for contour in contours]
    percent = (100 / width, 100 / height)
    return [{"points": (line * percent).tolist(), "closed": True} for line in outlines if len(line) > 2]


def our_way(name: str, form: str) -> Callable[[], tuple[bytes, Any]]:
    """Return our work; it gives the JSON bytes, as the server makes them, and the segments it drew."""
    from pydantic_core import to_json

    from maskloop.segmentation.postprocess import Thresholds, instance_segments
    from maskloop.types import Prediction
    from maskloop_studio.formats import prediction_to_regions
    from maskloop_studio.formats.label_config import map_labels, parse_label_config

    class_logits, mask_logits = (logits[0] for logits in make_logits(LOW_HW[name]))
    labels = tuple(f"class{index}" for index in range(CLASSES))
    tag = f"{form.capitalize()}Labels"
    config = parse_label_config(
        f'<View><Image name="image" value="$image"/><{tag} name="drawn" toName="image">'
        + "".join(f'<Label value="{label}"/>' for label in labels)
        + f"</{tag}></View>"
    )
    label_map = map_labels(config, labels)
    thresholds = Thresholds()

    def work() -> tuple[bytes, Any]:
        segments = instance_segments(
            class_logits,
            mask_logits,
            labels=labels,
            thing_ids=range(CLASSES),
            thresholds=thresholds,
            size_hw=SIZES_HW[name],
        )
        prediction = Prediction(segments=segments, size_hw=SIZES_HW[name], confidence=0.5)
        regions = prediction_to_regions(prediction, label_map, id_seed="bench")
        return to_json(regions), segments

    return work


def check_same(name: str, form: str, ours: tuple[bytes, Any], reference: tuple[str, list[Any]]) -> str:
    """Check masks and regions against each other and against a plain full-frame resize; return how."""
    import numpy as np

    segments, theirs = ours[1], reference[1]
    assert len(segments) == len(theirs) == OBJECTS, (len(segments), len(theirs))
    masks = [pasted(segment, SIZES_HW[name]) for segment in segments]
    ious = []
    for mask in masks:
        one = max(iou(mask, other.view(np.bool_)) for other in theirs)
        ious.append(one)
    assert np.mean(ious) >= LEAST_MEAN_IOU, ious
    wrong = differing_from_plain(name, masks)
    assert wrong <= 1e-5, wrong
    least = least_drawn(name, form, ours[0], segments)
    assert least >= (1.0 if form == "brush" else 0.97), least
    return (
        f"mask IoU with theirs {np.mean(ious):.3f} mean, {min(ious):.3f} least; with plain bilinear "
        f"{1 - wrong:.6f} of pixels; regions drawn again {least:.3f} least"
    )


def pasted(segment: Any, size_hw: tuple[int, int]) -> Any:
    """Return the segment's mask in the whole image."""
    from maskloop.masks import paste_segment

    return paste_segment(segment, size_hw)


def iou(first: Any, second: Any) -> float:
    """Return the intersection over union of two masks."""
    import numpy as np

    return float(np.count_nonzero(first & second) / max(1, np.count_nonzero(first | second)))


def differing_from_plain(name: str, masks: list[Any]) -> float:
    """Return the largest share of pixels in which a mask differs from the nearest of torch's own resizes."""
    import numpy as np
    from torch.nn import functional

    class_logits, mask_logits = make_logits(LOW_HW[name])
    kept = class_logits[0].argmax(dim=-1) != CLASSES
    left = list(masks)
    worst = 0
    for logits in mask_logits[0][kept]:
        full = functional.interpolate(
            logits[None, None], size=SIZES_HW[name], mode="bilinear", align_corners=False
        )[0, 0]
        plain = (full > 0).numpy()
        wrong = [np.count_nonzero(mask != plain) for mask in left]
        nearest = int(np.argmin(wrong))
        worst = max(worst, wrong[nearest])
        left.pop(nearest)
    return worst / masks[0].size


def least_drawn(name: str, form: str, text: bytes, segments: Any) -> float:
    """Return the least IoU of an object's regions, read back from the JSON text, with its mask."""
    from maskloop.polygons.rings import percent_to_ring, rings_to_mask
    from maskloop_studio.formats.brush import decode_brush

    size_hw = SIZES_HW[name]
    parts: dict[str, list[Any]] = {}
    for region in json.loads(text):
        parts.setdefault(region["id"].partition("-")[0], []).append(region["value"])
    drawn = [
        decode_brush(values[0]["rle"], size_hw)
        if form == "brush"
        else rings_to_mask([percent_to_ring(value["points"], size_hw) for value in values], size_hw)
        for values in parts.values()
    ]
    return min(iou(mask, pasted(segment, size_hw)) for mask, segment in zip(drawn, segments, strict=True))


def prepare_memory(which: str, name: str, form: str) -> Callable[[], Any]:
    """Return the work of one way for `peak_bytes`, everything loaded that it needs."""
    make = our_way if which == "ours" else reference_way
    make("480p", form)()
    return make(name, form)


def run_regions(budget: Budget) -> list[Result]:
    """Time and measure both forms at every size."""
    try:
        import label_studio_sdk.converter.brush  # noqa: F401
    except ImportError as exc:
        raise Skip(f"no label-studio-sdk: {exc}") from exc
    results = []
    for name in ("480p",) if budget.quick else SIZES_HW:
        for form in FORMS:
            results += run_variant(name, form, budget)
    return results


def run_variant(name: str, form: str, budget: Budget) -> list[Result]:
    """Return one result for time and one for memory."""
    pair = side_by_side(
        our_way(name, form), reference_way(name, form), budget, min_rounds=1 if budget.quick else 3
    )
    against = "transformers + SDK" if form == "brush" else "transformers + OpenCV"
    same = check_same(name, form, pair.ours, pair.reference)
    time = pair.result(
        f"regions/{name} {form}",
        against=against,
        same=same,
        aim=25,
        notes={"json_bytes": len(pair.ours[0]), "reference_json_bytes": len(pair.reference[0])},
    )
    if budget.quick or not sys.platform.startswith("linux"):
        return [time]
    peaks = [Spread.of([peak_bytes(prepare_memory, way, name, form) / 1e6]) for way in ("ours", "theirs")]
    memory = Result(
        name=f"regions/{name} {form} memory",
        unit="MB",
        ours=peaks[0],
        reference=peaks[1],
        reference_name=against,
        same="as above",
        aim=10,
    )
    return [time, memory]


CASES = [
    Case(name="regions", summary="logits to 30 regions as JSON, brush and polygon", run=run_regions),
]
