"""What was asked for is kept, for a few questions about one owner, and goes with it."""

import gc
from concurrent.futures import ThreadPoolExecutor

import pytest

from maskloop.interactive import answer as answer_module
from maskloop.interactive.answer import find_answer
from maskloop.interactive.answer_memo import AnswerMemo
from maskloop.interactive.prompt import Click, Prompt


class _Owner:
    """What a weak reference can point at."""


def test_get_makes_a_value_once_and_keeps_the_last_ones():
    memo, owner, made = AnswerMemo(2), _Owner(), []

    def get(key):
        return memo.get(owner, key, lambda: (made.append(key), key * 10)[1])

    assert [get(key) for key in (1, 2, 1, 3, 1, 2)] == [10, 20, 10, 30, 10, 20]
    assert made == [1, 2, 3, 2]


def test_get_value_that_is_too_large_is_made_again():
    memo, owner, made = AnswerMemo(2), _Owner(), []
    for _ in range(2):
        memo.get(owner, 1, lambda: made.append(1), may_keep=lambda _: False)
    assert len(made) == 2


def test_get_values_are_of_their_owner_and_go_with_it():
    memo, owners = AnswerMemo(2), [_Owner(), _Owner()]
    assert [memo.get(owner, 1, lambda number=number: number) for number, owner in enumerate(owners)] == [0, 1]
    owners.pop()
    gc.collect()
    assert len(memo._kept) == 1


def test_get_from_many_threads_gives_each_key_its_value():
    memo, owner = AnswerMemo(3), _Owner()
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda n: memo.get(owner, n % 7, lambda: n % 7), range(2000)))
    assert found == [number % 7 for number in range(2000)]


@pytest.mark.parametrize(
    ("signs", "asked"), [("+", 1), ("+-", 2), ("+--", 3), ("++-", 3), ("+-+", 4)], ids=str
)
def test_find_answer_negative_click_asks_once_where_the_clicks_before_were_answered(
    make_features, monkeypatch, signs, asked
):
    features, calls, of_tiers = make_features(merged=True), [], answer_module._of_tiers
    monkeypatch.setattr(
        answer_module,
        "_of_tiers",
        lambda *given, **options: (calls.append(1), of_tiers(*given, **options))[1],
    )
    places = [(0.19, 0.33), (0.59, 0.4), (0.1, 0.2)]
    clicks = [Click(x=x, y=y, is_positive=sign == "+") for (x, y), sign in zip(places, signs, strict=False)]
    for count in range(1, len(clicks) + 1):
        served = find_answer(features, Prompt(clicks=tuple(clicks[:count])))
    assert len(calls) == asked
    fresh = find_answer(make_features(merged=True), Prompt(clicks=tuple(clicks)))
    assert (served.segment.mask_hw == fresh.segment.mask_hw).all()
