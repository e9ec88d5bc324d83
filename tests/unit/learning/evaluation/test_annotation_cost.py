"""Seconds of an annotator's work, and weights from lead times that are known."""

import numpy as np
import pytest

from maskloop.learning.evaluation.annotation_cost import (
    DEFAULT_WEIGHTS,
    EditWeights,
    correction_cost_s,
    measure_weights,
    weights_from_settings,
    work_saved,
)
from maskloop.types import EditCounts

WEIGHTS = EditWeights(relabel=2, nudge=5, redraw=8, delete=1, add=10)


@pytest.mark.parametrize(
    ("edits", "saved"),
    [
        pytest.param(EditCounts(), None, id="nothing was there"),
        pytest.param(EditCounts(kept=3), 1.0, id="all kept"),
        pytest.param(EditCounts(added=3), 0.0, id="nothing predicted"),
        pytest.param(EditCounts(changed=1, nudged=1), 0.5, id="nudged"),
        pytest.param(EditCounts(changed=1, relabelled=1), 0.8, id="relabelled"),
        pytest.param(EditCounts(changed=1, redrawn=1), 0.2, id="redrawn"),
        pytest.param(EditCounts(changed=1), 0.2, id="edited in an unknown way"),
        pytest.param(EditCounts(added=1, removed=3), -0.3, id="an empty canvas is better"),
        pytest.param(EditCounts(changed=2, merged=2, added=1), -0.2, id="two merged"),
        pytest.param(EditCounts(changed=1, split=1, added=2), -0.05, id="one split"),
        pytest.param(EditCounts(removed=2), None, id="only wrong ones"),
    ],
)
def test_work_saved(edits, saved):
    assert work_saved(edits, WEIGHTS) == (None if saved is None else pytest.approx(saved))


def test_weights_from_settings_replace_defaults():
    weights = weights_from_settings({"add": 60.0})
    assert (weights.add, weights.nudge, weights.measured_from) == (60.0, DEFAULT_WEIGHTS.nudge, 0)


def some_edits(count, *, with_relabelled=True, seed=0):
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, 4, (count, 5)) * [with_relabelled, 1, 1, 1, 1]
    return [
        EditCounts(
            kept=1,
            relabelled=int(a),
            nudged=int(b),
            redrawn=int(c),
            changed=int(a + b + c),
            removed=int(d),
            added=int(e),
        )
        for a, b, c, d, e in rows
    ]


def test_measure_weights_finds_those_that_made_the_lead_times():
    edits = some_edits(300)
    rng = np.random.default_rng(1)
    times = [4.0 + correction_cost_s(one, WEIGHTS) + rng.normal(0, 1) for one in edits]
    times[:5] = [5000.0] * 5  # the editor was left open
    found = measure_weights(edits, times, prior=DEFAULT_WEIGHTS)
    assert found.measured_from == 300
    for name in ("relabel", "nudge", "redraw", "delete", "add"):
        assert getattr(found, name) == pytest.approx(getattr(WEIGHTS, name), rel=0.15, abs=0.7)


def test_measure_weights_too_few_annotations_are_the_settings():
    edits = some_edits(59)
    assert measure_weights(edits, [10.0] * 59, prior=DEFAULT_WEIGHTS) is DEFAULT_WEIGHTS
    assert "MASKLOOP_EDIT_SECONDS" in DEFAULT_WEIGHTS.source


def test_measure_weights_kind_that_is_rare_keeps_its_weight():
    edits = some_edits(100, with_relabelled=False)
    times = [correction_cost_s(one, WEIGHTS) for one in edits]
    found = measure_weights(edits, times, prior=DEFAULT_WEIGHTS)
    assert found.relabel == DEFAULT_WEIGHTS.relabel
    assert found.add == pytest.approx(10.0, rel=0.1)
    assert "100 annotations" in found.source


def test_measure_weights_untouched_only_are_the_settings():
    kept = [EditCounts(kept=2)] * 100
    assert measure_weights(kept, [3.0] * 100, prior=DEFAULT_WEIGHTS) is DEFAULT_WEIGHTS


def test_measure_weights_absurd_times_stay_within_bounds():
    found = measure_weights(some_edits(100), [0.0] * 100, prior=DEFAULT_WEIGHTS)
    assert found.add == pytest.approx(DEFAULT_WEIGHTS.add / 10)
