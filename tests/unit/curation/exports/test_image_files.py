"""Image files of exports: checked, fetched where they are missing, and turned ones are counted."""

import io

import pytest
from PIL import Image

from maskloop.curation.exports.format import ImagesMode
from maskloop.curation.exports.image_files import place_image
from maskloop.curation.snapshots.rows import ImageRow
from maskloop.errors import ImageError


def picture(orientation=1, size=(30, 20)):
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", size).save(buffer, "JPEG", exif=exif)
    return buffer.getvalue()


def row(key, size_hw):
    height, width = size_hw
    return ImageRow(
        item="a", number=1, file_name="a.jpg", image_key=key, image_uri="", height=height, width=width,
        split="train", source="folder",
    )  # fmt: skip


@pytest.fixture
def place(cache, tmp_path):
    def do(data, size_hw, fetch=None, stored=True):
        key = cache.put(data)
        if not stored:
            cache.path(key).unlink()
        target = tmp_path / "out" / "a.jpg"
        return place_image(row(key, size_hw), target, mode=ImagesMode.COPY, cache=cache, fetch=fetch), target

    return do


@pytest.mark.parametrize(("orientation", "size_hw"), [(1, (20, 30)), (3, (20, 30)), (6, (30, 20))])
def test_turned_image_is_copied_as_it_is_and_counted(place, orientation, size_hw):
    counts, target = place(picture(orientation), size_hw)
    assert target.read_bytes() == picture(orientation)
    assert counts == ({} if orientation == 1 else {"images with an EXIF orientation": 1})


def test_image_of_another_size_than_its_masks_raises(place):
    with pytest.raises(ImageError, match=r"20x30 pixels.*got 30x20"):
        place(picture(6), (20, 30))


def test_damaged_image_raises_and_leaves_nothing(place, cache, tmp_path):
    key = cache.put(picture())
    cache.path(key).write_bytes(b"other")
    with pytest.raises(ImageError, match="SHA-256"):
        place_image(row(key, (20, 30)), tmp_path / "x.jpg", mode=ImagesMode.COPY, cache=cache, fetch=None)
    assert list(tmp_path.glob("*x.jpg*")) == []


def test_missing_image_is_fetched(place, cache):
    _, target = place(picture(), (20, 30), fetch=lambda image: cache.put(picture()), stored=False)
    assert target.read_bytes() == picture()
