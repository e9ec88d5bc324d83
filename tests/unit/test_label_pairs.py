import time

import pytest

from maskloop.label_pairs import find_mirror_pairs, labels_without_mirror, mirror_pairs

PAIRS = [  # (one label, its mirror, whether a whole word says so)
    ("left hand", "right hand", True),
    ("Left Hand", "Right Hand", True),
    ("LEFT", "RIGHT", True),
    ("leftHand", "rightHand", True),
    ("handLeft", "handRight", True),
    ("lefteye", "righteye", True),
    ("Left hand", "right hand", True),
    ("arm (left, lower)", "arm (right, lower)", True),
    ("wing-port", "wing-starboard", True),
    ("eye_L", "eye_R", False),
    ("L.Arm", "R.Arm", False),
    ("LH door", "RH door", False),
    ("LHDoor", "RHDoor", False),
    ("FL wheel", "FR wheel", False),
    ("FLwheel", "FRwheel", False),
    ("wheel_rl", "wheel_rr", False),
    ("Lt kidney", "Rt kidney", False),
    ("linke Hand", "rechte Hand", True),
    ("Hand links", "Hand rechts", True),
    ("linker Arm", "rechter Arm", True),
    ("Linksabbieger", "Rechtsabbieger", True),
    ("main gauche", "main droite", True),
    ("bras gauche", "bras droit", True),
    ("mano izquierda", "mano derecha", True),
    ("pie izquierdo", "pie derecho", True),
    ("mano sinistra", "mano destra", True),
    ("faro sx", "faro dx", True),
    ("mão esquerda", "mão direita", True),
    ("vänster hand", "höger hand", True),
    ("lewa ręka", "prawa ręka", True),
    ("левая рука", "правая рука", True),
    ("左手", "右手", True),
    ("왼쪽 손", "오른쪽 손", True),
    ("sol el", "sağ el", True),
]


@pytest.mark.parametrize(("one", "other", "sure"), PAIRS, ids=[pair[0] for pair in PAIRS])
def test_find_mirror_pairs_languages_and_forms(one, other, sure):
    for labels in ((one, "background", other), (other, one)):
        (pair,) = find_mirror_pairs(labels)
        assert set(pair.names) == {one, other}
        assert pair.sure is sure
        assert mirror_pairs(labels) == (tuple(label for label in labels if label in (one, other)),)


@pytest.mark.parametrize(
    "labels",
    [
        ("bright", "light", "copyright"),
        ("left hand", "right foot"),
        ("left hand", "left hand 2"),
        ("car", "cat"),
        ("model", "modern"),
        ("", " ", "1", "_"),
        ("large", "regular"),
        ("solar", "sagar"),
        ("droite", "droit"),
    ],
    ids=str,
)
def test_find_mirror_pairs_other_labels_have_none(labels):
    assert find_mirror_pairs(labels) == ()


def test_find_mirror_pairs_a_label_is_in_one_pair():
    labels = ("bras gauche", "bras droit", "bras droite", "left L", "right R", "left R", "right L")
    names = [name for pair in find_mirror_pairs(labels) for name in pair.names]
    assert len(names) == len(set(names))
    assert ("left L", "right R") in mirror_pairs(labels)
    assert ("left R", "right L") in mirror_pairs(labels)


def test_labels_without_mirror_names_whole_words_only():
    labels = ("left hand", "right hand", "left foot", "Hand links", "size L", "der Hund", "car")
    assert labels_without_mirror(labels) == ("left foot", "Hand links")


def test_find_mirror_pairs_hostile_labels_end_soon():
    labels = ["left " * 90, "gauche " * 60, "l" * 100_000, "aB" * 200, *(f"left {n}" for n in range(300))]
    started = time.process_time()
    assert find_mirror_pairs(labels) == ()
    assert time.process_time() - started < 5
