"""What a test needs and this machine lacks: a skip, but a failure in CI."""

import os
from typing import NoReturn

import pytest

__all__ = ["skip_missing"]


def skip_missing(what: str, remedy: str) -> NoReturn:
    """Skip the running test; where the variable CI is set, fail it.

    Args:
        what: the program or folder that is missing.
        remedy: how to get it.
    """
    reason = f"no {what} on this machine ({remedy})"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)
