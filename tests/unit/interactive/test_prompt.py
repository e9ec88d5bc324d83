"""Prompts that mean nothing are refused with a word that says why."""

import math

import numpy as np
import pytest

from maskloop.interactive.prompt import MAX_CLICKS, Click, Prompt, PromptError, shrink_mask

CLICK = Click(x=0.5, y=0.5)


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        pytest.param({}, "click on the object first", id="nothing"),
        pytest.param(
            {"clicks": (Click(x=0.5, y=0.5, is_positive=False),)}, "not part of it", id="negative alone"
        ),
        pytest.param({"clicks": (Click(x=math.nan, y=0.5),)}, "finite", id="NaN"),
        pytest.param({"clicks": (Click(x=0.5, y=math.inf),)}, "finite", id="infinity"),
        pytest.param({"clicks": (Click(x=1.2, y=0.5),)}, "inside the image.*120 %", id="right of the image"),
        pytest.param({"clicks": (Click(x=0.5, y=-0.1),)}, "inside the image", id="above the image"),
        pytest.param({"clicks": (CLICK,) * 10_000}, "10000", id="10,000 points"),
        pytest.param({"box_xyxy": (0.2, 0.2, 0.2, 0.6)}, "area above zero", id="box without a width"),
        pytest.param({"box_xyxy": (0.4, 0.2, 0.2, 0.6)}, "area above zero", id="box inside out"),
        pytest.param({"area_hw": np.zeros((4, 4), dtype=np.bool_)}, "at least one pixel", id="empty area"),
    ],
)
def test_prompt_that_means_nothing_is_refused(parts, words):
    with pytest.raises(PromptError, match=words):
        Prompt(**parts)


def test_prompt_most_clicks_are_taken_apart_by_sign():
    clicks = (CLICK, Click(x=0.1, y=0.1, is_positive=False)) * (MAX_CLICKS // 2)
    prompt = Prompt(clicks=clicks)
    assert (len(prompt.positive), len(prompt.negative)) == (MAX_CLICKS // 2, MAX_CLICKS // 2)


def test_shrink_mask_thin_line_stays_whole():
    mask_hw = np.zeros((3000, 4000), dtype=np.bool_)
    mask_hw[1500] = True
    small_hw = shrink_mask(mask_hw)
    assert small_hw.shape == (768, 1024)
    assert small_hw.any(axis=0).all()
