"""The stored simulations say what today's code makes of their own labels, objects and qualities."""

import json

import pytest
from tests.benchmarks.simulate_again import markdown, recompute
from tests.paths import REPOSITORY

FILES = sorted((REPOSITORY / "tests" / "benchmarks" / "results").glob("simulate-*.json"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_stored_simulation_is_what_its_curves_come_to(path):
    told = json.loads(path.read_text())
    assert recompute(told) == told


def test_markdown_has_a_column_for_each_strategy():
    told = json.loads(FILES[0].read_text())
    lines = markdown(told).splitlines()
    assert {line.count("|") for line in lines} == {len(told["strategies"]) + 2}
    assert any(line.startswith("| gain at equal objects | ") for line in lines)
