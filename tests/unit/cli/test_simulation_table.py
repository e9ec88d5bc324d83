"""The table of a simulation: what is not known is said, random is compared with nothing."""

import io

import pytest
from rich.console import Console

from maskloop_studio.cli.simulation_table import (
    gain_word,
    saving_word,
    simulation_table,
    simulation_warnings,
)

SAVED = {"share": 0.25, "word": "reached", "interval_word": "at least 10%"}
GAIN = {"mean": 0.05, "low": -0.01, "high": 0.11}


def strategy(**changes):
    found = {
        "mean": [0.2, 0.7],
        "labels": [[2, 4], [2, 4]],
        "objects": [[5, 10], [5, 13]],
        "seconds": [None, None],
        "labels_saved_detail": SAVED,
        "objects_saved": SAVED,
        "seconds_saved": None,
        **{f"gain_at_equal_{cost}": GAIN for cost in ("labels", "objects")},
        "gain_at_equal_seconds": None,
    }
    return found | changes


def table_of(told):
    console = Console(file=io.StringIO(), width=200)
    console.print(simulation_table(told))
    lines = console.file.getvalue().splitlines()
    return {line[:22].strip(): line[22:].split("  ") for line in lines}


def test_simulation_table_has_a_row_for_each_figure():
    rows = table_of({"strategies": {"hybrid": strategy(), "random": strategy(mean=[0.2, 0.6])}})
    words = {head: [word.strip() for word in row if word.strip()] for head, row in rows.items()}
    assert words["quality in the end"] == ["0.700", "0.600"]
    assert words["objects in the end"] == ["12", "12"]
    assert words["seconds in the end"] == ["not known", "not known"]
    assert words["gain at equal objects"] == ["+0.050 (-0.010 to +0.110)"]
    assert words["gain at equal seconds"] == ["not known"]
    assert words["objects saved"] == ["25% (at least 10%)"]


@pytest.mark.parametrize(
    ("gain", "said"),
    [
        ({"mean": 0.1, "low": -0.1, "high": 0.3}, 1),
        ({"mean": 0.1, "low": 0.01, "high": 0.3}, 0),
        ({"mean": -0.1, "low": -0.3, "high": -0.01}, 0),
        ({"mean": 0.1, "low": None, "high": None}, 0),
    ],
    ids=["around zero", "a gain", "a loss", "one seed"],
)
def test_simulation_warnings_case(gain, said):
    told = {"strategies": {"hybrid": strategy(gain_at_equal_objects=gain), "random": strategy()}}
    assert len(simulation_warnings(told)) == said
    both = strategy(gain_at_equal_objects=gain, gain_at_equal_seconds=gain)
    assert len(simulation_warnings({"strategies": {"hybrid": both, "random": strategy()}})) == 2 * said


@pytest.mark.parametrize(
    ("saved", "word"),
    [
        (SAVED, "25% (at least 10%)"),
        (SAVED | {"interval_word": ""}, "25%"),
        (SAVED | {"share": -0.001, "interval_word": ""}, "0%"),
        (
            SAVED | {"share": None, "word": "not reached with 8 labels"},
            "not reached with 8 labels (at least 10%)",
        ),
        (None, "not known"),
    ],
    ids=["interval", "one seed", "about zero", "not reached", "no seconds"],
)
def test_saving_word_case(saved, word):
    assert saving_word(saved) == word


def test_gain_word_single_seed_has_no_interval():
    assert gain_word({"mean": 0.05, "low": None, "high": None}) == "+0.050"
