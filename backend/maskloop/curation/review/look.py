"""What a model sees on an image, unsure objects and probabilities included: the evidence of a review."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from maskloop.curation.review.appearance import Appearance, appearance_of
from maskloop.curation.review.suspicion import Evidence
from maskloop.masks import drop_duplicates
from maskloop.segmentation.checkpoint import Checkpoint
from maskloop.segmentation.postprocess import Thresholds, instance_segments
from maskloop.segmentation.predict import RawOutput, forward_batch, prepare_image
from maskloop.segmentation.test_time_views import ViewPlan
from maskloop.types import RgbImage, SegmentationTask

__all__ = ["LEAST_SCORE", "look_at"]

LEAST_SCORE = 0.05  # of an object; the calibration decides what an unsure one is worth
MOST_OBJECTS = 200  # of an image
SAME = 0.8  # IoU of two queries for one object


def look_at(checkpoint: Checkpoint, image: RgbImage, *, task: SegmentationTask) -> Evidence:
    """Return the evidence of one model on one image.

    Args:
        checkpoint: a model that has not learnt from the image.
        image: uint8 (H, W, 3), upright RGB.
        task: OneFormer's task token.

    Raises:
        ImageError: the image is not uint8 (H, W, 3) or has no pixels.
    """
    ready = prepare_image(checkpoint, image, for_selection=False, plan=ViewPlan())
    ((raw,),) = forward_batch(checkpoint, [ready], task=task, for_selection=False, plan=ViewPlan())
    with torch.inference_mode():
        return _evidence(raw, checkpoint.labels, appearance_of(image))


def _evidence(raw: RawOutput, labels: Sequence[str], appearance: Appearance) -> Evidence:
    height, width = (
        max(1, round(valid * low / padded))
        for valid, low, padded in zip(
            raw.valid_hw, raw.mask_logits_qhw.shape[-2:], raw.padded_hw, strict=True
        )
    )
    mask_logits_qhw = raw.mask_logits_qhw[:, :height, :width].float().cpu()
    class_logits_qk = raw.class_logits_qk.float().cpu()
    probs_qk = class_logits_qk.softmax(dim=-1)[:, :-1]
    mask_probs_qhw = mask_logits_qhw.sigmoid()
    found = []
    for query in range(len(probs_qk)):
        segments = instance_segments(
            class_logits_qk[query : query + 1],
            mask_logits_qhw[query : query + 1],
            labels=labels,
            thing_ids=(),
            thresholds=Thresholds(score=LEAST_SCORE),
            size_hw=raw.size_hw,
        )
        found += [(segment, query) for segment in segments]
    found.sort(key=lambda pair: -pair[0].score)
    query_of = {id(segment): query for segment, query in found[:MOST_OBJECTS]}
    kept = drop_duplicates(tuple(segment for segment, _ in found[:MOST_OBJECTS]), SAME)
    queries = [query_of[id(segment)] for segment in kept]
    return Evidence(
        labels=tuple(labels),
        segments=kept,
        class_probs_nk=probs_qk[queries].numpy().astype(np.float32),
        mask_probs_nhw=mask_probs_qhw[queries].numpy().astype(np.float16),
        pixel_probs_khw=torch.einsum("qk,qhw->khw", probs_qk, mask_probs_qhw).numpy().astype(np.float16),
        size_hw=raw.size_hw,
        appearance=appearance,
    )
