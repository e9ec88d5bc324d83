"""The benchmark of rankings: what it counts as work, and that it runs on made-up images."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.benchmarks import ranking
from tests.benchmarks.ranking import Case, correction_work, correlations, parse, planned_cases, run

from maskloop.types import Segment, SegmentationTask


@pytest.mark.parametrize(
    ("found", "wanted", "edits", "loss"),
    [
        pytest.param([], [], 0, 0.0, id="nothing to do"),
        pytest.param([(0, 0)], [(0, 0)], 0, 0.0, id="right"),
        pytest.param([(0, 1)], [(0, 0)], 0, 1 - 72 / 88, id="good enough"),
        pytest.param([(0, 2)], [(0, 0)], 1, 1 - 64 / 96, id="to be changed"),
        pytest.param([], [(0, 0), (20, 20)], 2, 1.0, id="to be added"),
        pytest.param([(0, 0), (20, 20)], [(0, 0)], 1, 1 / 3, id="one to be removed"),
        pytest.param([(0, 0)], [(40, 40)], 2, 1.0, id="removed and added"),
    ],
)
def test_correction_work_by_hand(
    found: list, wanted: list, edits: int, loss: float, make_segment: Callable[..., Segment]
) -> None:
    segments = [[make_segment(offset=offset) for offset in group] for group in (found, wanted)]
    assert correction_work(*segments) == (edits, pytest.approx(loss))


def test_correction_work_other_label_is_two_edits(make_segment: Callable[..., Segment]) -> None:
    one = make_segment()
    assert correction_work([one], [replace(one, label="ring")]) == (2, 1.0)


def test_correlations_by_hand() -> None:
    rows = [{"up": n, "down": -n, "flat": 1.0, "edits": n, "loss": n**2} for n in range(5)]
    found = correlations(rows, np.random.default_rng(0))
    assert found["up"] == pytest.approx((1, 1))
    assert found["down"] == pytest.approx((-1, -1))
    assert found["flat"] == (0, 0)
    assert set(found) == {"up", "down", "flat", "random"}


def test_run_made_up_images_prints_a_row_a_signal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case(source="made-up", family="mask2former", images=0, seed=0, task=SegmentationTask.INSTANCE)
    monkeypatch.setattr(ranking, "planned_cases", lambda *_: [case])
    monkeypatch.setattr(ranking.torch, "set_num_threads", lambda _: None)
    said: list[str] = []
    run(parse(["--most", "3", "--json", str(tmp_path / "rows.jsonl")]), said.append)
    names = [line.split("|")[1].strip() for line in said[-1].splitlines()[2:]]
    assert names[:5] == ["entropy", "margin", "border", "missing", "disagreement"]
    assert names[5:] == ["all, 1 view", "all, 2 views", "all, no view", "margin formula before", "random"]
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert len(rows) == 3


def test_planned_cases_every_task_of_made_up_images() -> None:
    cases = list(planned_cases(["made-up", "fruits"], ["mask2former"], [0, 1]))
    assert [case.task for case in cases if case.source == "made-up"] == list(SegmentationTask)
    assert [case.seed for case in cases if case.source == "fruits"] == [0, 1]
