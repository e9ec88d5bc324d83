"""Whether bfloat16 may be used: what counts as agreeing, and what the engine does with it."""

import logging
from dataclasses import replace

import numpy as np
import pytest

from maskloop.lab.synthetic.shapes import SHAPE_CLASSES, make_image
from maskloop.lab.tiny_models import build_tiny_mask2former
from maskloop.segmentation import engine as engine_module
from maskloop.segmentation import precision_check
from maskloop.segmentation.engine import Engine
from maskloop.segmentation.fast.forward import ForwardPlan
from maskloop.segmentation.postprocess import Thresholds
from maskloop.segmentation.precision_check import PrecisionChecks, agreement
from maskloop.segmentation.predict import forward_batch
from maskloop.settings import BASE_MODEL
from maskloop.types import Prediction, Segment, SegmentationTask


def segment(left=0, width=10, label="a", score=0.9):
    return Segment(mask_hw=np.ones((10, width), bool), offset_yx=(0, left), label=label, score=score)


def prediction(*segments):
    return Prediction(segments=segments, size_hw=(40, 40), confidence=0.5)


@pytest.mark.parametrize(
    ("exact", "fast", "expected"),
    [
        ((segment(),), (segment(),), (2, 2)),
        ((segment(width=20),), (segment(width=19),), (2, 2)),
        ((segment(width=20),), (segment(width=17),), (0, 2)),
        ((segment(),), (segment(label="b"),), (0, 2)),
        ((segment(),), (), (0, 1)),
        ((segment(), segment(left=20, score=0.51)), (segment(),), (2, 2)),
        ((), (), (0, 0)),
    ],
    ids=["same", "border", "other-mask", "other-label", "lost", "near-threshold", "empty"],
)
def test_agreement_counts_segments_with_a_partner(exact, fast, expected):
    assert agreement(prediction(*exact), prediction(*fast), least_score=0.5) == expected


@pytest.fixture
def large(monkeypatch):
    """Return a small model that counts as a large one."""
    monkeypatch.setattr(precision_check, "LARGE_PARAMETERS", 1)
    made = build_tiny_mask2former(SHAPE_CLASSES, seed=0)
    return replace(made, plan=ForwardPlan())


def show(checks, checkpoint, exact, fast, images):
    for _ in range(images):
        checks.compare(checkpoint, prediction(*exact), prediction(*fast), least_score=0.5)
    return checks.chosen(checkpoint).plan.precision


def test_precision_checks_agreeing_images_choose_bfloat16(large, caplog):
    caplog.set_level(logging.INFO)
    checks = PrecisionChecks(bfloat16_cpu=True)
    assert show(checks, large, [segment()], [segment()], 9) == "auto"
    assert show(checks, large, [segment()], [segment()], 1) == "bfloat16"
    assert checks.rival(large) is None
    assert "segments=20" in caplog.text


@pytest.mark.parametrize("fast", [[segment(label="b")], []], ids=["other-label", "lost"])
def test_precision_checks_differing_images_stay_with_float32(large, fast):
    checks = PrecisionChecks(bfloat16_cpu=True)
    assert show(checks, large, [segment()], fast, 12) == "auto"
    assert checks.rival(large) is None


def test_precision_checks_nothing_found_stays_with_float32(large):
    assert show(PrecisionChecks(bfloat16_cpu=True), large, [], [], 12) == "auto"


@pytest.mark.parametrize(
    "change", [{"precision": "float32"}, {"precision": "bfloat16"}, {"accelerate": False}], ids=str
)
def test_precision_checks_named_precision_is_not_checked(large, change):
    named = replace(large, plan=replace(large.plan, **change))
    assert PrecisionChecks(bfloat16_cpu=True).rival(named) is None


def test_precision_checks_cpu_without_bfloat16_is_not_checked(large):
    assert PrecisionChecks(bfloat16_cpu=False).rival(large) is None


def test_precision_checks_failure_stays_with_float32(large, caplog):
    caplog.set_level(logging.INFO)
    checks = PrecisionChecks(bfloat16_cpu=True)
    checks.refuse(large, RuntimeError("no kernel"))
    assert checks.rival(large) is None
    assert checks.chosen(large) is large
    assert "no kernel" in caplog.text


def test_engine_changes_to_bfloat16_once_the_first_images_agree(monkeypatch):
    monkeypatch.setattr(precision_check, "LARGE_PARAMETERS", 1)
    monkeypatch.setattr(precision_check, "cpu_has_bfloat16", lambda: True)
    seen = []

    def forward(checkpoint, *inputs, **options):
        seen.append(checkpoint.plan.precision)
        return forward_batch(checkpoint, *inputs, **options)

    monkeypatch.setattr(engine_module, "forward_batch", forward)
    images = [make_image(seed).image_hwc for seed in range(12)]
    words = {"task": SegmentationTask.INSTANCE, "thresholds": Thresholds(), "max_batch": 1, "device": "cpu"}
    with Engine(**words) as engine:
        first = [engine.predict([image], source=str(BASE_MODEL))[0] for image in images]
    assert all(isinstance(one, Prediction) and one.segments for one in first)
    assert seen[:2] == ["auto", "bfloat16"]  # both for the first image
    assert seen[-1] == "bfloat16"
    assert len(seen) < 2 * len(images)


def test_engine_answers_where_bfloat16_fails(monkeypatch):
    monkeypatch.setattr(precision_check, "LARGE_PARAMETERS", 1)
    monkeypatch.setattr(precision_check, "cpu_has_bfloat16", lambda: True)

    def forward(checkpoint, *inputs, **options):
        if checkpoint.plan.precision == "bfloat16":
            raise RuntimeError("no kernel for bfloat16")
        return forward_batch(checkpoint, *inputs, **options)

    monkeypatch.setattr(engine_module, "forward_batch", forward)
    words = {"task": SegmentationTask.INSTANCE, "thresholds": Thresholds(), "max_batch": 1, "device": "cpu"}
    with Engine(**words) as engine:
        found = engine.predict([make_image(0).image_hwc, make_image(1).image_hwc], source=str(BASE_MODEL))
    assert all(isinstance(one, Prediction) and one.segments for one in found)
