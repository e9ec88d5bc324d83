"""What a process does with memory that it has freed: a server that predicts on the CPU keeps it."""

from __future__ import annotations

import ctypes
import os

__all__ = ["keep_freed_memory"]

# glibc's malloc.h
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -2, -3, -8
KEPT_BYTES = 2**31 - 1  # the largest value that the call takes
MAPPED_FROM_BYTES = (2**30, 2**25)  # older versions of glibc take no more than the second
GROWN_BY_BYTES = 2**26
# Where one of these is set, the environment decides.
DECISIONS = (
    "MALLOC_ARENA_MAX",
    "MALLOC_TRIM_THRESHOLD_",
    "MALLOC_MMAP_THRESHOLD_",
    "GLIBC_TUNABLES",
    "LD_PRELOAD",
)


def keep_freed_memory() -> bool:
    """Let this process keep freed memory for its next forward pass, instead of giving it back each time.

    The layers' results are tens of megabytes that live for milliseconds. glibc takes such memory from the
    system and gives it back each time, on threads other than the first even what it would keep there; the
    system then has to clear every page of it again, a quarter of a forward pass's time. Kept, the process
    stays as large as it was at its peak. To be called before threads start.

    Returns:
        Whether it was set: on other systems, and where the environment sets up the allocator, nothing is.

    Source:
        https://man7.org/linux/man-pages/man3/mallopt.3.html
    """
    if any(name in os.environ for name in DECISIONS):
        return False
    try:
        set_option = ctypes.CDLL(None).mallopt
    except (OSError, TypeError, AttributeError):  # not glibc
        return False
    set_option(M_ARENA_MAX, 1)
    set_option(M_TRIM_THRESHOLD, KEPT_BYTES)
    set_option(M_TOP_PAD, GROWN_BY_BYTES)
    return any(set_option(M_MMAP_THRESHOLD, size) for size in MAPPED_FROM_BYTES)
