"""A trained version has its origin in folder and registry, and is promoted as the mode requires."""

import io
import json
from dataclasses import replace

import pytest
from huggingface_hub import ModelCard
from PIL import Image

from maskloop.lab.synthetic.shapes import SHAPE_CLASSES, make_image
from maskloop.learning import cycle
from maskloop.learning.data.snapshot import SnapshotManifest
from maskloop.learning.data.training_set import LabelPlan
from maskloop.learning.evaluation.gate import PromotionDecision
from maskloop.learning.registration import register_base
from maskloop.learning.registry import CHALLENGER, CHAMPION, SHADOW
from maskloop.learning.registry.promotion import Release
from maskloop.learning.training_job import TrainingJob
from maskloop.segmentation.checkpoint import load_checkpoint
from maskloop.segmentation.postprocess import Thresholds
from maskloop.store.images import ImageCache
from maskloop.testing import MemoryRegistry
from maskloop.types import PromotionMode, SegmentationTask

NAME = "maskloop-1"


@pytest.fixture
def train(settings, tmp_path, make_correction, monkeypatch):
    """Return a function that trains for one step, with a gate that always promotes."""
    cache, registry = ImageCache(tmp_path / "images"), MemoryRegistry(tmp_path / "registry")
    decision = PromotionDecision(promote=True, reason="score rose")
    monkeypatch.setattr(cycle, "decide", lambda *_: decision)

    def correction(seed, *, boxes=False):
        made = make_image(seed, size_hw=(48, 48), domain="shifted")
        file = io.BytesIO()
        Image.fromarray(made.image_hwc).save(file, "PNG")
        fields = {"task_id": seed, "annotation_id": seed, "version_id": 100 + seed, "size_hw": (48, 48)}
        segments = tuple(replace(one, is_box=boxes) for one in made.segments)
        return make_correction(**fields, image_key=cache.put(file.getvalue()), segments=segments)

    def call(mode="auto"):
        changed = settings.model_copy(
            update={
                "train_steps": 1,
                "train_batch": 1,
                "validation_fraction": 0.0,
                "holdout_least": 1,
                "promotion": PromotionMode(mode),
            }
        )
        job = TrainingJob(
            key="training-1",
            champion=register_base(NAME, settings=changed, registry=registry),
            train=[correction(1), correction(2), correction(3, boxes=True)],
            holdout=[correction(9), correction(8, boxes=True)],
            labels=LabelPlan(labels=SHAPE_CLASSES, class_of_label={}),
            task=SegmentationTask.INSTANCE,
            thresholds=Thresholds(),
            work_dir=tmp_path / "work",
        )
        outcome = cycle.run_training(job, registry=registry, image_cache=cache, settings=changed)
        return outcome, registry

    return call


def test_trained_version_has_its_origin(train):
    outcome, registry = train()
    version = outcome.version
    assert "1 images of the holdout have only boxes and judge nothing" in outcome.as_json()["boxes"]
    manifest = SnapshotManifest.read(version.path / "snapshot.json")
    assert (manifest.version_ids("train"), manifest.version_ids("holdout")) == ((101, 102, 103), (109,))
    metadata = registry.metadata(NAME, version.number)
    assert (metadata["snapshot"], metadata["licence"]) == (manifest.digest, "apache-2.0")
    assert (metadata["base_model"], metadata["decision"]) == ("tiny-mask2former", "score rose")
    assert json.loads(metadata["gate"])["promote"] is True
    assert json.loads(metadata["settings"])["train_steps"] == 1
    assert {"seed", "code_version", "recipe", "training", "task", "train_images"} <= set(metadata)
    card = ModelCard.load(version.path / "README.md")
    assert (card.data.license, card.data.base_model) == ("apache-2.0", "tiny-mask2former")
    assert "It was fine-tuned from maskloop-1-v1" in card.text
    assert load_checkpoint(version.path, device="cpu").labels == version.labels
    base = ModelCard.load(registry.get(NAME, 1).path / "README.md")
    assert "It is the model that the settings name" in base.text


@pytest.mark.parametrize(
    ("mode", "result", "champion", "alias"),
    [
        pytest.param("auto", Release.PROMOTED, 2, CHAMPION, id="auto"),
        pytest.param("manual", Release.WAITING, 1, CHALLENGER, id="manual"),
        pytest.param("shadow", Release.SHADOW, 1, SHADOW, id="shadow"),
    ],
)
def test_better_version_is_released_by_mode(train, mode, result, champion, alias):
    outcome, registry = train(mode)
    assert outcome.release is result
    assert (outcome.as_json()["promoted"], outcome.as_json()["release"]) == (mode == "auto", result.value)
    assert registry.alias(NAME, CHAMPION) == champion
    assert registry.alias(NAME, alias) == 2
