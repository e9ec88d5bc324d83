import numpy as np
import pytest

from maskloop.curation.duplicates.alike import (
    Likeness,
    TaskImageFacts,
    facts_of,
    find_alike,
    find_outliers,
)
from maskloop.similarity import HASH_BYTES


def known(task_id: int, key: str | None = None, first: int = 0, angle: float | None = None) -> TaskImageFacts:
    image_hash = np.full(HASH_BYTES, 85, np.uint8)
    image_hash[0] ^= first
    embedding = None if angle is None else np.array([np.cos(angle), np.sin(angle)], np.float32)
    picture = image_hash if key is not None else None
    return TaskImageFacts(task_id=task_id, image_key=key, picture_hash=picture, embedding_d=embedding)


@pytest.mark.parametrize(
    ("second", "likeness"),
    [
        pytest.param(known(2, "a"), Likeness.SAME_FILE, id="same bytes"),
        pytest.param(known(2, "b", first=1), Likeness.SAME_PICTURE, id="one bit"),
        pytest.param(known(2, angle=0.05), Likeness.SAME_SCENE, id="embedding alone"),
        pytest.param(known(2, angle=1.0), None, id="another scene"),
        pytest.param(known(2), None, id="nothing known"),
    ],
)
def test_find_alike_names_the_strongest_likeness(second: TaskImageFacts, likeness: Likeness | None):
    found = find_alike([known(1, "a", angle=0.0), second], hash_distance=0.1, embedding_distance=0.01)
    assert [(one.first, one.second, one.likeness) for one in found] == (
        [] if likeness is None else [(1, 2, likeness)]
    )


def test_find_alike_many_copies_are_pairs_with_the_first():
    found = find_alike([known(n, "a") for n in range(50)], hash_distance=0.1, embedding_distance=0.0)
    assert [(one.first, one.second) for one in found] == [(0, n) for n in range(1, 50)]


def test_find_outliers_has_the_odd_one_first():
    facts = [known(n, angle=0.01 * n) for n in range(8)] + [known(99, angle=2.0), known(100)]
    found = find_outliers(facts)
    assert found[0][0] == 99
    assert [task for task, _ in found].count(100) == 0
    assert find_outliers(facts[:2]) == []


def test_facts_of_joins_what_is_known():
    (first, second) = facts_of({2: "a"}, {"a": np.zeros(HASH_BYTES, np.uint8)}, {1: np.ones(3, np.float32)})
    assert (first.task_id, first.image_key, first.picture_hash) == (1, None, None)
    assert (second.task_id, second.image_key) == (2, "a")
