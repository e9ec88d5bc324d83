"""The image cache: by content, whole files only, never the last byte of a disk."""

import hashlib
from pathlib import Path

import pytest

from maskloop.errors import ImageError, ResourceError
from maskloop.store.images import ImageCache


def test_put_same_image_twice_keeps_one_file(tmp_path: Path) -> None:
    cache = ImageCache(tmp_path / "images")
    key = cache.put(b"image")
    assert key == cache.put(b"image") == hashlib.sha256(b"image").hexdigest()
    assert cache.get(key) == cache.path(key).read_bytes() == b"image"
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [cache.path(key)]


def test_put_disk_nearly_full_raises(tmp_path: Path) -> None:
    cache = ImageCache(tmp_path, min_free_bytes=2**62)
    with pytest.raises(ResourceError, match="MiB free"):
        cache.put(b"image")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_put_folder_is_a_file_raises(tmp_path: Path) -> None:
    (tmp_path / "images").write_text("no folder")
    with pytest.raises(ResourceError, match="can be written"):
        ImageCache(tmp_path / "images").put(b"image")


def test_get_unknown_key_raises(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="maskloop sync"):
        ImageCache(tmp_path).get("0" * 64)


@pytest.mark.parametrize(
    "key", ["", "../../etc/passwd", "0" * 63, "Z" * 64], ids=["empty", "path", "short", "no hex"]
)
def test_path_no_key_raises(tmp_path: Path, key: str) -> None:
    with pytest.raises(ImageError, match="64 hexadecimal"):
        ImageCache(tmp_path).path(key)
