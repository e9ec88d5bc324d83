"""A training without usable corrections fails with a remedy."""

import dataclasses

import pytest

from maskloop.errors import TrainingError
from maskloop.learning.cycle import run_training, told_size
from maskloop.learning.data.training_set import LabelPlan
from maskloop.learning.evaluation.gate import PromotionDecision
from maskloop.learning.evaluation.showing import Showing
from maskloop.learning.training_job import GateReport, TrainingJob
from maskloop.segmentation.postprocess import Thresholds
from maskloop.segmentation.preprocess import Preprocessing
from maskloop.store.images import ImageCache
from maskloop.testing import MemoryRegistry
from maskloop.types import ModelVersion, SegmentationTask


@pytest.fixture
def train(settings, tmp_path):
    def call(*corrections):
        job = TrainingJob(
            key="training-1",
            champion=ModelVersion(name="m", number=1, path=tmp_path / "none", labels=("disc",)),
            train=corrections,
            holdout=(),
            labels=LabelPlan(labels=("disc",), class_of_label={}),
            task=SegmentationTask.INSTANCE,
            thresholds=Thresholds(),
            work_dir=tmp_path / "work",
        )
        return run_training(
            job,
            registry=MemoryRegistry(tmp_path / "registry"),
            image_cache=ImageCache(tmp_path / "images"),
            settings=settings,
        )

    return call


def test_run_training_without_corrections_raises(train):
    with pytest.raises(TrainingError, match="at least one correction"):
        train()


def test_run_training_boxes_only_raises(train, make_correction, make_segment):
    box = dataclasses.replace(make_segment(), is_box=True)
    with pytest.raises(TrainingError, match=r"1 of boxes only .*masks instead of boxes"):
        train(make_correction(segments=(box,)))


@pytest.mark.parametrize(
    ("edge", "reason"),
    [
        (160, "score rose"),
        (256, "score rose; it sees images with 256 pixels on the shorter side, 160 before"),
    ],
)
def test_reason_says_where_images_are_seen_at_another_size(edge, reason):
    report = GateReport(
        champion=None,
        challenger=None,
        decision=PromotionDecision(promote=True, reason="score rose"),
        showing=Showing(),
    )
    before, after = (Preprocessing(shortest_edge=side, longest_edge=None) for side in (160, edge))
    assert told_size(report, before=before, after=after).decision.reason == reason
