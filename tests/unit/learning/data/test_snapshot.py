from datetime import UTC, datetime

import pytest

from maskloop.errors import TrainingError
from maskloop.learning.data.snapshot import ManifestEntry, SnapshotManifest


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
