from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskloop.errors import TrainingError
from maskloop.learning.data.snapshot import ManifestEntry, SnapshotManifest, split_of


def make_entry(task_id=2, **changes):
    values = {
        "project_id": 1,
        "task_id": task_id,
        "annotation_id": 3,
        "updated_at": datetime(2026, 5, 4, 3, 2, 1, 123456, tzinfo=UTC),
        "image_key": "ab" * 32,
        "split": "train",
    }
    return ManifestEntry(**(values | changes))


def test_snapshot_manifest_written_reads_back(tmp_path):
    manifest = SnapshotManifest(entries=(make_entry(2), make_entry(3, split="holdout")))
    manifest.write(tmp_path / "deep" / "manifest.json")
    assert SnapshotManifest.read(tmp_path / "deep" / "manifest.json") == manifest
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["manifest.json"]


@pytest.mark.parametrize(
    "text",
    [None, "{", "[]", '{"format": 2, "entries": []}', '{"format": 1, "entries": [{"task_id": 1}]}'],
    ids=["missing", "cut", "list", "other-format", "fields"],
)
def test_snapshot_manifest_bad_file_raises(tmp_path, text):
    path = tmp_path / "manifest.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(TrainingError, match="manifest"):
        SnapshotManifest.read(path)


def test_manifest_entry_naive_time_raises():
    with pytest.raises(ValueError, match="aware"):
        make_entry(updated_at=datetime(2026, 1, 1))


def test_split_of_known_tasks_never_changes():
    # Fixed values: a change would let models be evaluated on images that they were trained on.
    assert [task for task in range(30) if split_of(1, task, 0.2) == "holdout"] == [0, 1, 3, 7, 11, 17, 18, 20]


def test_split_of_many_tasks_follows_the_fraction():
    held = sum(split_of(7, task, 0.25) == "holdout" for task in range(4000))
    assert held / 4000 == pytest.approx(0.25, abs=0.03)


@pytest.mark.parametrize(("fraction", "expected"), [(0.0, "train"), (1.0, "holdout")])
def test_split_of_extremes(fraction, expected):
    assert {split_of(1, task, fraction) for task in range(50)} == {expected}


@given(st.integers(0, 10**9), st.integers(0, 10**9), st.floats(0, 1), st.floats(0, 1))
def test_split_of_larger_fraction_keeps_the_holdout(project_id, task_id, first, second):
    if split_of(project_id, task_id, min(first, second)) == "holdout":
        assert split_of(project_id, task_id, max(first, second)) == "holdout"


def test_manifest_of_corrections_names_their_rows(make_correction):
    train = [make_correction(task_id=number, version_id=100 + number) for number in (2, 1)]
    holdout = [make_correction(task_id=9, version_id=109)]
    made = SnapshotManifest.of(train=train, holdout=holdout)
    assert (made.version_ids("train"), made.version_ids("holdout")) == ((102, 101), (109,))
    assert made.version_ids() == (102, 101, 109)
    again = SnapshotManifest.of(train=train[::-1], holdout=holdout)
    assert again.digest == made.digest
    other = SnapshotManifest.of(train=train[:1], holdout=holdout)
    assert other.digest != made.digest


def test_manifest_from_before_rows_were_noted_is_read(tmp_path):
    path = tmp_path / "snapshot.json"
    SnapshotManifest(entries=(make_entry(),)).write(path)
    path.write_text(
        path.read_text().replace('"version_id": 0', '"version_id": 7').replace(',\n   "version_id": 7', "")
    )
    assert "version_id" not in path.read_text()
    assert SnapshotManifest.read(path).version_ids() == (0,)
