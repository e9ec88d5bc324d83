import hashlib
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from threading import Barrier

import numpy as np
import pytest

from maskloop.similarity import HASH_BITS
from maskloop.store.database import Store
from maskloop.store.holdout import HOLDOUT, NEITHER, TRAIN, Judgement, content_position

NEAR = 0.2


def key(number):
    return hashlib.sha256(str(number).encode()).hexdigest()


def image_hash(seed, *, changed=0):
    """Return a hash; with the same seed the two differ in `changed` bits."""
    bits = np.random.default_rng(seed).random(HASH_BITS) < 0.5
    bits[:changed] ^= True
    return np.packbits(bits)


LOW = [number for number in range(60) if content_position(key(number)) < 0.2]  # in the holdout by content
HIGH = [number for number in range(60) if content_position(key(number)) >= 0.2]


@pytest.fixture
def store(tmp_path):
    store = Store(f"sqlite:///{tmp_path / 'maskloop.db'}")
    yield store
    store.close()


def place(store, *numbers, project_id=1, fraction=0.2):
    return store.holdout.place(
        project_id, [key(number) for number in numbers], fraction=fraction, near_distance=NEAR
    )


def test_content_position_of_known_images_never_changes():
    # Fixed values: a change would let models be judged on images that they have learnt from elsewhere.
    assert LOW[:6] == [2, 4, 6, 8, 10, 13]


def test_content_position_of_many_images_is_uniform():
    places = [content_position(key(number)) for number in range(4000)]
    assert np.quantile(places, [0.25, 0.5, 0.75]) == pytest.approx([0.25, 0.5, 0.75], abs=0.03)


@pytest.mark.parametrize(("fraction", "side"), [(0.0, TRAIN), (1.0, HOLDOUT)])
def test_place_extreme_fractions(store, fraction, side):
    assert {place(store, number, fraction=fraction) for number in range(20)} == {side}


def test_place_same_image_in_other_projects_and_tasks_has_one_side(store):
    sides = [[place(store, number, project_id=project) for number in range(30)] for project in (1, 2, 1)]
    assert sides[0] == sides[1] == sides[2]
    assert [number for number in range(30) if sides[0][number] == HOLDOUT] == [n for n in LOW if n < 30]


CASES = [  # (sides of the known images by content, how many bits of theirs the new one differs in, its side)
    pytest.param([LOW[0]], [40], HIGH[0], HOLDOUT, id="copy of a holdout image joins it"),
    pytest.param([HIGH[0]], [40], LOW[0], TRAIN, id="copy of a training image joins it"),
    pytest.param([HIGH[0]], [60], LOW[0], HOLDOUT, id="too far: its content decides"),
    pytest.param([LOW[0], HIGH[0]], [20, 20], HIGH[1], NEITHER, id="copy of both is neither"),
    pytest.param([LOW[0], LOW[1]], [20, 30], HIGH[1], HOLDOUT, id="copy of two of the holdout"),
    pytest.param([], [], LOW[0], HOLDOUT, id="first image"),
]


@pytest.mark.parametrize(("known", "differing", "new", "side"), CASES)
def test_place_copies_never_cross(store, known, differing, new, side):
    base = np.unpackbits(image_hash(5)).astype(bool)
    for index, (number, count) in enumerate(zip(known, differing, strict=True)):
        bits = base.copy()
        bits[index * 100 : index * 100 + count] ^= True
        store.holdout.add_hash(key(number), np.packbits(bits))
        store.holdout.place(1, [key(number)], fraction=0.2, near_distance=0)
    store.holdout.add_hash(key(new), np.packbits(base))
    assert place(store, new) == side
    assert store.holdout.sides(1)[key(new)] == side


def test_place_images_of_one_task_are_on_one_side(store):
    assert place(store, HIGH[0], HIGH[1], LOW[0]) == place(store, LOW[0]) == place(store, HIGH[1])
    place(store, LOW[1])
    place(store, HIGH[3])
    assert place(store, LOW[1], HIGH[3]) == NEITHER


def test_place_reads_what_other_processes_placed(store, tmp_path):
    other = Store(f"sqlite:///{tmp_path / 'maskloop.db'}")
    place(other, HIGH[0])
    place(store, LOW[5])
    store.holdout.add_hash(key(HIGH[0]), image_hash(1))  # later than its side
    store.holdout.move(1, {key(HIGH[0]): HOLDOUT})
    other.holdout.add_hash(key(HIGH[1]), image_hash(1, changed=30))
    assert place(other, HIGH[1]) == HOLDOUT
    other.close()


def test_place_at_the_same_moment_gives_copies_one_side(store):
    numbers = [*LOW[:4], *HIGH[:4]]
    for changed, number in enumerate(numbers):
        store.holdout.add_hash(key(number), image_hash(1, changed=changed))
    barrier = Barrier(len(numbers))

    def placed(number):
        barrier.wait()
        return place(store, number)

    with ThreadPoolExecutor(len(numbers)) as pool:
        assert len(set(pool.map(placed, numbers))) == 1


def test_add_judgement_twice_counts_once(store):
    judgement = Judgement(
        training_id=5,
        project_id=1,
        champion="a-v1",
        challenger="a-v2",
        images=9,
        required=0.95,
        confidence=None,
        promote=False,
        at=datetime(2026, 1, 2, tzinfo=UTC),
    )
    store.holdout.add_judgement(judgement)
    store.holdout.add_judgement(judgement)
    assert store.holdout.judgements(1) == (judgement,)
    assert store.holdout.judgements(2) == ()
