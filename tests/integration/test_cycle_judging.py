"""One turn of learning on made-up images: what the gate saw stands in the registry, also after a kill."""

import io
import json

import pytest
from PIL import Image

from maskloop.lab.synthetic.shapes import SHAPE_CLASSES, make_image
from maskloop.learning.cycle import JUDGEMENT_FILE, register_base, train_and_judge
from maskloop.learning.data.training_set import LabelPlan
from maskloop.segmentation.postprocess import Thresholds
from maskloop.store.images import ImageCache
from maskloop.testing.memory import MemoryRegistry
from maskloop.types import SegmentationTask


@pytest.fixture
def turn(settings, tmp_path, make_correction):
    """Return a function that trains and judges on the same corrections under the same key."""
    settings = settings.model_copy(update={"train_steps": 2, "train_batch": 1, "class_floors": {"cat": 0.5}})
    cache = ImageCache(tmp_path / "images")
    registry = MemoryRegistry(tmp_path / "registry")

    def correction(seed):
        made = make_image(seed, size_hw=(48, 48), domain="shifted")
        file = io.BytesIO()
        Image.fromarray(made.image_hwc).save(file, "PNG")
        key = cache.put(file.getvalue())
        return make_correction(
            task_id=seed, annotation_id=seed, image_key=key, size_hw=(48, 48), segments=made.segments
        )

    champion = register_base("maskloop-1", settings=settings, registry=registry)

    def go():
        verdict = train_and_judge(
            champion,
            train=[correction(seed) for seed in range(2)],
            holdout=[correction(seed) for seed in range(10, 15)],
            plan=LabelPlan(labels=(*SHAPE_CLASSES, "cat"), class_of_label={}),
            image_cache=cache,
            registry=registry,
            settings=settings,
            task=SegmentationTask.INSTANCE,
            thresholds=Thresholds(),
            key="training-1",
            work_dir=tmp_path / "work",
        )
        return verdict, registry

    return go


def test_train_and_judge_keeps_the_gates_numbers(turn):
    verdict, registry = turn()
    gate = json.loads(registry.metadata("maskloop-1", verdict.version.number)["gate"])
    assert gate == json.loads(json.dumps(verdict.decision.as_json()))
    assert gate["rule"]["class_floors"] == {"cat": 0.5}
    assert "cat" in gate["classes_without_example"]
    kept = json.loads((verdict.version.path / JUDGEMENT_FILE).read_text())
    assert [image["image"] for image in kept["challenger"]["images"]] == [f"1/{n}/{n}" for n in range(10, 15)]
    assert kept["champion"]["metrics"]["seconds_per_image"] > 0
    assert json.loads(json.dumps(verdict.as_json()))["decision"]["gain"] == gate["gain"]


def test_train_and_judge_killed_after_registering_judges_the_registered_version(turn):
    first, registry = turn()
    second, _ = turn()
    assert len(registry.versions("maskloop-1")) == 2
    assert second.version.number == first.version.number
    assert second.decision.gain == pytest.approx(first.decision.gain, abs=1e-3)
    assert second.challenger.pq == pytest.approx(first.challenger.pq, abs=1e-3)
