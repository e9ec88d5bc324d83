"""Answers by click queries: the shipped models have learnt them, and see what they saw in training."""

import numpy as np
import pytest
import torch
from tests.unit.interactive.test_image_features import _raw

from maskloop.interactive.answer import find_answer
from maskloop.interactive.image_features import image_features
from maskloop.interactive.prompt import Click, Prompt
from maskloop.lab.synthetic.shapes import make_image
from maskloop.learning.training.click_training import ClickTrainer, _scene
from maskloop.masks import paste_segment
from maskloop.segmentation.checkpoint import load_checkpoint
from maskloop.segmentation.fast.model_forward import decoder_parts
from maskloop.segmentation.preprocess import images_to_batch
from maskloop.settings import BASE_MODEL, BASE_ONEFORMER
from maskloop.types import SegmentationTask

SIZE_HW = (128, 128)
SEEDS = range(30_000_000, 30_000_006)  # of images that no shipped model has seen


@pytest.fixture(scope="module", params=[BASE_MODEL, BASE_ONEFORMER], ids=["mask2former", "oneformer"])
def checkpoint(request):
    return load_checkpoint(request.param, device="cpu")


def _iou(found, truth_hw):
    if found is None:
        return 0.0
    mask_hw = paste_segment(found.segment, SIZE_HW)
    return np.sum(mask_hw & truth_hw) / np.sum(mask_hw | truth_hw)


def test_click_queries_answer_better_than_the_best_query(checkpoint):
    ious = {"click_query": [], "query": []}
    for seed in SEEDS:
        made = make_image(seed, size_hw=SIZE_HW, domain="shifted")
        features = image_features(checkpoint, _raw(checkpoint, made.image_hwc, keep_output=True))
        for segment in made.segments:
            truth_hw = paste_segment(segment, SIZE_HW)
            y, x = np.argwhere(truth_hw)[truth_hw.sum() // 2] + 0.5
            prompt = Prompt(clicks=(Click(x=x / 128, y=y / 128),))
            for tier, found in ious.items():
                found.append(_iou(find_answer(features, prompt, tiers=(tier,), snap=False), truth_hw))
    assert np.mean(ious["click_query"]) > np.mean(ious["query"])


def test_click_query_answers_clicks_and_leaves_boxes_to_others(checkpoint):
    made = make_image(30_000_000, size_hw=SIZE_HW)
    features = image_features(checkpoint, _raw(checkpoint, made.image_hwc, keep_output=True))
    top, left, bottom, right = made.segments[-1].box_yxyx
    middle = Click(x=(left + right) / 256, y=(top + bottom) / 256)
    box = Prompt(box_xyxy=(left / 128, top / 128, right / 128, bottom / 128))
    assert find_answer(features, Prompt(clicks=(middle,))).tier == "click_query"
    assert find_answer(features, box).tier != "click_query"
    negative = Click(x=(left + 1.5) / 128, y=middle.y, is_positive=False)
    mask_hw = paste_segment(find_answer(features, Prompt(clicks=(middle, negative))).segment, SIZE_HW)
    assert not mask_hw[int(negative.y * 128), int(negative.x * 128)]


def test_click_features_are_what_click_queries_were_trained_on(checkpoint):
    image_hwc = make_image(3, size_hw=(128, 128)).image_hwc
    kept = image_features(checkpoint, _raw(checkpoint, image_hwc, keep_output=True)).click
    batch = images_to_batch([image_hwc], checkpoint.preprocessing, checkpoint.device)
    words = {}
    if checkpoint.task_text is not None:
        words["task_inputs"] = checkpoint.task_text.task_inputs(
            SegmentationTask.INSTANCE, 1, checkpoint.device
        )
    trainer = ClickTrainer(checkpoint.model, checkpoint.click_queries, steps=1, seed=0)
    with torch.no_grad(), trainer.observing():
        checkpoint.model(pixel_values=batch.pixel_values_bchw, **words)
        scene = _scene(checkpoint.model, trainer._seen, 0, *decoder_parts(checkpoint.model))
    assert kept.size_bytes > 0
    torch.testing.assert_close(kept.states_nc, scene.states_nc, atol=1e-2, rtol=1e-2)
    for level, tokens_hwc, pixels_sc in zip(scene.levels, kept.tokens_lhwc, kept.pixels_lsc, strict=True):
        assert level.size_hw == tuple(tokens_hwc.shape[:2])
        torch.testing.assert_close(level.tokens_sc, tokens_hwc.flatten(0, 1).float(), atol=0.05, rtol=0.01)
        torch.testing.assert_close(level.pixels_sc, pixels_sc.float(), atol=0.05, rtol=0.01)
