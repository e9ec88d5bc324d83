"""The rows that a demo writes as JSON."""

import dataclasses
import io
import json

import pytest
from rich.console import Console

from maskloop.types import EditCounts, HoldoutMetrics
from maskloop_studio.demo.report import DemoReport, RoundReport

METRICS = HoldoutMetrics(ap50=0.5, pq=0.4, miou=0.6, images=9)


def make_round(**changes):
    row = RoundReport(
        number=1,
        corrected=16,
        edits=EditCounts(kept=2, changed=1, nudged=1, added=3),
        work_saved=-0.12345,
        regions_drawn=3,
        objects=6,
        fragments=2,
        before=METRICS,
        metrics=METRICS,
        challenger=METRICS,
        champion="maskloop-1-v1",
        promoted=False,
        reason="not better",
        seconds=1.0,
    )
    return dataclasses.replace(row, **changes)


def test_write_rows_name_the_work_saved_and_what_was_drawn(tmp_path):
    DemoReport(rounds=(make_round(),), seconds=2.0).write(tmp_path / "demo.json")
    (row,) = json.loads((tmp_path / "demo.json").read_text())["rounds"]
    assert (row["work_saved"], row["regions_drawn"], row["objects"], row["fragments"]) == (-0.1235, 3, 6, 2)
    assert (row["regions"]["nudged"], row["regions"]["changed"]) == (1, 1)


@pytest.mark.parametrize(
    ("saved", "cell"), [pytest.param(-0.12, "-12%", id="loss"), pytest.param(None, "-", id="nothing drawn")]
)
def test_print_table_shows_the_work_saved(saved, cell):
    text = io.StringIO()
    DemoReport(rounds=(make_round(work_saved=saved),), seconds=2.0).print(Console(file=text, width=120))
    assert cell in text.getvalue().splitlines()[-2].replace("│", " ").split()
