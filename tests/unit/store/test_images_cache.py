"""The image cache: by content, whole files only, a bound on what can be fetched again."""

import hashlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

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


def test_remember_recall_same_image(tmp_path: Path) -> None:
    cache = ImageCache(tmp_path)
    assert cache.recall("http://studio/a.png") is None
    assert cache.remember("http://studio/a.png", b"image")
    assert cache.remember("http://studio/copy.png", b"image")
    assert cache.recall("http://studio/a.png") == cache.recall("http://studio/copy.png") == b"image"
    assert len(list((tmp_path / "recent" / "files").rglob("[0-9a-f]" * 64))) == 1


def test_remember_beyond_bound_forgets_the_least_recently_used(tmp_path: Path) -> None:
    cache = ImageCache(tmp_path, max_bytes=1000)
    for index in range(5):
        cache.remember(str(index), bytes([index]) * 100)
        set_age(tmp_path, hours=1)
        cache.recall("0")
    cache.remember("new", b"n" * 100)
    cache.remember("newer", b"o" * 100)
    recalled = {name for name in ("0", "1", "2", "3", "4", "new", "newer") if cache.recall(name)}
    assert {"0", "new", "newer"} <= recalled
    assert "1" not in recalled
    assert bytes_below(tmp_path / "recent") <= 1000


def test_remember_never_evicts_kept_images(tmp_path: Path) -> None:
    cache = ImageCache(tmp_path, max_bytes=300)
    kept = [cache.put(bytes([index]) * 200) for index in range(5)]
    for index in range(20):
        cache.remember(str(index), bytes([100 + index]) * 100)
    assert [cache.get(key)[0] for key in kept] == list(range(5))
    assert bytes_below(tmp_path / "recent") <= 300


def test_put_remembered_image_is_stored_once(tmp_path: Path) -> None:
    cache = ImageCache(tmp_path, max_bytes=1000)
    cache.remember("a", b"image")
    key = cache.put(b"image")
    assert cache.recall("a") == b"image"
    assert [path for path in tmp_path.rglob(key)] == [cache.path(key)]


def test_put_disk_full_of_remembered_images_makes_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = ImageCache(tmp_path, min_free_bytes=1)
    cache.remember("a", b"x" * 500)

    def disk_usage(_: object) -> SimpleNamespace:
        return SimpleNamespace(free=600 - bytes_below(tmp_path))

    monkeypatch.setattr(shutil, "disk_usage", disk_usage)
    key = cache.put(b"k" * 400)
    assert cache.get(key) == b"k" * 400
    assert cache.recall("a") is None
    assert not cache.remember("b", b"y" * 500)


@pytest.mark.parametrize("max_bytes", [0, 50], ids=["no cache", "larger than the cache"])
def test_remember_no_room_says_no(tmp_path: Path, max_bytes: int) -> None:
    cache = ImageCache(tmp_path, max_bytes=max_bytes)
    assert not cache.remember("a", b"x" * 51)
    assert cache.recall("a") is None


@pytest.mark.parametrize("left", [b"", b"imag", b"other"], ids=["empty", "short", "changed"])
@pytest.mark.parametrize("group", ["names", "files"])
def test_recall_damaged_file_is_a_miss(tmp_path: Path, group: str, left: bytes) -> None:
    cache = ImageCache(tmp_path)
    cache.remember("a", b"image")
    next(path for path in (tmp_path / "recent" / group).rglob("*") if path.is_file()).write_bytes(left)
    assert cache.recall("a") is None
    assert cache.remember("a", b"image")
    assert cache.recall("a") == b"image"


def test_remember_folder_is_a_file_says_no(tmp_path: Path) -> None:
    (tmp_path / "images").write_text("no folder")
    cache = ImageCache(tmp_path / "images", max_bytes=1000)
    assert not cache.remember("a", b"image")
    assert cache.recall("a") is None


def test_cache_deleted_underneath_goes_on(tmp_path: Path) -> None:
    cache = ImageCache(tmp_path / "images", max_bytes=1000)
    cache.remember("a", b"image")
    key = cache.put(b"kept")
    shutil.rmtree(tmp_path / "images")
    assert cache.recall("a") is None
    assert cache.remember("a", b"image")
    assert cache.put(b"kept") == key
    assert cache.get(key) == b"kept"


def test_remember_sweeps_what_a_killed_process_left(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    for name, hours in (("old", 2), ("young", 0)):
        (tmp_path / "new" / name).write_bytes(b"part")
        set_age(tmp_path / "new" / name, hours=hours)
    ImageCache(tmp_path, max_bytes=1000).remember("a", b"image")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["young"]


def test_cache_processes_at_once_stay_whole_and_bounded(tmp_path: Path) -> None:
    program = (
        "import sys, random, pathlib; from maskloop.store.images import ImageCache\n"
        "cache = ImageCache(pathlib.Path(sys.argv[1]), max_bytes=64_000)\n"
        "rng = random.Random(sys.argv[2])\n"
        "for step in range(300):\n"
        "    number = rng.randrange(60)\n"
        "    data = cache.recall(str(number))\n"
        "    assert data in (None, bytes([number]) * 4000), number\n"
        "    if data is None: assert cache.remember(str(number), bytes([number]) * 4000)\n"
        "    if step % 100 == 0: cache.put(bytes([number]) * 4000)\n"
    )
    workers = [
        subprocess.Popen([sys.executable, "-c", program, str(tmp_path), str(seed)]) for seed in range(3)
    ]
    assert [worker.wait(60) for worker in workers] == [0, 0, 0]
    # Each further process may exceed the bound by a sixteenth and one image.
    assert bytes_below(tmp_path / "recent") <= 64_000 + 2 * (4000 + 4064)
    assert not list((tmp_path / "new").iterdir())


def bytes_below(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def set_age(place: Path, *, hours: float) -> None:
    then = time.time() - hours * 3600
    for path in [place, *place.rglob("*")]:
        if path.is_file():
            os.utime(path, (then, path.stat().st_mtime - hours * 3600))
