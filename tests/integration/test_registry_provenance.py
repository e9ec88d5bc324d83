"""A trained version says where it came from, in folder and registry, and waits as the mode says."""

import io
import json

import pytest
from huggingface_hub import ModelCard
from PIL import Image

from maskloop.lab.synthetic.shapes import SHAPE_CLASSES, make_image
from maskloop.learning import cycle
from maskloop.learning.cycle import register_base, train_and_judge
from maskloop.learning.data.snapshot import SnapshotManifest
from maskloop.learning.data.training_set import LabelPlan
from maskloop.learning.evaluation.gate import PromotionDecision
from maskloop.learning.registry import CHALLENGER, CHAMPION, SHADOW
from maskloop.learning.registry.promotion import Release
from maskloop.segmentation.checkpoint import load_checkpoint
from maskloop.segmentation.postprocess import Thresholds
from maskloop.store.images import ImageCache
from maskloop.testing.memory import MemoryRegistry
from maskloop.types import PromotionMode, SegmentationTask

NAME = "maskloop-1"


@pytest.fixture
def train(settings, tmp_path, make_correction, monkeypatch):
    """Train for a step, with a gate that has made up its mind."""
    cache, registry = ImageCache(tmp_path / "images"), MemoryRegistry(tmp_path / "registry")
    decision = PromotionDecision(promote=True, reason="score rose")
    monkeypatch.setattr(cycle, "decide", lambda *_: decision)

    def correction(seed):
        made = make_image(seed, size_hw=(48, 48), domain="shifted")
        file = io.BytesIO()
        Image.fromarray(made.image_hwc).save(file, "PNG")
        said = {"task_id": seed, "annotation_id": seed, "version_id": 100 + seed, "size_hw": (48, 48)}
        return make_correction(**said, image_key=cache.put(file.getvalue()), segments=made.segments)

    def go(mode="auto"):
        changed = settings.model_copy(
            update={
                "train_steps": 1,
                "train_batch": 1,
                "validation_fraction": 0.0,
                "promotion": PromotionMode(mode),
            }
        )
        verdict = train_and_judge(
            register_base(NAME, settings=changed, registry=registry),
            train=[correction(1), correction(2), make_correction(task_id=3, approximate=True)],
            holdout=[correction(9)],
            plan=LabelPlan(labels=SHAPE_CLASSES, class_of_label={}),
            image_cache=cache,
            registry=registry,
            settings=changed,
            task=SegmentationTask.INSTANCE,
            thresholds=Thresholds(),
            key="training-1",
            work_dir=tmp_path / "work",
        )
        return verdict, registry

    return go


def test_version_keeps_where_it_came_from(train):
    verdict, registry = train()
    version = verdict.version
    manifest = SnapshotManifest.read(version.path / "snapshot.json")
    assert (manifest.version_ids("train"), manifest.version_ids("holdout")) == ((101, 102), (109,))
    kept = registry.metadata(NAME, version.number)
    assert (kept["snapshot"], kept["licence"]) == (manifest.digest, "apache-2.0")
    assert (kept["base_model"], kept["decision"]) == ("tiny-mask2former", "score rose")
    assert json.loads(kept["gate"])["promote"] is True
    assert json.loads(kept["settings"])["train_steps"] == 1
    assert {"seed", "code_version", "recipe", "training", "task", "train_images"} <= set(kept)
    card = ModelCard.load(version.path / "README.md")
    assert (card.data.license, card.data.base_model) == ("apache-2.0", "tiny-mask2former")
    assert "It was fine-tuned from maskloop-1-v1" in card.text
    assert load_checkpoint(version.path, device="cpu").labels == version.labels
    base = ModelCard.load(registry.get(NAME, 1).path / "README.md")
    assert "It is the model that the settings name" in base.text


@pytest.mark.parametrize(
    ("mode", "became", "champion", "alias"),
    [
        pytest.param("auto", Release.PROMOTED, 2, CHAMPION, id="auto"),
        pytest.param("manual", Release.WAITING, 1, CHALLENGER, id="manual"),
        pytest.param("shadow", Release.SHADOW, 1, SHADOW, id="shadow"),
    ],
)
def test_better_version_goes_where_the_mode_says(train, mode, became, champion, alias):
    verdict, registry = train(mode)
    assert verdict.release is became
    assert (verdict.as_json()["promoted"], verdict.as_json()["release"]) == (mode == "auto", became.value)
    assert registry.alias(NAME, CHAMPION) == champion
    assert registry.alias(NAME, alias) == 2
