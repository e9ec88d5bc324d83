import json
from dataclasses import replace

import numpy as np
import pytest

from maskloop.learning.evaluation.bootstrap import confidence_above, resample_weights
from maskloop.learning.evaluation.gate import GateRule, decide
from maskloop.learning.evaluation.prediction_metrics import evaluate_predictions
from maskloop.types import Prediction, Segment

SIZE_HW = (20, 40)


def box(label, left, width=10):
    return Segment(mask_hw=np.ones((10, width), bool), offset_yx=(2, left), label=label)


def evaluated(*images, labels=("a", "b"), known=None, seconds=None):
    """Return the evaluation of images given as strings of classes; lower case is found, upper case missed.

    A class followed by a dot is found with an IoU of 0.8.
    """
    predictions, truths = [], []
    for image in images:
        places = [letter for letter in image if letter != "."]
        truths.append(tuple(box(letter.lower(), 12 * place) for place, letter in enumerate(places)))
        found = []
        for place, letter in enumerate(places):
            if letter.islower():
                found.append(box(letter, 12 * place, 8 if f"{letter}." in image else 10))
        predictions.append(Prediction(segments=tuple(found), size_hw=SIZE_HW, confidence=1.0))
    times = None if seconds is None else [seconds] * len(images)
    return evaluate_predictions(predictions, truths, labels, known=known, seconds=times)


@pytest.mark.parametrize(
    ("champion", "challenger", "margin", "promote"),
    [
        (["aB"] * 12, ["ab"] * 12, 0.0, True),
        (["ab"] * 12, ["aB"] * 12, 0.0, False),
        (["aB"] * 12, ["aB"] * 12, 0.0, False),
        (["ab."] * 12, ["ab"] * 12, 0.0, True),
        (["ab."] * 12, ["ab"] * 12, 0.2, False),
        (["aB"] + ["ab"] * 11, ["ab"] * 12, 0.0, False),
        (["aB"] * 6 + ["Ab"] * 6, ["Ab"] * 6 + ["aB"] * 6, 0.0, False),
    ],
    ids=["better", "worse", "same", "finer", "within-margin", "one-image", "other-half"],
)
def test_decide_by_paired_images(champion, challenger, margin, promote):
    decision = decide(evaluated(*champion), evaluated(*challenger), GateRule(margin=margin))
    assert decision.promote is promote, decision.reason
    assert "12 holdout images" in decision.reason


def test_decide_same_input_same_decision():
    pair = evaluated(*["aB", "ab"] * 6), evaluated(*["ab", "aB", "ab"] * 4)
    assert decide(*pair) == decide(*pair)


@pytest.mark.parametrize(
    ("images", "promote", "ask"), [(2, False, False), (3, False, True), (4, True, False)], ids=["2", "3", "4"]
)
def test_decide_few_images_never_make_sure(images, promote, ask):
    decision = decide(evaluated(*["AB"] * images), evaluated(*["ab"] * images))
    assert (decision.promote, decision.ask) == (promote, ask)
    assert f"{images} images give little confidence" in decision.reason


@pytest.mark.parametrize(("with_c", "vetoed"), [(1, False), (2, False), (6, True)], ids=["one", "two", "six"])
def test_decide_class_that_vanished_vetoes_by_number_of_images(with_c, vetoed):
    labels = ("a", "b", "c")
    champion = evaluated(*["aBc"] * with_c, *["AB"] * 12, labels=labels)
    challenger = evaluated(*["abC"] * with_c, *["ab"] * 12, labels=labels)
    decision = decide(champion, challenger)
    assert (f"class c 1.000 -> 0.000 on {with_c} images fell by more than 0.1" in decision.reason) is vetoed
    assert (decision.promote, decision.ask) == (False, not vetoed)  # never by itself, however few images
    assert (f"class c 1.000 -> 0.000 on {with_c} images is gone: a person" in decision.reason) is not vetoed
    (fall,) = [change for change in decision.comparison.classes if change.label == "c"]
    assert (fall.images, fall.fall) == (with_c, pytest.approx(1.0))


@pytest.mark.parametrize(("drop", "promote"), [(0.1, False), (1.0, True)], ids=["not-allowed", "allowed"])
def test_decide_class_drop_is_a_setting(drop, promote):
    champion = evaluated(*["Abc"] * 12, labels=("a", "b", "c"))
    challenger = evaluated(*["abC"] * 6, *["abc"] * 6, labels=("a", "b", "c"))
    assert decide(champion, challenger, GateRule(class_drop=drop, class_fall=1.0)).promote is promote


@pytest.mark.parametrize(("allowed", "ask"), [(0.3, True), (0.6, False)], ids=["beyond", "within"])
def test_decide_class_that_fell_far_asks_a_person_whatever_the_confidence(allowed, ask):
    labels = ("a", "b", "c")
    champion = evaluated(*["ABc"] * 2, *["AB"] * 10, labels=labels)
    challenger = evaluated("abc", "abC", *["ab"] * 10, labels=labels)
    decision = decide(champion, challenger, GateRule(class_fall=allowed))
    assert (decision.promote, decision.ask) == (not ask, ask), decision.reason
    assert ("fell far: a person decides" in decision.reason) is ask


def test_gate_rule_challengers_of_a_champion_share_the_risk():
    risks = [1 - GateRule(judged_before=number).required for number in range(1000)]
    assert risks == sorted(risks, reverse=True)
    assert sum(risks) == pytest.approx(0.1, abs=2e-4)
    assert GateRule().required == pytest.approx(0.95)


def test_decide_later_challenger_needs_more_and_asks_a_person():
    before = evaluated(*["aB"] * 6, *["ab"] * 3)
    after = evaluated(*["ab"] * 4, *["aB"] * 2, *["ab"] * 3)
    verdicts = [decide(before, after, GateRule(judged_before=number)) for number in (0, 9)]
    assert [(one.promote, one.ask) for one in verdicts] == [(True, False), (False, True)]
    assert "challenger 10 of the same champion: a person decides" in verdicts[1].reason
    assert "of 99.909% required" in verdicts[1].reason


def test_decide_copies_of_an_image_count_once():
    champion, challenger = evaluated(*["aB"] * 12), evaluated(*["ab"] * 12)
    groups = tuple("one" if number < 10 else "two" for number in range(12))
    decision = decide(replace(champion, groups=groups), replace(challenger, groups=groups))
    assert not decision.promote
    assert decision.comparison.images == 2


def test_decide_many_classes_of_chance_seldom_veto():
    labels = [f"class{number}" for number in range(30)]
    rng = np.random.default_rng(1)

    def chance():
        images = [[box(label, 0)] for label in labels for _ in range(4)]
        found = [tuple(segments) if rng.random() < 0.5 else () for segments in images]
        predictions = [Prediction(segments=item, size_hw=SIZE_HW, confidence=1.0) for item in found]
        return evaluate_predictions(predictions, [tuple(item) for item in images], labels)

    reasons = [decide(chance(), chance(), GateRule(resamples=1000)).reason for _ in range(12)]
    assert sum("fell by more than" in reason for reason in reasons) <= 1


@pytest.mark.parametrize(
    ("floor", "champion", "promote"),
    [(0.95, "Ab", False), (0.5, "Ab", True), (0.95, "AB", True)],
    ids=["below", "above", "rises-from-below"],
)
def test_decide_absolute_floor_holds_for_classes_that_fall(floor, champion, promote):
    challenger = evaluated(*["ab."] * 12)
    rule = GateRule(class_floors={"b": floor, "unknown": 1.0}, class_drop=0.5)
    decision = decide(evaluated(*[champion] * 12), challenger, rule)
    assert decision.promote is promote, decision.reason
    assert ("below its floor of 0.95" in decision.reason) is not promote


@pytest.mark.parametrize(("seconds", "promote"), [(0.14, True), (0.16, False)], ids=["within", "beyond"])
def test_decide_slower_than_allowed_keeps_champion(seconds, promote):
    decision = decide(evaluated(*["aB"] * 9, seconds=0.1), evaluated(*["ab"] * 9, seconds=seconds))
    assert decision.promote is promote
    assert ("takes 60% longer, 50% are allowed" in decision.reason) is not promote


def test_decide_grown_head_compared_on_classes_both_know():
    labels = ("a", "b", "c")
    champion = evaluated(*["abC"] * 9, labels=labels, known=("a", "b"))
    decision = decide(champion, evaluated(*["aBc"] * 9, labels=labels))
    assert not decision.promote
    assert [change.label for change in decision.comparison.classes] == ["a", "b"]
    assert "new and not compared: c 1.000" in decision.reason


def test_decide_no_class_in_common_compares_all_of_the_new():
    decision = decide(evaluated(*["AB"] * 9, known=()), evaluated(*["aB"] * 9))
    assert decision.promote
    assert "champion has none of these classes" in decision.reason


def test_decide_class_without_example_is_named():
    labels = ("a", "b", "rare")
    decision = decide(evaluated(*["AB"] * 9, labels=labels), evaluated(*["ab"] * 9, labels=labels))
    assert decision.promote
    assert decision.reason.endswith("not evaluated, without an example in the holdout: rare")


@pytest.mark.parametrize(
    ("champion", "challenger", "word"),
    [
        ([], [], "no holdout image"),
        (["ab"] * 2, ["ab"] * 3, "different holdouts: 2 and 3"),
        ([""] * 3, [""] * 3, "no class of the new model has an example among 3"),
    ],
    ids=["none", "different", "empty-images"],
)
def test_decide_not_comparable_keeps_champion_with_reason(champion, challenger, word):
    decision = decide(evaluated(*champion), evaluated(*challenger))
    assert (decision.promote, decision.gain) == (False, 0.0)
    assert word in decision.reason
    assert json.loads(json.dumps(decision.as_json(), allow_nan=False))["promote"] is False


def test_decision_as_json_carries_all_numbers():
    values = decide(evaluated(*["aB"] * 9, seconds=0.1), evaluated(*["ab"] * 9, seconds=0.1)).as_json()
    plain = json.loads(json.dumps(values, allow_nan=False))
    assert (plain["gain"], plain["images"], plain["slowdown"]) == (0.5, 9, 0.0)
    assert plain["interval"] == [0.5, 0.5]
    assert plain["classes"][1].items() >= {"label": "b", "before": 0.0, "after": 1.0, "images": 9}.items()
    assert plain["confidence"] > 0.99
    assert plain["rule"]["resamples"] == 2000


@pytest.mark.parametrize(
    "change",
    [{"confidence": 1.0}, {"confidence": 0.4}, {"resamples": 10}, {"margin": -0.1}],
    ids=["certain", "coin", "few-resamples", "negative-margin"],
)
def test_gate_rule_out_of_range_raises(change):
    with pytest.raises(ValueError, match="GateRule"):
        replace(GateRule(), **change)


def test_resample_weights_draw_as_many_as_there_are():
    weights_rn = resample_weights(7, 1000, seed=3)
    assert np.all(weights_rn.sum(axis=1) == 7)
    assert weights_rn.mean(axis=0) == pytest.approx(np.ones(7), abs=0.1)


def test_resample_weights_draw_copies_together():
    weights_rn = resample_weights(5, 200, seed=3, groups=["x", "y", "x", "z", "y"])
    assert (weights_rn[:, 0] == weights_rn[:, 2]).all()
    assert (weights_rn[:, 1] == weights_rn[:, 4]).all()
    assert (weights_rn[:, [0, 1, 3]].sum(axis=1) == 3).all()


@pytest.mark.parametrize("images", [20, 60])
def test_confidence_above_beyond_the_resamples_is_that_of_a_t_test(images):
    from scipy import stats  # slow to import

    values = np.random.default_rng(images).normal(1.0, 1.0, images)
    confidence = confidence_above(resample_weights(images, 2000, seed=0) @ values / images, 0.0, images)
    expected = stats.ttest_1samp(values, 0.0, alternative="greater").pvalue
    assert 0.2 < (1 - confidence) / expected < 5 or (1 - confidence) < 1e-5


@pytest.mark.parametrize("images", [5, 12, 40])
def test_confidence_above_keeps_its_level_for_normal_gains(images):
    rng = np.random.default_rng(images)
    weights_rn = resample_weights(images, 1000, seed=0) / images
    sure = [confidence_above(weights_rn @ rng.normal(size=images), 0.0, images) >= 0.9 for _ in range(1500)]
    assert np.mean(sure) == pytest.approx(0.1, abs=0.025)
