"""Which label of the config is meant by the one that a region carries."""

import pytest

from maskloop_studio.formats import match_label

LABELS = ("Car", "car", "Disc")
ALIASES = {"auto": "Car", "Round": "Disc"}
RENAMES = {"old": "Disc", "Older": "ROUND", "car": "Disc", "lost": "gone"}


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        pytest.param("car", "car", id="exactly, before a rename"),
        pytest.param("CAR", "Car", id="case, the first"),
        pytest.param(" disc ", "Disc", id="blanks"),
        pytest.param("AUTO", "Car", id="alias in another case"),
        pytest.param("old", "Disc", id="rename"),
        pytest.param("older", "Disc", id="rename in another case to an alias"),
        pytest.param("lost", None, id="rename to what is not there"),
        pytest.param("zebra", None, id="unknown"),
        pytest.param("", None, id="empty"),
    ],
)
def test_match_label_takes_the_nearest(label, expected):
    assert match_label(label, LABELS, aliases=ALIASES, renames=RENAMES) == expected
