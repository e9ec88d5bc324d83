"""Confidence of an image from its signals."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskloop.segmentation.uncertainty import CHEAP_WEIGHTS, VIEWED_WEIGHTS, image_confidence
from maskloop.types import Signals

NAMES = [field.name for field in fields(Signals)]
SURE = Signals(entropy=0.0, margin=0.0, border=0.0, missing=0.0)
LOST = Signals(entropy=1.0, margin=1.0, border=1.0, missing=1.0)

fractions = st.floats(0, 1)
signals = st.builds(Signals, **dict.fromkeys(NAMES, fractions))


@pytest.mark.parametrize("disagreement", [None, 0.0], ids=["not asked", "none"])
def test_image_confidence_without_doubt_is_full(disagreement: float | None) -> None:
    assert image_confidence(replace(SURE, disagreement=disagreement), 40) == 1.0


@pytest.mark.parametrize("disagreement", [None, 1.0], ids=["not asked", "full"])
def test_image_confidence_all_doubt_is_low(disagreement: float | None) -> None:
    assert image_confidence(replace(LOST, disagreement=disagreement), 1) <= 0.25


@given(signals, st.sampled_from(NAMES), fractions, st.floats(0, 300))
def test_image_confidence_more_of_one_signal_is_never_surer(
    some: Signals, name: str, value: float, objects: float
) -> None:
    low, high = sorted((getattr(some, name), value))
    surer, doubtful = (image_confidence(replace(some, **{name: level}), objects) for level in (low, high))
    assert 0.0 <= doubtful <= surer <= 1.0


@given(signals, st.floats(0, 300), st.floats(0, 300))
def test_image_confidence_more_objects_in_doubt_are_more_work(
    some: Signals, one: float, other: float
) -> None:
    fewer, more = sorted((one, other))
    assert image_confidence(some, more) <= image_confidence(some, fewer)


@pytest.mark.parametrize("weights", [CHEAP_WEIGHTS, VIEWED_WEIGHTS], ids=["cheap", "viewed"])
def test_image_confidence_weights_name_signals_and_are_never_negative(weights: dict[str, float]) -> None:
    assert set(weights) <= set(NAMES)
    assert min(weights.values()) >= 0
