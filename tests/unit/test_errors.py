"""Errors say place, expected, got and remedy, also after a trip between processes."""

import pickle

import pytest

import maskloop.errors
from maskloop.errors import ImageError, MaskloopError

LEAVES = [
    value
    for value in vars(maskloop.errors).values()
    if isinstance(value, type) and issubclass(value, MaskloopError)
]


@pytest.mark.parametrize("kind", LEAVES)
def test_error_pickled_keeps_its_words(kind):
    error = kind("task 4", expected="an image", got="a poem", remedy="upload an image")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert str(again) == "task 4: expected an image, got a poem; upload an image"


def test_error_tree_in_docstring_names_every_leaf():
    drawn = maskloop.errors.__doc__ or ""
    assert [leaf.__name__ for leaf in LEAVES if leaf.__name__ not in drawn] == []
    assert issubclass(ImageError, MaskloopError)
