from datetime import UTC, datetime

import pytest

from maskloop.store import corrections as store_corrections
from maskloop.store.annotations import AnnotationSnapshot
from maskloop.store.corrections import DerivedMasks
from maskloop.store.database import Store
from maskloop.types import EditCounts
from maskloop_studio.projects.training import freeze_corrections

SAVED = datetime(2026, 1, 2, tzinfo=UTC)


class FakeCorrections:
    """Keeps every version; only the newest of an annotation is current."""

    def __init__(self):
        self.versions = {}

    def of(self, project_id, *, split):
        newest = {one.annotation_id: one for one in self.versions.values()}
        return tuple(one for one in newest.values() if (one.task_id == 1) is (split == "holdout"))

    def at(self, version_ids):
        return tuple(self.versions[number] for number in sorted(version_ids))


def test_freeze_corrections_after_a_kill_returns_the_same(tmp_path, make_correction):
    stored = FakeCorrections()
    for number in (1, 2, 3):
        stored.versions[number] = make_correction(version_id=number, task_id=number, annotation_id=number)
    first = freeze_corrections(1, stored, tmp_path / "training-5.json")
    stored.versions[4] = make_correction(version_id=4, task_id=2, annotation_id=2)  # corrected once more
    stored.versions[5] = make_correction(version_id=5, task_id=9, annotation_id=9)  # new
    assert freeze_corrections(1, stored, tmp_path / "training-5.json") == first
    assert [[one.version_id for one in part] for part in first] == [[2, 3], [1]]
    later = freeze_corrections(1, stored, tmp_path / "training-6.json")
    assert [[one.version_id for one in part] for part in later] == [[3, 4, 5], [1]]


@pytest.fixture
def store(tmp_path, make_segment):
    """A database with three corrections of project 1, the last of them in the holdout."""
    store = Store(f"sqlite:///{tmp_path / 'maskloop.db'}")
    for task_id in (1, 2, 3):
        annotation = AnnotationSnapshot(
            annotation_id=task_id,
            project_id=1,
            task_id=task_id,
            updated_at=SAVED,
            state="submitted",
            content={"result": []},
            label_config="<View/>",
            split="holdout" if task_id == 3 else "train",
            read_at=SAVED,
        )
        masks = DerivedMasks(
            image_key="0" * 64,
            image_uri="/a.png",
            size_hw=(32, 48),
            segments=(make_segment(),),
            edits=EditCounts(added=1),
            approximate=False,
            model_version=None,
        )
        store.corrections.save(store.annotations.save(annotation).version_id, masks)
    yield store
    store.close()


def test_freeze_corrections_decodes_each_correction_once(store, tmp_path, monkeypatch):
    decoded = []

    def decode(text, *, place):
        decoded.append(place)
        return segments_from_text(text, place=place)

    segments_from_text = store_corrections.segments_from_text
    monkeypatch.setattr(store_corrections, "segments_from_text", decode)
    for attempt in (1, 2):  # the second one is the restart after a kill
        train, holdout = freeze_corrections(1, store.corrections, tmp_path / "snapshot.json")
        assert [one.task_id for one in (*train, *holdout)] == [1, 2, 3]
        assert len(decoded) == 3 * attempt
