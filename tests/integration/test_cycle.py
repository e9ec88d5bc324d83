"""One training on made-up images: the registry has the numbers of the gate, also after a kill."""

import dataclasses
import io
import json

import pytest
from PIL import Image

from maskloop.lab.synthetic.shapes import SHAPE_CLASSES, make_image
from maskloop.learning import challenger_training
from maskloop.learning.cycle import run_training
from maskloop.learning.data import pseudo_labels
from maskloop.learning.data.training_set import LabelPlan
from maskloop.learning.registration import EVALUATION_FILE, register_base
from maskloop.learning.registry import CHALLENGER
from maskloop.learning.training_job import TrainingJob
from maskloop.segmentation.postprocess import Thresholds
from maskloop.store.images import ImageCache
from maskloop.testing import MemoryRegistry
from maskloop.types import SegmentationTask

SURE = Thresholds(score=0.4)  # the shipped model finds little with more on so small images
KNOWN = LabelPlan(labels=SHAPE_CLASSES, class_of_label={})


@pytest.fixture
def train(settings, tmp_path, make_correction):
    """Return a function that runs the same training again."""
    few_steps = {"train_steps": 2, "train_batch": 1, "class_floors": {"cat": 0.5}, "holdout_least": 5}
    settings = settings.model_copy(update=few_steps)
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

    def photo(seed):
        path = tmp_path / f"pool-{seed}.png"
        Image.fromarray(make_image(seed, size_hw=(48, 48), domain="shifted").image_hwc).save(path)
        return path

    job = TrainingJob(
        key="training-1",
        champion=champion,
        train=[correction(seed) for seed in range(2)],
        holdout=[correction(seed) for seed in range(10, 15)],
        labels=LabelPlan(labels=(*SHAPE_CLASSES, "cat"), class_of_label={}),
        task=SegmentationTask.INSTANCE,
        thresholds=Thresholds(),
        work_dir=tmp_path / "work",
    )

    def call(*, pool=0, images=2, labels=job.labels, on_progress=None, **changes):
        changed = settings.model_copy(update=changes)
        asked = dataclasses.replace(
            job,
            labels=labels,
            train=[correction(seed) for seed in (*range(2), *range(20, 18 + images))],
            pool=[photo(seed) for seed in range(100, 100 + pool)],
            thresholds=SURE,
        )
        outcome = run_training(
            asked, registry=registry, image_cache=cache, settings=changed, on_progress=on_progress
        )
        return outcome, registry

    return call


def test_run_training_stores_the_numbers_of_the_gate(train):
    outcome, registry = train()
    gate = json.loads(registry.metadata("maskloop-1", outcome.version.number)["gate"])
    assert gate == json.loads(json.dumps(outcome.decision.as_json()))
    assert gate["rule"]["class_floors"] == {"cat": 0.5}
    assert "cat" in gate["classes_without_example"]
    stored = json.loads((outcome.version.path / EVALUATION_FILE).read_text())
    assert [image["image"] for image in stored["challenger"]["images"]] == [
        f"1/{n}/{n}" for n in range(10, 15)
    ]
    assert stored["champion"]["metrics"]["seconds_per_image"] > 0
    assert json.loads(json.dumps(outcome.as_json()))["decision"]["gain"] == gate["gain"]


def test_run_training_small_holdout_is_cross_validated(train):
    outcome, _ = train(holdout_least=8)
    assert (outcome.judged_by, outcome.images_needed) == ("cross-validation", 17)
    assert "cross-validated on 7 images, 17 more annotated images are needed" in outcome.decision.reason
    assert outcome.showing.images == 7, "what is worth showing is found on all of them too"
    stored = json.loads((outcome.version.path / EVALUATION_FILE).read_text())
    for side in ("champion", "challenger"):
        images = sorted(image["image"] for image in stored[side]["images"])
        assert images == sorted(f"1/{n}/{n}" for n in (0, 1, *range(10, 15)))


def test_run_training_small_holdout_may_leave_the_decision_to_a_person(train):
    outcome, registry = train(holdout_least=8, early_judging="ask")
    assert (outcome.release, outcome.judged_by) == ("waiting", "nobody")
    assert "not judged yet: 17 more annotated images are needed" in outcome.decision.reason
    assert registry.alias("maskloop-1", CHALLENGER) == outcome.version.number
    assert registry.champion("maskloop-1").number == 1


def test_run_training_killed_after_registering_evaluates_the_registered_version(train):
    first, registry = train()
    second, _ = train()
    assert len(registry.versions("maskloop-1")) == 2
    assert second.version.number == first.version.number
    assert second.decision.gain == pytest.approx(first.decision.gain, abs=1e-3)
    assert second.challenger.pq == pytest.approx(first.challenger.pq, abs=1e-3)


def test_run_training_learns_from_what_the_champion_is_sure_of(train, caplog):
    caplog.set_level("INFO")
    outcome, registry = train(pool=12, labels=KNOWN)
    assert outcome.pool is not None
    assert 0 < outcome.pool.images <= 12
    assert outcome.pool.objects >= outcome.pool.images
    assert outcome.as_json()["pool"]["images"] == outcome.pool.images
    card = (outcome.version.path / "README.md").read_text()
    assert f"{outcome.pool.images} images that nobody has annotated, by what maskloop-1-v1" in card
    assert registry.metadata("maskloop-1", 2)["pool_images"] == str(outcome.pool.images)
    assert outcome.train_images == 2, "people drew two"
    assert "pool_used" in caplog.text


def test_run_training_new_class_leaves_the_pool_alone(train, caplog):
    caplog.set_level("INFO")
    outcome, _ = train(pool=3)
    assert outcome.pool is None
    assert "does not know cat" in caplog.text


def test_run_training_killed_goes_on_with_the_same_pseudo_labels(train, monkeypatch):
    def kill(progress):
        if progress.step >= 2:
            raise Killed

    with pytest.raises(Killed):
        train(pool=12, labels=KNOWN, on_progress=kill, train_steps=20)
    monkeypatch.setattr(
        pseudo_labels, "predict_images", lambda *_, **__: pytest.fail("labelled a second time")
    )
    outcome, _ = train(pool=12, labels=KNOWN, train_steps=20)
    assert outcome.pool is not None


class Killed(BaseException):
    pass


def test_run_training_cross_validates_the_pool(train, monkeypatch, caplog):
    caplog.set_level("INFO")
    asked = {"pool": 12, "images": 9, "labels": KNOWN, "train_pool_check": True, "train_pool": 12}
    trained = []
    part = challenger_training.train_challenger

    def kill_fourth(job, *rest):
        trained.append(str(job.work_dir.relative_to(job.work_dir.parents[2])))
        if len(trained) == 4:
            raise Killed
        return part(job, *rest)

    monkeypatch.setattr(challenger_training, "train_challenger", kill_fourth)
    with pytest.raises(Killed):
        train(**asked)
    assert trained == [f"pool-check/{fold}/{way}" for fold in (0, 1) for way in ("without", "with")]
    del trained[:]
    outcome, registry = train(**asked)
    assert trained[0] == "pool-check/1/with", "what was done is not done again"
    assert len(trained) == 3
    check = outcome.pool_verdict
    assert sum(fold.images for fold in check.folds) == 9
    assert check.gain == pytest.approx(sum(fold.gain for fold in check.folds) / 3)
    assert check.subject.images == 9
    assert outcome.as_json()["pool_check"]["text"] == check.in_words()
    assert (outcome.pool is not None) is check.use
    assert outcome.why_no_pool == (None if check.use else check.in_words())
    assert check.in_words()[1:] in (outcome.version.path / "README.md").read_text()
    metadata = registry.metadata("maskloop-1", 2)
    assert json.loads(metadata["pool_check"])["gain"] == check.gain
    assert metadata["pool_note"] == check.in_words()
    assert "pool_checked" in caplog.text
    del trained[:]
    again, _ = train(**asked)  # killed after the version was registered
    assert (trained, again.pool_verdict, again.version.number) == ([], check, 2)


def test_run_training_cancelled_in_the_check_stops_there(train, tmp_path):
    def cancel(progress):
        raise Killed

    with pytest.raises(Killed):
        train(pool=12, images=9, labels=KNOWN, train_pool_check=True, on_progress=cancel)
    assert [path.name for path in (tmp_path / "work" / "pool-check").iterdir()] == ["0"]
