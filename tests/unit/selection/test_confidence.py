"""Confidence of an image from its queries' probabilities."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskloop.selection.confidence import image_confidence

EMPTY = [0.0, 0.0, 1.0]  # two classes and "no object"


def confidence(rows: list[list[float]], scores: tuple[float, ...] = ()) -> float:
    return image_confidence(np.array(rows).reshape(len(rows), 3), scores)


CASES = {
    "no query": ([], (), 1.0),
    "surely empty": ([EMPTY, EMPTY], (), 1.0),
    "sure object": ([[1.0, 0.0, 0.0], EMPTY], (1.0,), 1.0),
    "sure object, vague mask": ([[1.0, 0.0, 0.0], EMPTY], (0.6,), 0.6),
    "two classes alike": ([[0.5, 0.5, 0.0], EMPTY], (0.5,), 0.0),
    "half an object": ([[0.5, 0.0, 0.5], EMPTY], (), 0.5),
    "one sure, one doubtful": ([[1.0, 0.0, 0.0], [0.5, 0.5, 0.0]], (1.0,), 0.5),
}


@pytest.mark.parametrize(("rows", "scores", "expected"), CASES.values(), ids=CASES.keys())
def test_image_confidence_case(rows: list[list[float]], scores: tuple[float, ...], expected: float) -> None:
    assert confidence(rows, scores) == pytest.approx(expected)


def test_image_confidence_likelier_missed_object_is_less_sure() -> None:
    values = [confidence([[p, 0.0, 1.0 - p], EMPTY]) for p in (0.0, 0.1, 0.2, 0.3, 0.4, 0.49)]
    assert values == sorted(values, reverse=True)
    assert len(set(values)) == len(values)


def test_image_confidence_empty_queries_do_not_blur_doubt() -> None:
    doubtful = [0.4, 0.3, 0.3]
    assert confidence([doubtful] + [EMPTY] * 99) == pytest.approx(confidence([doubtful]))


@given(st.lists(st.tuples(*[st.floats(-30, 30)] * 3), max_size=12), st.lists(st.floats(0, 1), max_size=5))
def test_image_confidence_any_probabilities_stay_in_range(logits: list, scores: list[float]) -> None:
    exponents = np.exp(np.array(logits).reshape(len(logits), 3))
    value = image_confidence((exponents / exponents.sum(axis=1, keepdims=True)).astype(np.float32), scores)
    assert 0.0 <= value <= 1.0
