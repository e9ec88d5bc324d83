"""A small object is answered from a look of its own, where that shows all of it and later clicks agree."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from maskloop.interactive.answer import Answer
from maskloop.interactive.crop_tier import crop_answer, crop_window, find_with_crop, is_small
from maskloop.interactive.image_features import ImageFeatures, embedding_statistics
from maskloop.interactive.prompt import Click, Prompt
from maskloop.masks import mask_to_segment, paste_segment
from maskloop.segmentation.upsample import Window

SIZE_HW = (48, 64)
MIDDLE = Window(top=12, left=20, bottom=36, right=44)


def _prompt(*pixels, **drawn):
    """Return clicks in the middle of pixels (row, column); with a third number they are beside the object."""
    clicks = [Click(y=(r + 0.5) / 48, x=(c + 0.5) / 64, is_positive=not sign) for r, c, *sign in pixels]
    return Prompt(clicks=tuple(clicks), **drawn)


def _look(window, rows, columns):
    """Return features of a crop, one cell a pixel, with one query of a block given in the image's pixels."""
    side = window.bottom - window.top
    image_hw = np.zeros(SIZE_HW, dtype=np.bool_)
    image_hw[rows, columns] = True
    inside_hw = torch.from_numpy(image_hw[window.top : window.bottom, window.left : window.right].copy())
    pixels_chw = torch.stack([inside_hw.float(), torch.ones(side, side)])
    embeddings_nc = torch.tensor([[16.0, -8.0]])
    probs_nhw = torch.einsum("nc,chw->nhw", embeddings_nc, pixels_chw).sigmoid()
    mean_c, precision_cc = embedding_statistics(pixels_chw)
    return ImageFeatures(
        size_hw=(side, side),
        labels=("cell",),
        class_probs_nk=torch.tensor([[0.9, 0.1]]),
        coarse_nhw=(probs_nhw * 255).to(torch.uint8),
        quality_n=torch.tensor([0.99]),
        boxes_n4=torch.tensor([[0.0, 0.0, 1.0, 1.0]]),
        pixels_chw=pixels_chw.half(),
        embeddings_nc=embeddings_nc,
        mean_c=mean_c,
        precision_cc=precision_cc,
    )


def _block(rows, columns):
    mask_hw = np.zeros(SIZE_HW, dtype=np.bool_)
    mask_hw[rows, columns] = True
    return mask_hw


@pytest.mark.parametrize(
    ("pixel", "corner"),
    [
        pytest.param((24, 32), (12, 20), id="middle"),
        pytest.param((0, 0), (0, 0), id="first pixel"),
        pytest.param((47, 63), (24, 40), id="last pixel"),
        pytest.param((2, 60), (0, 40), id="upper right"),
    ],
)
def test_crop_window_is_the_square_around_the_first_click_inside_the_image(pixel, corner):
    window = crop_window(_prompt(pixel), SIZE_HW)
    assert (window.top, window.left) == corner
    assert (window.bottom - window.top, window.right - window.left) == (24, 24)
    assert crop_window(_prompt(pixel, (40, 5), (5, 5, -1)), SIZE_HW) == window, "later clicks change nothing"


@pytest.mark.parametrize(
    ("drawn", "size_hw"),
    [
        pytest.param({"box_xyxy": (0.2, 0.2, 0.6, 0.6)}, SIZE_HW, id="box"),
        pytest.param({"area_hw": np.ones(SIZE_HW, dtype=np.bool_)}, SIZE_HW, id="scribble"),
        pytest.param({"forbidden_hw": np.ones(SIZE_HW, dtype=np.bool_)}, SIZE_HW, id="forbidden area"),
        pytest.param({}, (31, 400), id="image too small to be cut"),
    ],
)
def test_crop_window_where_no_crop_answers_is_none(drawn, size_hw):
    assert crop_window(_prompt((24, 32), **drawn), size_hw) is None


@pytest.mark.parametrize("later", [(), ((25, 40, -1),), ((26, 31), (2, 2, -1))], ids=["one", "beside", "far"])
def test_crop_answer_is_the_object_in_the_images_pixels(later):
    rows, columns = slice(20, 28), slice(28, 35)
    found = crop_answer(_look(MIDDLE, rows, columns), MIDDLE, _prompt((24, 32), *later), SIZE_HW)
    assert found.tier == "crop"
    assert (paste_segment(found.segment, SIZE_HW) == _block(rows, columns)).all()


@pytest.mark.parametrize(
    ("pixel", "rows", "columns", "is_whole"),
    [
        pytest.param((24, 32), slice(12, 28), slice(28, 35), False, id="reaches the upper side"),
        pytest.param((24, 32), slice(20, 28), slice(28, 44), False, id="reaches the right side"),
        pytest.param((24, 32), slice(13, 35), slice(21, 43), True, id="a pixel away from all sides"),
        pytest.param((3, 3), slice(0, 8), slice(0, 8), True, id="reaches the image's own corner"),
        pytest.param((3, 3), slice(0, 24), slice(0, 8), False, id="corner, but too long"),
    ],
)
def test_crop_answer_that_the_crop_cuts_off_is_none(pixel, rows, columns, is_whole):
    window = crop_window(_prompt(pixel), SIZE_HW)
    found = crop_answer(_look(window, rows, columns), window, _prompt(pixel), SIZE_HW)
    assert (found is not None) is is_whole


def test_crop_answer_click_on_the_object_beyond_the_crop_is_none():
    look = _look(MIDDLE, slice(20, 28), slice(28, 35))
    assert crop_answer(look, MIDDLE, _prompt((24, 32), (24, 50)), SIZE_HW) is None


@pytest.mark.parametrize("seed", range(20))
def test_crop_answer_clicks_beside_the_object_are_obeyed_wherever_they_are(seed):
    rng = np.random.default_rng(seed)
    beside = [(*map(int, rng.integers((0, 0), SIZE_HW)), -1) for _ in range(5)]
    prompt = _prompt((24, 32), *[place for place in beside if place[:2] != (24, 32)])
    found = crop_answer(_look(MIDDLE, slice(18, 31), slice(26, 40)), MIDDLE, prompt, SIZE_HW)
    if found is not None:
        mask_hw = paste_segment(found.segment, SIZE_HW)
        assert not any(mask_hw[row, column] for row, column, _ in beside)
        assert not (mask_hw & ~_block(slice(16, 33), slice(24, 42))).any(), "it is still the same object"


@pytest.mark.parametrize(
    ("blocks", "small"),
    [
        pytest.param([], True, id="nothing found"),
        pytest.param([(slice(20, 30), slice(28, 40))], True, id="half as long as the crop"),
        pytest.param([(slice(20, 30), slice(28, 41))], False, id="a pixel longer"),
        pytest.param([(slice(20, 30), slice(28, 40)), (slice(0, 40), slice(50, 60))], True, id="others too"),
        pytest.param([(slice(0, 48), slice(40, 64))], False, id="large, beside the click"),
        pytest.param([(slice(0, 48), slice(0, 64))], False, id="all"),
    ],
)
def test_is_small_looks_at_the_part_below_the_first_click(blocks, small):
    mask_hw = np.zeros(SIZE_HW, dtype=np.bool_)
    for rows, columns in blocks:
        mask_hw[rows, columns] = True
    segment = mask_to_segment(mask_hw, label="cell")
    found = None if segment is None else Answer(segment=segment, tier="query")
    assert is_small(found, _prompt((24, 32)), MIDDLE, SIZE_HW) is small


@pytest.mark.parametrize(
    ("later", "use"),
    [
        pytest.param((), "refused", id="nothing tells yet"),
        pytest.param(((26, 30),), "used", id="on it"),
        pytest.param(((24, 40, -1),), "used", id="beside it"),
        pytest.param(((24, 40),), "refused", id="the object is larger than what the crop shows"),
        pytest.param(((24, 40), (26, 30)), "refused", id="half of them"),
        pytest.param(((24, 40), (26, 30), (21, 29)), "used", id="two of three"),
    ],
)
def test_find_with_crop_later_clicks_decide_which_answer_is_taken(make_features, later, use):
    whole, closer = make_features(), _look(MIDDLE, slice(20, 28), slice(28, 35))
    found, got = find_with_crop(whole, _prompt((24, 32), *later), MIDDLE, closer)
    assert got == use
    assert (found is not None and found.tier == "crop") is (use == "used")


@pytest.mark.parametrize(
    ("later", "use"),
    [((), "large"), (((20, 44),), "large"), (((30, 60, -1),), "wanted")],
    ids=["first", "on", "beside"],
)
def test_find_with_crop_large_object_is_looked_at_again_only_after_a_click_beside_it(
    make_features, later, use
):
    whole = make_features()
    blown_up = replace(whole, embeddings_nc=whole.embeddings_nc + torch.tensor([0.0, 0.0, 0.0, 12.0]))
    found, got = find_with_crop(blown_up, _prompt((24, 38), *later), MIDDLE, None)
    assert got == use
    assert found.tier != "crop"


def test_find_with_crop_small_object_is_wanted(make_features):
    window = Window(top=0, left=0, bottom=48, right=48)
    found, use = find_with_crop(make_features(), _prompt((16, 12)), window, None)
    assert (use, found.segment.label) == ("wanted", "disc")
