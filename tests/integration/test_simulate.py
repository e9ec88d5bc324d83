"""`maskloop simulate` with the shipped model: what it writes, that a killed one goes on, what it refuses."""

import json
import os
import signal
import subprocess
import sys
import time
from xml.etree import ElementTree

import numpy as np
import pytest
from tests.paths import SHARED
from typer.testing import CliRunner

from maskloop.errors import MaskloopError
from maskloop.lab.simulation import learner as models
from maskloop_studio.cli.main import app

OPTIONS = ["--data", "made-up", "--images", "14", "--start", "2", "--per-round", "2", "--rounds", "2"]
OPTIONS += ["--strategies", "hybrid,random", "--steps", "2", "--edge", "64"]


def call(*words):
    return CliRunner().invoke(app, ["simulate", *map(str, words)])


def simulate(folder, work, *words):
    """Return what the command writes."""
    target = folder / "simulated.json"
    done = call(*OPTIONS, "--json", target, "--plot", folder / "simulated.svg", "--work", work, *words)
    assert done.exit_code == 0, done.output
    return json.loads(target.read_text())


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    return folder, simulate(folder, folder / "work", "--seeds", "1")


def test_simulate_writes_curves_of_each_seed_and_what_was_saved(undisturbed):
    _, told = undisturbed
    assert list(told["strategies"]) == ["hybrid", "random"]
    for found in told["strategies"].values():
        assert found["labels"] == [[2, 4, 6]]
        assert [len(values) for values in (*found["quality"], *found["objects"])] == [3, 3]
        assert all(0 <= value <= 1 for value in found["quality"][0])
        assert found["labels_saved"] is None or found["labels_saved"] <= 1
        assert found["labels_saved_word"]
        assert found["objects_saved"]["target"] == found["seconds_saved"]["target"]
    starts = {found["quality"][0][0] for found in told["strategies"].values()}
    assert len(starts) == 1
    assert told["data"] | {"sha256": ""} == {
        "source": "made-up",
        "sha256": "",
        "pool": 10,
        "holdout": 4,
        "classes": ["disc", "ring", "square", "star", "triangle"],
    }
    assert told["full_data"]["labels"] == 10
    assert told["full_data"]["target"] == pytest.approx(0.95 * told["full_data"]["quality"][0], abs=1e-5)


def test_simulate_seconds_are_drawing_the_start_and_correcting_the_rest(undisturbed):
    _, told = undisturbed
    weights = told["settings"]["edit_seconds"]
    for found in told["strategies"].values():
        ((start, *rest),) = found["edits"]
        assert start == [0, 0, 0, 0, found["objects"][0][0]]
        for objects, edits, seconds in zip(
            found["objects"][0], found["edits"][0], found["seconds"][0], strict=True
        ):
            relabel, nudge, redraw, _, add = edits
            costs = zip(edits, ("relabel", "nudge", "redraw", "delete", "add"), strict=True)
            assert seconds == pytest.approx(sum(count * weights[name] for count, name in costs))
            assert relabel + nudge + redraw + add <= objects  # each object is one of them, or was kept
        assert rest[-1] != start


def test_simulate_gain_at_equal_cost_is_the_one_of_its_own_curves(undisturbed):
    _, told = undisturbed
    hybrid, random = (told["strategies"][name] for name in ("hybrid", "random"))
    for cost in ("objects", "seconds"):
        ours, theirs = hybrid[cost][0], random[cost][0]
        low, high = max(ours[0], theirs[0]), min(ours[-1], theirs[-1])
        costs = np.linspace(low, high, 20_001)
        difference = np.interp(costs, ours, hybrid["quality"][0]) - np.interp(
            costs, theirs, random["quality"][0]
        )
        assert hybrid[f"gain_at_equal_{cost}"]["mean"] == pytest.approx(difference.mean(), abs=1e-4)
        assert random[f"gain_at_equal_{cost}"]["mean"] == 0.0


def test_simulate_says_what_strategies_gain_at_equal_cost(undisturbed):
    folder, _ = undisturbed
    said = call(*OPTIONS, "--seeds", "1", "--work", folder / "work").stdout
    for row in ("gain at equal labels", "gain at equal objects", "gain at equal seconds", "objects saved"):
        assert row in said


def test_simulate_plot_has_a_line_for_each_strategy(undisturbed):
    folder, _ = undisturbed
    drawn = ElementTree.parse(folder / "simulated.svg").getroot()
    assert len([one for one in drawn.iter() if one.get("id", "").startswith("line ")]) == 4  # and by objects


def test_simulate_again_trains_nothing_and_writes_the_same(undisturbed, tmp_path, monkeypatch):
    folder, told = undisturbed
    monkeypatch.setattr(models, "finetune", None)
    assert simulate(tmp_path, folder / "work", "--seeds", "1") == told


def test_simulate_killed_then_restarted_gives_the_same_numbers(undisturbed, tmp_path):
    work = tmp_path / "work"
    command = [sys.executable, "-m", "maskloop_studio", "simulate", *OPTIONS, "--seeds", "1", "--work", work]
    started = subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(work.glob("*/trainings/*.npz")):
        assert started.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(started.pid, signal.SIGKILL)
    started.wait()
    assert not list(work.glob("*/seeds/*.json"))
    assert simulate(tmp_path, work, "--seeds", "1") == undisturbed[1]


def test_simulate_seeds_side_by_side_give_the_same_numbers(undisturbed, tmp_path):
    told = simulate(tmp_path, tmp_path / "work", "--seeds", "2", "--jobs", "2")
    assert told["seeds"] == [0, 1]
    for name, alone in undisturbed[1]["strategies"].items():
        assert told["strategies"][name]["quality"][0] == alone["quality"][0]
        assert told["strategies"][name]["labels"] == 2 * alone["labels"]


def test_simulate_warm_continues_from_the_previous_model(tmp_path):
    words = ("--seeds", "1", "--rounds", "1", "--strategies", "random", "--warm")
    told = simulate(tmp_path, tmp_path / "work", *words)
    assert told["strategies"]["random"]["labels"] == [[2, 4]]
    assert told["settings"]["warm"] is True


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        pytest.param(["--data", "no/such/folder"], 1, "no/such/folder/instances.json", id="no such folder"),
        pytest.param(["--data", "made-up", "--strategies", "luck"], 2, "one of", id="unknown strategy"),
        pytest.param(
            ["--data", "made-up", "--images", "9", "--start", "8"], 1, "pool of more", id="few images"
        ),
        pytest.param(
            ["--data", "made-up", "--images", "4", "--holdout", "0.9"], 1, "at least two", id="no pool"
        ),
        pytest.param(["--data", "made-up", "--model", "./none"], 1, "no such folder", id="no such model"),
        pytest.param([], 2, "--data", id="no data"),
        pytest.param(["--data", "made-up", "--rounds", "0"], 2, "--rounds", id="no round"),
    ],
)
def test_simulate_wrong_request_ends_with_one_explanation(words, code, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = call(*words)
    told = done.output.replace("\n", " ") if code == 2 else str(done.exception)
    assert done.exit_code == code
    assert code == 2 or isinstance(done.exception, MaskloopError)
    assert said in told


def test_simulate_folder_in_coco_form_is_read(tmp_path):
    folder = SHARED / "data" / "fruits"
    if not folder.is_dir():
        pytest.skip("real images are not at hand")
    words = ("--data", folder, "--seeds", "1", "--rounds", "1", "--strategies", "random")
    told = simulate(tmp_path, tmp_path / "work", *words)
    assert told["data"]["classes"] == ["date", "fig", "hazelnut"]
    assert told["full_data"]["labels"] == 13
