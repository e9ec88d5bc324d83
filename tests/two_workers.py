"""A pytest plugin for `pytest -n 2 --dist loadgroup`: one worker has Label Studio, the other all the rest.

Each worker starts its own PostgreSQL and Redis. A Label Studio takes long to start and much memory, so all
tests that need one run in one worker, the longest first. The tests of any other file stay together.
"""

import pytest

__all__ = ["STUDIO_FOLDERS"]

STUDIO_FOLDERS = ("tests/torture/", "tests/acceptance/")  # in this order
FIRST = ("tests/torture/test_torture.py", "tests/acceptance/test_demo.py")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Order the tests and name the group of each."""
    if not getattr(config.option, "loadgroup", False):  # as pytest-xdist sets it in its workers
        return
    items.sort(key=_order)  # a stable sort: the order within a file stays
    for item in items:
        path = item.nodeid.partition("::")[0]
        item.add_marker(pytest.mark.xdist_group("studio" if path.startswith(STUDIO_FOLDERS) else path))


def _order(item: pytest.Item) -> int:
    if item.nodeid.startswith(FIRST):
        return 0
    return 1 if item.nodeid.startswith(STUDIO_FOLDERS) else 2
