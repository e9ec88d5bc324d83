import re

import pytest

from maskloop.learning.data.snapshot import split_of
from maskloop.learning.data.splits import holdout_words, is_validation, split_validation

DISC, BOTH = frozenset({"disc"}), frozenset({"disc", "star"})


def test_is_validation_known_tasks_never_change():
    # Written down once: a change here would stop trainings by what earlier ones had learnt.
    assert [task for task in range(40) if is_validation(1, task, 0.1)] == [4, 17, 25, 26, 38]


def test_is_validation_is_independent_of_the_holdout():
    train = [task for task in range(8000) if split_of(3, task, 0.2) == "train"]
    share = sum(is_validation(3, task, 0.1) for task in train) / len(train)
    assert share == pytest.approx(0.1, abs=0.015)


@pytest.mark.parametrize(
    ("count", "fraction", "empty"), [(9, 0.5, True), (30, 0.5, False), (30, 0.0, True)], ids=str
)
def test_split_validation_parts_are_the_whole(make_correction, count, fraction, empty):
    corrections = [make_correction(task_id=task) for task in range(count)]
    learnt, stopping = split_validation(corrections, fraction=fraction, least=10)
    assert (not stopping) is empty
    assert {one.task_id for one in (*learnt, *stopping)} == set(range(count))
    assert len(learnt) + len(stopping) == count


@pytest.mark.parametrize(
    ("holdout", "expected"),
    [
        ([], "is empty"),
        ([DISC] * 3, "of 3 images has no image of star"),
        ([BOTH, DISC, DISC], r"fewer than 3 images of star \(1\)"),
        ([DISC, DISC, frozenset()], r"no image of star and fewer than 3 images of disc \(2\)"),
    ],
    ids=["empty", "missing", "scarce", "both"],
)
def test_holdout_words_says_what_it_lacks(holdout, expected):
    assert re.search(expected, holdout_words(holdout, ("disc", "star")))


def test_holdout_words_enough_of_all_is_silent():
    assert holdout_words([BOTH] * 3, ("disc", "star")) is None
