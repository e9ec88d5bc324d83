"""Waiting for what another process or thread does."""

import time

__all__ = ["until"]


def until(reached, timeout_s=60.0):
    """Return as soon as a condition holds; fail after a time that only a stuck test needs."""
    deadline = time.monotonic() + timeout_s
    while not reached():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
