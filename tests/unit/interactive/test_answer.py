"""Which object a prompt means, and that later clicks are obeyed."""

import numpy as np
import pytest
import torch
from tests.unit.interactive.conftest import SIZE_HW, object_mask

from maskloop.interactive import answer as answers
from maskloop.interactive.answer import answer, find_answer
from maskloop.interactive.prompt import Click, Prompt
from maskloop.masks import paste_segment

ON_DISC, ON_BLOCK, ON_LOST, NOWHERE = (0.19, 0.33), (0.59, 0.4), (0.88, 0.88), (0.45, 0.85)


def _clicks(*places):
    """Return clicks; the third number of a place is its sign."""
    return tuple(Click(x=x, y=y, is_positive=not sign or sign[0] > 0) for x, y, *sign in places)


def _iou(segment, name):
    mask_hw, truth_hw = paste_segment(segment, SIZE_HW), object_mask(name)
    return np.sum(mask_hw & truth_hw) / np.sum(mask_hw | truth_hw)


@pytest.mark.parametrize(
    ("place", "name", "tier"),
    [
        pytest.param(ON_DISC, "disc", "query", id="on the disc"),
        pytest.param(ON_BLOCK, "block", "query", id="on the block"),
        pytest.param(ON_LOST, "lost", "embedding", id="on what no query has found"),
    ],
)
def test_find_answer_one_click_is_the_object_below_it(make_features, place, name, tier):
    found = find_answer(make_features(), Prompt(clicks=_clicks(place)))
    assert found.tier == tier
    assert _iou(found.segment, name) > 0.6


def test_answer_click_on_nothing_is_empty(make_features):
    assert answer(make_features(), Prompt(clicks=_clicks(NOWHERE))) is None


@pytest.mark.parametrize("name", ["disc", "block"])
def test_answer_box_is_the_object_in_it(make_features, name):
    rows, columns = np.nonzero(object_mask(name))
    box = (columns.min() / 64, rows.min() / 48, (columns.max() + 1) / 64, (rows.max() + 1) / 48)
    segment = answer(make_features(merged=True), Prompt(box_xyxy=box))
    assert _iou(segment, name) > 0.6


def test_answer_area_is_the_object_below_the_scribble(make_features):
    area_hw = np.zeros(SIZE_HW, dtype=np.bool_)
    area_hw[18:22, 34:42] = True
    assert _iou(answer(make_features(merged=True), Prompt(area_hw=area_hw)), "block") > 0.6


def test_answer_tools_label_wins_where_the_model_doubts(make_features):
    doubt = make_features(classes=(0.5, 0.8))
    for label in ("disc", "block"):
        segment = answer(doubt, Prompt(clicks=_clicks(ON_DISC), labels=frozenset([label])))
        assert segment.label == label


def test_answer_negative_click_chooses_the_query_without_it(make_features):
    clicks = _clicks(ON_DISC, (*ON_BLOCK, -1))
    segment = answer(make_features(merged=True), Prompt(clicks=clicks))
    assert _iou(segment, "disc") > 0.6


def test_answer_negative_click_on_the_object_takes_more_than_a_pixel(make_features):
    x, y = 0.13, 0.25
    segment = answer(make_features(), Prompt(clicks=_clicks((0.25, 0.42), (x, y, -1))))
    row, column = int(48 * y), int(64 * x)
    mask_hw = paste_segment(segment, SIZE_HW)
    assert not any(mask_hw[row + down, column + right] for down, right in ((0, 1), (0, -1), (1, 0), (-1, 0)))
    assert _iou(segment, "disc") > 0.5


@pytest.mark.parametrize("seed", range(20))
def test_answer_clicks_are_obeyed_wherever_they_are(make_features, seed):
    rng = np.random.default_rng(seed)
    later = [(*rng.uniform(0, 1, 2), rng.choice([-1, 1])) for _ in range(6)]
    prompt = Prompt(clicks=_clicks(ON_DISC, *later))
    segment = answer(make_features(merged=True), prompt)
    assert segment is not None
    mask_hw = paste_segment(segment, SIZE_HW)
    for click in prompt.negative:
        assert not mask_hw[int(click.y * 48), int(click.x * 64)]


def test_answer_second_click_stays_with_the_first_object(make_features):
    segment = answer(make_features(), Prompt(clicks=_clicks(ON_DISC, (0.06, 0.2))))
    assert segment.label == "disc"
    assert _iou(segment, "block") == 0


def test_answer_forbidden_area_is_left_out(make_features):
    forbidden_hw = np.zeros(SIZE_HW, dtype=np.bool_)
    forbidden_hw[:, :12] = True
    segment = answer(make_features(), Prompt(clicks=_clicks(ON_DISC), forbidden_hw=forbidden_hw))
    assert segment.offset_yx[1] >= 12


def test_find_answer_computes_on_one_core(make_features, monkeypatch):
    seen, before = [], torch.get_num_threads()
    choose = answers.choose_query

    def note(*arguments):
        seen.append(torch.get_num_threads())
        return choose(*arguments)

    monkeypatch.setattr(answers, "choose_query", note)
    clicks = (Click(x=0.19, y=0.33), Click(x=0.45, y=0.85, is_positive=False))
    assert find_answer(make_features(), Prompt(clicks=clicks)) is not None
    assert set(seen) == {1}
    assert torch.get_num_threads() == before
