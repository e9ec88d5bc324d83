"""Halves by a coin that everybody throws alike; verdicts that err rarely however often one looks."""

import numpy as np
import pytest

from maskloop.learning.evaluation.trial import TrialRule, Verdict, is_old_versions, judge_trial


def test_is_old_versions_is_half_and_another_half_for_another_version():
    halves = [[is_old_versions(task, tag) for task in range(4000)] for tag in ("m-v4", "m-v5")]
    for half in halves:
        assert sum(half) == pytest.approx(2000, abs=130)
    assert sum(a == b for a, b in zip(*halves, strict=True)) == pytest.approx(2000, abs=130)
    assert halves[0] == [is_old_versions(task, "m-v4") for task in range(4000)]


def _shares(kind, rng, count, lift=0.0):
    match kind:
        case "all or nothing":
            return (rng.random(count) < 0.5 + lift).astype(float)
        case "spread":
            return np.clip(rng.beta(2, 2, count) + lift, 0, 1)
        case _:
            return np.clip(np.round(rng.random(count) * 3) / 3 + lift, 0, 1)


KINDS = ["all or nothing", "spread", "few regions"]


@pytest.mark.parametrize("kind", KINDS)
def test_judge_trial_alike_versions_are_told_apart_at_most_as_often_as_the_risk(kind):
    found = []
    for seed in range(300):
        rng = np.random.default_rng(seed)
        found.append(judge_trial(_shares(kind, rng, 400), _shares(kind, rng, 400)).verdict)
    # Each direction has 5 %: of 300 at most 15 are expected, and 27 are three standard errors more.
    assert found.count(Verdict.WORSE) <= 27
    assert found.count(Verdict.BETTER) <= 27
    assert found.count(Verdict.OPEN) == 0


@pytest.mark.parametrize(("lift", "verdict"), [(0.25, Verdict.BETTER), (-0.25, Verdict.WORSE)])
@pytest.mark.parametrize("kind", KINDS)
def test_judge_trial_difference_is_found(kind, lift, verdict):
    states = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        states.append(judge_trial(_shares(kind, rng, 400), _shares(kind, rng, 400, lift)))
    assert [one.verdict for one in states].count(verdict) >= 19
    assert np.median([one.pairs for one in states]) < 200


def test_judge_trial_verdict_stays_however_many_images_follow():
    rng = np.random.default_rng(1)
    old, new = _shares("spread", rng, 400), _shares("spread", rng, 400, 0.3)
    whole = judge_trial(old, new)
    assert judge_trial(old[: whole.pairs], new[: whole.pairs]) == whole
    assert judge_trial(old[: whole.pairs - 1], new[: whole.pairs - 1]).verdict is Verdict.OPEN


def test_judge_trial_of_few_or_uneven_images_is_open():
    assert judge_trial([], []).verdict is Verdict.OPEN
    state = judge_trial([0.5] * 9, [1.0] * 3)
    assert (state.verdict, state.pairs, state.new_share) == (Verdict.OPEN, 3, 1.0)


def test_judge_trial_without_a_difference_ends():
    state = judge_trial([0.5] * 30, [0.5] * 30, TrialRule(most_pairs=20))
    assert (state.verdict, state.pairs) == (Verdict.ALIKE, 20)
