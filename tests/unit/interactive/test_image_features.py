"""Features of a real small model: the same masks as its own prediction."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from maskloop.interactive.image_features import image_features
from maskloop.lab.synthetic.shapes import make_image
from maskloop.segmentation.checkpoint import Checkpoint, load_checkpoint
from maskloop.segmentation.predict import forward_batch, prepare_image
from maskloop.segmentation.test_time_views import ViewPlan
from maskloop.settings import BASE_MODEL, BASE_ONEFORMER
from maskloop.types import SegmentationTask


@pytest.fixture(scope="module", params=[BASE_MODEL, BASE_ONEFORMER], ids=["mask2former", "oneformer"])
def checkpoint(request: pytest.FixtureRequest) -> Checkpoint:
    return load_checkpoint(request.param, device="cpu")


def _raw(checkpoint, image, *, keep_output):
    views = [prepare_image(checkpoint, image, for_selection=False, plan=ViewPlan())]
    options = {"task": SegmentationTask.INSTANCE, "for_selection": False, "plan": ViewPlan()}
    return forward_batch(checkpoint, views, keep_output=keep_output, **options)[0][0]


def test_image_features_masks_are_the_models_own(checkpoint):
    raw = _raw(checkpoint, make_image(3, size_hw=(96, 128)).image_hwc, keep_output=True)
    features = image_features(checkpoint, raw)
    height, width = features.grid_hw
    queries = len(raw.class_logits_qk)
    assert len(features.class_probs_nk) > queries, "also those of earlier layers"
    torch.testing.assert_close(
        features.class_probs_nk[:queries], raw.class_logits_qk.softmax(-1), atol=1e-4, rtol=1e-3
    )
    for query in range(queries):
        own_hw = raw.mask_logits_qhw[query, :height, :width]
        torch.testing.assert_close(features.logits_of(query), own_hw, atol=0.05, rtol=0.01)
    points_p2 = torch.tensor([[(5 + 0.5) / width, (3 + 0.5) / height]])
    torch.testing.assert_close(
        features.at(points_p2)[:queries, 0], raw.mask_logits_qhw[:, 3, 5], atol=0.05, rtol=0.01
    )


def test_image_features_without_the_models_output_are_its_logits(checkpoint):
    raw = _raw(checkpoint, make_image(3, size_hw=(96, 128)).image_hwc, keep_output=False)
    features = image_features(checkpoint, raw)
    assert features.pixels_chw is None
    assert len(features.class_probs_nk) == len(raw.class_logits_qk)
    assert np.isfinite(features.quality_n.numpy()).all()


def test_image_features_pixels_lie_channel_by_channel_whatever_the_model_does(checkpoint):
    raw = _raw(checkpoint, make_image(3, size_hw=(96, 128)).image_hwc, keep_output=True)
    pixels_bchw = raw.output.pixel_decoder_last_hidden_state.to(memory_format=torch.channels_last)
    turned = replace(raw, output=replace(raw.output, pixel_decoder_last_hidden_state=pixels_bchw))
    features = image_features(checkpoint, turned)
    assert features.pixels_chw.is_contiguous(), "else each mask takes three times as long"
    torch.testing.assert_close(features.pixels_chw, image_features(checkpoint, raw).pixels_chw)
