"""Snapshots: the same rows give the same bytes, and nothing of them is lost."""

import hashlib
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
from faster_coco_eval import mask as coco_api

from maskloop.curation.imports.coco_folder import open_coco_folder
from maskloop.curation.imports.folder_snapshot import freeze_folder
from maskloop.curation.snapshots.verify import verify_snapshot
from maskloop.errors import StoreError

from ..conftest import MASKS, SIZE


def test_snapshot_made_elsewhere_has_the_same_bytes(snapshot, coco_source, cache, tmp_path):
    moved = shutil.copytree(coco_source, tmp_path / "elsewhere" / "moved")
    again = freeze_folder(open_coco_folder(moved), cache=cache, root=tmp_path / "other")
    for name in ("images.parquet", "objects.parquet", "manifest.json"):
        assert (again.folder / name).read_bytes() == (snapshot.folder / name).read_bytes()
    assert again.digest == snapshot.folder.name


def test_snapshot_bytes_of_today_stay(snapshot):
    # A change here changes the bytes of all snapshots that are made again: only with a new format number.
    digest = hashlib.sha256(snapshot.table("objects").read_bytes()).hexdigest()
    assert digest.startswith("9925389af012fcfb")


def test_snapshot_is_plain_parquet_with_masks_that_coco_reads(snapshot):
    rows = pq.read_table(snapshot.folder / "objects.parquet").to_pylist()
    for row, (_, category, crowd, mask_hw) in zip(rows, MASKS, strict=True):
        decoded = coco_api.decode({"size": SIZE, "counts": row["rle"].encode()})
        assert np.array_equal(decoded, mask_hw)
        assert (row["category_id"], row["kind"] == "crowd", row["area"]) == (
            category,
            bool(crowd),
            mask_hw.sum(),
        )


def test_images_come_with_their_objects_also_where_there_are_none(snapshot):
    found = {one.image.item: (one.image.split, len(one.objects)) for one in snapshot.images()}
    assert found == {
        "first.png": ("train", 3),
        "sub folder/second.jpg": ("validation", 2),
        "ünused.png": ("train", 0),
    }


def test_verify_whole_snapshot_finds_nothing(snapshot, cache):
    assert list(verify_snapshot(snapshot, cache=cache)) == []


DAMAGES = {
    "rows": (
        lambda s, c: s.table("objects").write_bytes(s.table("objects").read_bytes().replace(b"Cat", b"cAt")),
        "rows have changed",
    ),
    "file cut off": (
        lambda s, c: s.table("images").write_bytes(s.table("images").read_bytes()[:-9]),
        "cannot be read",
    ),
    "image gone": (
        lambda s, c: c.path(next(s.images()).image.image_key).unlink(),
        "first.png is not on this machine",
    ),
    "image changed": (lambda s, c: c.path(next(s.images()).image.image_key).write_bytes(b""), "is damaged"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_verify_damage_is_named(name, snapshot, cache):
    damage, words = DAMAGES[name]
    damage(snapshot, cache)
    assert words in " ".join(verify_snapshot(snapshot, cache=cache))


def test_read_rows_of_a_damaged_file_raises(snapshot):
    snapshot.table("objects").write_bytes(b"PAR1")
    with pytest.raises(StoreError, match="make the snapshot again"):
        list(snapshot.images())
