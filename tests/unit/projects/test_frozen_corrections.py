import io
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from PIL import Image

from maskloop.lab.synthetic.shapes import make_image
from maskloop.settings import Settings
from maskloop.similarity import perceptual_hash
from maskloop.store import corrections as store_corrections
from maskloop.store.annotations import AnnotationSnapshot
from maskloop.store.corrections import DerivedMasks
from maskloop.store.database import Store
from maskloop.store.images import ImageCache
from maskloop.types import EditCounts
from maskloop_studio.projects.frozen_corrections import TrainingImages, freeze_corrections

SAVED = datetime(2026, 1, 2, tzinfo=UTC)


def png(seed):
    file = io.BytesIO()
    Image.fromarray(make_image(seed, size_hw=(64, 64), domain="shifted").image_hwc).save(file, "PNG")
    return file.getvalue()


class Project:
    """A project's database and images, filled as intake does it."""

    def __init__(self, folder, settings, segment):
        self.store = Store(f"sqlite:///{folder / 'maskloop.db'}")
        self.cache = ImageCache(folder / "images")
        self.settings, self.segment = settings, segment

    def annotate(self, task_id, data, *, at=SAVED):
        annotation = AnnotationSnapshot(
            annotation_id=task_id,
            project_id=1,
            task_id=task_id,
            updated_at=at,
            state="submitted",
            content={"result": [], "at": at.isoformat()},
            label_config="<View/>",
            split="train",
            read_at=at,
        )
        key = self.cache.put(data)
        masks = DerivedMasks(
            image_key=key,
            image_uri="/a.png",
            size_hw=(64, 64),
            segments=(self.segment,),
            edits=EditCounts(added=1),
            model_version=None,
        )
        self.store.holdout.add_hash(key, perceptual_hash(np.asarray(Image.open(io.BytesIO(data)))))
        side = self.store.holdout.place(
            1, [key], fraction=self.settings.holdout_fraction, near_distance=self.settings.near_distance
        )
        self.store.annotations.set_split(task_id, side)
        self.store.corrections.save(self.store.annotations.save(annotation).version_id, masks)
        self.store.annotations.set_split(task_id, side)
        return key

    def freeze(self, snapshot, *, learnt_through=0):
        images = TrainingImages(self.cache, None, self.settings)
        return freeze_corrections(1, snapshot, store=self.store, images=images, learnt_through=learnt_through)


@pytest.fixture
def make_project(tmp_path, make_segment):
    """Return a function that makes an empty project."""
    made = []

    def make(name="one", **changes):
        (tmp_path / name).mkdir()
        made.append(Project(tmp_path / name, Settings(**changes), make_segment(label="disc")))
        return made[-1]

    yield make
    for project in made:
        project.store.close()


def keys(corrections):
    return {one.image_key for one in corrections}


def test_freeze_corrections_same_photos_in_two_projects_have_one_holdout(make_project, tmp_path):
    photos = [png(seed) for seed in range(9)]
    first, second = make_project("one"), make_project("two")
    for task_id, photo in enumerate(photos, start=1):
        first.annotate(task_id, photo)
    for task_id, photo in enumerate(reversed(photos), start=400):
        second.annotate(task_id, photo)
    one, other = first.freeze(tmp_path / "one.json"), second.freeze(tmp_path / "two.json")
    assert keys(one.holdout) == keys(other.holdout)
    assert keys(one.train) == keys(other.train)
    assert len(one.holdout) == 3  # a third, while there are few


def test_freeze_corrections_reaches_the_least_number_and_keeps_it_for_ever(make_project, tmp_path):
    project = make_project(holdout_fraction=0.1)
    for task_id in range(1, 25):
        project.annotate(task_id, png(task_id))
    first = project.freeze(tmp_path / "1.json")
    assert (len(first.train), len(first.holdout)) == (16, 8)
    learnt = max(one.version_id for one in first.train)
    for task_id in range(1, 31):  # all are corrected once more, six are new
        project.annotate(task_id, png(task_id), at=SAVED + timedelta(hours=1))
    second = project.freeze(tmp_path / "2.json", learnt_through=learnt)
    assert keys(first.holdout) <= keys(second.holdout)
    assert not keys(second.holdout) & keys(first.train)


def test_freeze_corrections_after_a_kill_returns_the_same(make_project, tmp_path):
    project = make_project(holdout_least=2)
    for task_id in range(1, 8):
        project.annotate(task_id, png(task_id))
    first = project.freeze(tmp_path / "training-5.json")
    project.annotate(2, png(2), at=SAVED + timedelta(hours=1))
    project.annotate(9, png(9))
    again = project.freeze(tmp_path / "training-5.json")
    parts = [
        [[one.version_id for one in part] for part in (frozen.train, frozen.holdout)]
        for frozen in (first, again)
    ]
    assert parts[0] == parts[1]
    assert 9 in {one.task_id for one in project.freeze(tmp_path / "training-6.json").train}


def test_freeze_corrections_decodes_each_correction_once(make_project, tmp_path, monkeypatch):
    project = make_project()
    for task_id in (1, 2, 3):
        project.annotate(task_id, png(task_id))
    decoded = []

    def decode(text, *, place):
        decoded.append(place)
        return segments_from_text(text, place=place)

    segments_from_text = store_corrections.segments_from_text
    monkeypatch.setattr(store_corrections, "segments_from_text", decode)
    for attempt in (1, 2):  # the second one is the restart after a kill
        frozen = project.freeze(tmp_path / "snapshot.json")
        assert sorted(one.task_id for one in (*frozen.train, *frozen.holdout)) == [1, 2, 3]
        assert len(decoded) == 3 * attempt


@pytest.mark.parametrize(("duplicates", "tasks"), [(True, {1, 2, 3}), (False, {2, 3})], ids=["all", "one"])
def test_freeze_corrections_leaves_copies_out_where_it_should(make_project, tmp_path, duplicates, tasks):
    project = make_project(train_duplicates=duplicates, holdout_fraction=0.0)
    for task_id, seed in ((1, 1), (2, 1), (3, 2)):
        project.annotate(task_id, png(seed), at=SAVED + timedelta(hours=task_id))
    frozen = project.freeze(tmp_path / "snapshot.json")
    assert {one.task_id for one in frozen.train} == tasks
    again = project.freeze(tmp_path / "snapshot.json")
    assert [one.version_id for one in again.train] == [one.version_id for one in frozen.train]
