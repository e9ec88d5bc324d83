"""The snapshot that a training makes is the one that the command makes."""

from datetime import UTC, datetime
from types import SimpleNamespace

import numpy as np
import pytest

from maskloop.curation.snapshots.library import SnapshotLibrary, check_name
from maskloop.errors import ConfigurationError, StoreError
from maskloop.learning.data.training_set import LabelPlan
from maskloop.store.annotations import AnnotationSnapshot
from maskloop.store.corrections import DerivedMasks
from maskloop.store.database import Store
from maskloop.types import EditCounts, Segment
from maskloop_studio.projects import frozen_corrections, training
from maskloop_studio.projects.freezing import freeze_tasks, note_learnt

CONFIG = """<View><Image name="i" value="$image"/><BrushLabels name="b" toName="i">
<Label value="Car" predicted_values="auto"/><Label value="Blur"/></BrushLabels></View>"""


@pytest.fixture
def database(settings):
    """Two annotated tasks, one of them in the holdout."""
    opened = Store(settings.resolved_database_url)
    for task, split in ((7, "train"), (8, "holdout")):
        at = datetime(2026, 1, 2, tzinfo=UTC)
        saved = opened.annotations.save(
            AnnotationSnapshot(
                annotation_id=task * 10,
                project_id=1,
                task_id=task,
                updated_at=at,
                state="submitted",
                content={"result": []},
                label_config=CONFIG,
                split=split,
                read_at=at,
            )
        )
        segments = tuple(
            Segment(mask_hw=np.ones((2, 3), dtype=bool), offset_yx=(4 * k, task), label=label)
            for k, label in enumerate(("auto", "Blur", "gone"))
        )
        masks = DerivedMasks(
            image_key=f"{task:064x}",
            image_uri=f"/data/upload/1/{task}.png",
            size_hw=(20, 30),
            segments=segments,
            edits=EditCounts(added=3),
            model_version=None,
        )
        opened.corrections.save(saved.version_id, masks)
    yield opened
    opened.close()


def test_snapshot_of_a_training_is_the_one_of_its_project(database, settings):
    settings = settings.model_copy(update={"ignore_labels": ("Blur",)})
    train, holdout = (database.corrections.of(1, split=split) for split in ("train", "holdout"))
    more = {"label_config": CONFIG, "store": database, "settings": settings}
    digest = note_learnt(train, holdout, **more, reason="training-3")
    snapshot = freeze_tasks(1, **more)
    assert snapshot.digest == digest
    found = [[(row.label, row.kind) for row in one.objects] for one in snapshot.images()]
    assert found == [[("Car", "object"), ("Blur", "ignored"), ("gone", "unlabelled")]] * 2
    assert [(note.digest, note.reason) for note in database.datasets.notes()] == [(digest, "training-3")]


def test_snapshot_of_no_correction_is_none(database, settings):
    assert note_learnt((), (), label_config=CONFIG, store=database, settings=settings, reason="") is None


def test_library_finds_by_name_digest_and_beginning_of_it(database, settings):
    snapshot = freeze_tasks(1, label_config=CONFIG, store=database, settings=settings)
    library = SnapshotLibrary(root=settings.snapshots_dir, datasets=database.datasets)
    library.note(snapshot, name="first", reason="command")
    for text in ("first", snapshot.digest, snapshot.digest[:6]):
        assert library.find(text) == snapshot
    for text in ("second", "../..", snapshot.digest[:5], "*"):
        with pytest.raises(StoreError, match="maskloop snapshot list"):
            library.find(text)


@pytest.mark.parametrize("name", ["7", "abcdef", "../x", "", "a b", "x" * 101])
def test_name_that_could_be_something_else_raises(name):
    with pytest.raises(ConfigurationError):
        check_name(name)


def test_training_names_the_snapshot_of_what_it_learns(database, settings, monkeypatch):
    champion = SimpleNamespace(labels=("Car",), name="maskloop-1", path=settings.home)
    plan = LabelPlan(labels=("Car", "Blur"), class_of_label={})
    prediction_plan = SimpleNamespace(task="instance", thresholds=None)
    monkeypatch.setattr(training, "ensure_champion", lambda *_, **__: champion)
    monkeypatch.setattr(training, "plan_learning", lambda *_: (plan, prediction_plan))
    monkeypatch.setattr(frozen_corrections, "ensure_image", lambda *_, **__: None)
    monkeypatch.setattr(
        frozen_corrections, "near_groups", lambda given, **_: {one.image_key: one.image_key for one in given}
    )
    client = SimpleNamespace(project=lambda _: SimpleNamespace(label_config=CONFIG))
    services = SimpleNamespace(
        store=database, settings=settings, client=client, registry=None, image_cache=None, fetcher=None
    )
    job = SimpleNamespace(job_id=5, project_id=1, name="training-5")
    made = training._training_job(job, SimpleNamespace(check=lambda: None), services)
    assert made.dataset == freeze_tasks(1, label_config=CONFIG, store=database, settings=settings).digest
    assert [segment.label for segment in made.train[0].segments] == ["Car", "Blur", ""]
