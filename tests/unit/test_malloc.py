"""Freed memory: kept where it was asked for, left alone where the environment decides."""

import resource
import subprocess
import sys

import pytest

from maskloop.malloc import DECISIONS, keep_freed_memory

# Page faults of taking and freeing 24 blocks of 48 MB on a thread, once all is warm
WORK = """
import resource, sys, threading
if sys.argv[1] == "kept":
    from maskloop.malloc import keep_freed_memory
    assert keep_freed_memory()
def work():
    for _ in range(24):
        bytearray(48 << 20)
        if _ == 3:
            faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
faults = []
thread = threading.Thread(target=work)
thread.start()
thread.join()
print(faults[1] - faults[0])
"""


def _faults(way, environment):
    command = [sys.executable, "-c", WORK, way]
    return int(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc alone is set")
def test_keep_freed_memory_large_blocks_on_a_thread_fault_no_more(monkeypatch):
    import os

    for name in DECISIONS:
        monkeypatch.delenv(name, raising=False)
    pages = 20 * (48 << 20) // resource.getpagesize()
    plain, kept = (_faults(way, dict(os.environ)) for way in ("plain", "kept"))
    assert kept < pages / 10 < plain


@pytest.mark.parametrize("name", DECISIONS)
def test_keep_freed_memory_environment_decides_leaves_it(name, monkeypatch):
    monkeypatch.setenv(name, "1")
    assert not keep_freed_memory()
