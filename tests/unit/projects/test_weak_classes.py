import math
from types import SimpleNamespace

import pytest

from maskloop_studio.cli.report import weak_lines
from maskloop_studio.projects.weak_classes import JudgedVersion, judged_versions, weak_classes


def judged(*scores):
    return [
        JudgedVersion(number=number, tag=f"m-v{number}", scores={"cat": (score, None, None)})
        for number, score in enumerate(scores, start=2)
    ]


def objects(*counts):
    return {number: {"cat": count} for number, count in enumerate(counts, start=2)}


@pytest.mark.parametrize(
    ("scores", "counts", "per_doubling", "needed"),
    [
        ((0.2, 0.3, 0.4), (10, 20, 40), 0.1, math.ceil(40 * (2**0.5 - 1))),
        ((0.2, 0.25, 0.3), (10, 20, 40), 0.05, 40),
        ((0.4, 0.41, 0.42), (10, 20, 40), 0.01, None),
        ((0.4, 0.3, 0.2), (10, 20, 40), -0.1, None),
        ((0.2, 0.3), (10, 20), None, None),
        ((0.2, 0.3, 0.4), (10, 10, 10), None, None),
        ((0.2, 0.3, 0.4), (0, 0, 0), None, None),
    ],
    ids=["steep", "one doubling", "beyond eight times", "falls", "two versions", "same objects", "none"],
)
def test_weak_classes_follow_the_projects_own_curve(scores, counts, per_doubling, needed):
    (one,) = weak_classes(judged(*scores), objects(*counts))
    assert one.per_doubling == (None if per_doubling is None else pytest.approx(per_doubling))
    assert (one.needed, one.objects, one.score) == (needed, counts[-1], scores[-1])


def test_weak_classes_of_no_version_are_none():
    assert weak_classes([], {}) == []
    assert weak_lines([]) == []


def test_judged_versions_reads_what_trainings_store_and_leaves_damage_out():
    good = {"label": "cat", "after": 0.4, "interval": [0.3, 0.5]}
    outcomes = [
        {"version": "m-v3", "decision": {"classes": [good], "new_classes": [{"label": "dog", "after": 0.1}]}},
        {"version": "m-v2", "decision": {"classes": [good, {"label": 7, "after": 1}, "x", {"label": "a"}]}},
        {"version": "m-vx", "decision": {"classes": [good]}},
        {"version": "m-v4", "decision": None},
        None,
    ]
    found = judged_versions([SimpleNamespace(outcome=one) for one in outcomes])
    assert [one.number for one in found] == [2, 3]
    assert found[1].scores == {"cat": (0.4, 0.3, 0.5), "dog": (0.1, None, None)}
    (dog, cat) = weak_classes(found, {3: {"Cat": 9}})
    assert (dog.label, dog.objects, cat.objects, cat.low) == ("dog", 0, 9, 0.3)
    assert "cat" in weak_lines([dog, cat])[2]
