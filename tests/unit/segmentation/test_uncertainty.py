"""Uncertainty of an image, against cases worked out by hand, and the confidence made of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskloop.segmentation.uncertainty import (
    CHEAP_WEIGHTS,
    NO_UNCERTAINTY,
    VIEWED_WEIGHTS,
    Uncertainty,
    border_uncertainty,
    class_uncertainty,
    disagreement,
    image_confidence,
    pixel_uncertainty,
    query_uncertainty,
    uncovered_shares,
)
from maskloop.types import Prediction, Segment, Signals

EMPTY = [0.0, 0.0, 1.0]  # two classes and "no object"
SIZE = (16, 16)
LEFT, RIGHT, ALL = ((0, 8), (8, 16), (0, 16))  # columns


def mask(columns: tuple[int, int] = LEFT, *, inside: float = 1.0, outside: float = 0.0) -> np.ndarray:
    """Return the probabilities of a mask that fills these columns."""
    probs_hw = np.full(SIZE, outside, dtype=np.float32)
    probs_hw[:, columns[0] : columns[1]] = inside
    return probs_hw


def queries(*pairs: tuple[list[float], np.ndarray], mask_counts: bool = True) -> Uncertainty:
    """Return the uncertainty of queries given as (class probabilities, mask probabilities)."""
    return query_uncertainty(
        np.array([probs for probs, _ in pairs]).reshape(-1, 3),
        np.array([probs for _, probs in pairs]).reshape(-1, *SIZE),
        score_floor_k=np.full(2, 0.5),
        mask_floor_k=np.full(2, 0.5),
        mask_counts=mask_counts,
    )


def pixels(first: np.ndarray, second: np.ndarray) -> Uncertainty:
    return pixel_uncertainty(np.stack([first, second]), mask_floor_k=np.full(2, 0.5))


SURE = {
    "one object": queries(([1.0, 0.0, 0.0], mask())),
    "two objects": queries(([1.0, 0.0, 0.0], mask()), ([0.0, 1.0, 0.0], mask(RIGHT))),
    "panoptic": queries(([1.0, 0.0, 0.0], mask()), mask_counts=False),
    "surely empty": queries((EMPTY, mask())),
    "semantic": pixels(mask(LEFT), mask(RIGHT)),
    "semantic, half empty": pixels(mask(LEFT), mask((0, 0))),
    "semantic, empty": pixels(mask((0, 0)), mask((0, 0))),
}


@pytest.mark.parametrize("uncertainty", SURE.values(), ids=SURE.keys())
def test_uncertainty_sure_model_has_no_doubt(uncertainty: Uncertainty) -> None:
    signals = uncertainty.signals
    found = (signals.entropy, signals.margin, signals.border, signals.missing)
    assert found == pytest.approx((0, 0, 0, 0), abs=1e-6)
    assert signals.disagreement is None


def test_query_reading_coin_flips_are_full_of_doubt() -> None:
    third = [1 / 3] * 3
    signals = queries((third, mask(inside=0.51, outside=0.49)), (third, mask(RIGHT, inside=0.51))).signals
    assert signals.entropy == pytest.approx(1.0)
    assert signals.margin == pytest.approx(1.0)
    assert signals.missing > 0.3  # neither is shown
    assert queries(([1.0, 0.0, 0.0], mask(inside=0.51, outside=0.49))).signals.border > 0.6


def test_pixel_reading_coin_flips_are_full_of_doubt() -> None:
    signals = pixels(mask(ALL, inside=0.35), mask(ALL, inside=0.33)).signals
    assert min(signals.entropy, signals.margin) > 0.9
    assert signals.border > 0.6


def test_pixel_reading_seen_a_little_everywhere_may_be_missing() -> None:
    assert pixels(mask(ALL, inside=0.2), mask(ALL, inside=0.1)).signals.missing == pytest.approx(1.0)


@pytest.mark.parametrize(
    "uncertainty",
    [queries(), pixel_uncertainty(np.zeros((0, 4, 4)), mask_floor_k=np.zeros(0))],
    ids=["no queries", "no classes"],
)
def test_uncertainty_of_nothing_is_nothing(uncertainty: Uncertainty) -> None:
    assert uncertainty == NO_UNCERTAINTY


@pytest.mark.parametrize(
    ("columns", "shown"), [(LEFT, True), (RIGHT, False)], ids=["covered", "where nothing is shown"]
)
def test_query_reading_missing_counts_what_nothing_shown_covers(
    columns: tuple[int, int], shown: bool
) -> None:
    uncertainty = queries(([1.0, 0.0, 0.0], mask()), ([0.4, 0.0, 0.6], mask(columns)))
    assert uncertainty.signals.missing == pytest.approx(0.0 if shown else 0.4 / 1.4)
    assert uncertainty.objects == pytest.approx(1.0 if shown else 1.4)


def test_query_reading_queries_of_one_hidden_object_count_once() -> None:
    once = queries(([0.4, 0.0, 0.6], mask()))
    twice = queries(([0.4, 0.0, 0.6], mask()), ([0.3, 0.0, 0.7], mask()))
    assert twice.signals.missing == pytest.approx(once.signals.missing)


def test_query_reading_empty_queries_do_not_blur_doubt() -> None:
    doubtful = ([0.5, 0.4, 0.1], mask(inside=0.8, outside=0.1))
    alone, among = queries(doubtful), queries(doubtful, *[(EMPTY, mask(RIGHT))] * 30)
    assert among == alone


def test_query_reading_does_not_depend_on_the_order() -> None:
    rng = np.random.default_rng(0)
    pairs = [(list(rng.dirichlet([1, 1, 1])), rng.random(SIZE).astype(np.float32)) for _ in range(9)]
    one, other = queries(*pairs), queries(*reversed(pairs))
    assert one.objects == pytest.approx(other.objects)
    assert one.signals.entropy == pytest.approx(other.signals.entropy)
    assert one.signals.missing == pytest.approx(other.signals.missing)


MONOTONE: dict[str, tuple[str, Callable[[float], Uncertainty]]] = {
    "entropy": ("entropy", lambda t: queries(([1 - t / 2, t / 2, 0.0], mask()))),
    "margin": ("margin", lambda t: queries(([1 - t / 2, t / 2, 0.0], mask()))),
    "border inside": ("border", lambda t: queries(([1.0, 0.0, 0.0], mask(inside=1 - 0.45 * t)))),
    "border outside": ("border", lambda t: queries(([1.0, 0.0, 0.0], mask(outside=0.45 * t)))),
    "missing": (
        "missing",
        lambda t: queries(([1.0, 0.0, 0.0], mask()), ([0.49 * t, 0, 1 - 0.49 * t], mask(RIGHT))),
    ),
    "pixel entropy": ("entropy", lambda t: pixels(mask(ALL, inside=1 - t / 2), mask(ALL, inside=t / 2))),
    "pixel margin": ("margin", lambda t: pixels(mask(ALL, inside=1 - t / 2), mask(ALL, inside=t / 2))),
    "pixel border": ("border", lambda t: pixels(mask(inside=1.0, outside=0.45 * t), mask((0, 0)))),
    "pixel missing": ("missing", lambda t: pixels(mask(inside=1.0, outside=0.45 * t), mask((0, 0)))),
}


@pytest.mark.parametrize(("name", "make"), MONOTONE.values(), ids=MONOTONE.keys())
def test_uncertainty_more_doubt_is_a_larger_signal(name: str, make: Callable[[float], Uncertainty]) -> None:
    found = [getattr(make(level).signals, name) for level in np.linspace(0, 1, 6)]
    assert found == sorted(found)
    assert len(set(found)) == len(found)
    assert 0 <= found[0] <= found[-1] <= 1


@given(st.integers(0, 2**32 - 1), st.integers(0, 6), st.booleans())
def test_uncertainty_any_probabilities_stay_in_range(seed: int, count: int, mask_counts: bool) -> None:
    rng = np.random.default_rng(seed)
    classes = rng.dirichlet([0.3] * 3, count)
    probs = rng.random((count, *SIZE)) ** 3
    floors: dict[str, Any] = {"score_floor_k": rng.random(2), "mask_floor_k": rng.random(2)}
    first = query_uncertainty(classes, probs, **floors, mask_counts=mask_counts)
    sums_khw = np.einsum("qk,qhw->khw", classes[:, :2], probs)
    for uncertainty in (first, pixel_uncertainty(sums_khw, mask_floor_k=floors["mask_floor_k"])):
        found = [value for value in vars(uncertainty.signals).values() if value is not None]
        assert 0 <= min(found) <= max(found) <= 1
        assert uncertainty.objects >= 0


def test_border_doubt_does_not_change_with_the_size() -> None:
    small = mask(inside=0.9, outside=0.05)[None]
    large = small.repeat(4, axis=1).repeat(4, axis=2)
    assert border_uncertainty(large, large > 0.5) == pytest.approx(border_uncertainty(small, small > 0.5))


def test_border_doubt_is_the_expected_iou_by_hand() -> None:
    probs = np.array([[[1.0, 0.8, 0.2, 0.0]]])
    assert border_uncertainty(probs, probs > 0.5) == pytest.approx([1 - 1.8 / 2.2])


def test_class_doubt_by_hand() -> None:
    entropy, margin = class_uncertainty(np.array([[0.5, 0.5, 0.0], EMPTY]), np.array([1.0, 0.0]))
    assert entropy == pytest.approx(np.log(2) / np.log(3))
    assert margin == pytest.approx(1.0)


def test_free_shares_half_covered_is_a_half() -> None:
    inside = np.stack([mask(LEFT), mask((4, 12)), mask((0, 0))]) > 0.5
    shares = uncovered_shares(inside, np.array([True, False, False]), np.array([1.0, 0.4, 0.3]))
    assert shares == pytest.approx([0.0, 0.5, 0.0])


def test_disagreement_is_what_views_do_not_confirm(make_segment: Callable[..., Segment]) -> None:
    said = Prediction(segments=(make_segment(),), size_hw=(32, 32), confidence=1.0)
    assert disagreement(said, []) is None
    assert disagreement(said, [said]) == 0.0
    assert disagreement(said, [said, replace(said, segments=())]) == 0.5


SIGNALS = [field.name for field in fields(Signals)]
NO_DOUBT = Signals(entropy=0.0, margin=0.0, border=0.0, missing=0.0)
ALL_DOUBT = Signals(entropy=1.0, margin=1.0, border=1.0, missing=1.0)

fractions = st.floats(0, 1)
any_signals = st.builds(Signals, **dict.fromkeys(SIGNALS, fractions))


@pytest.mark.parametrize("disagreement", [None, 0.0], ids=["without views", "none"])
def test_image_confidence_without_doubt_is_full(disagreement: float | None) -> None:
    assert image_confidence(replace(NO_DOUBT, disagreement=disagreement), 40) == 1.0


@pytest.mark.parametrize("disagreement", [None, 1.0], ids=["without views", "full"])
def test_image_confidence_all_doubt_is_low(disagreement: float | None) -> None:
    assert image_confidence(replace(ALL_DOUBT, disagreement=disagreement), 1) <= 0.25


@given(any_signals, st.sampled_from(SIGNALS), fractions, st.floats(0, 300))
def test_image_confidence_more_of_one_signal_is_never_surer(
    some: Signals, name: str, value: float, objects: float
) -> None:
    low, high = sorted((getattr(some, name), value))
    surer, doubtful = (image_confidence(replace(some, **{name: level}), objects) for level in (low, high))
    assert 0.0 <= doubtful <= surer <= 1.0


@given(any_signals, st.floats(0, 300), st.floats(0, 300))
def test_image_confidence_more_objects_in_doubt_are_more_work(
    some: Signals, one: float, other: float
) -> None:
    fewer, more = sorted((one, other))
    assert image_confidence(some, more) <= image_confidence(some, fewer)


@pytest.mark.parametrize("weights", [CHEAP_WEIGHTS, VIEWED_WEIGHTS], ids=["cheap", "viewed"])
def test_image_confidence_weights_name_signals_and_are_never_negative(weights: dict[str, float]) -> None:
    assert set(weights) <= set(SIGNALS)
    assert min(weights.values()) >= 0
