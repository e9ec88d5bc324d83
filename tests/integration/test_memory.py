"""Memory stays bounded: of a large image, of a large request, over many predictions."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from tests.benchmarks.cases import memory
from tests.benchmarks.harness.memory import peak_bytes

MB = 1 << 20

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


def test_predict_image_of_12_megapixels_takes_a_few_times_its_bytes(tmp_path: Path) -> None:
    path = memory.jpeg_file(tmp_path, 0, memory.SIZE_12MP)
    assert peak_bytes(memory.prepare_engine, [str(path)]) < 180 * MB


def test_predict_two_hundred_tasks_holds_no_more_than_a_hundred(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Freed blocks go back at once: else the gaps of several threads' heaps count, which no image is held in.
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", str(128 << 10))
    size_hw = (720, 1280)
    paths = [str(memory.jpeg_file(tmp_path, number, size_hw)) for number in range(2)]
    # The heaps of the threads have their size after some eighty images.
    some, many = (peak_bytes(memory.prepare_engine, paths * (count // 2)) for count in (100, 200))
    decoded_bytes = size_hw[0] * size_hw[1] * 3
    assert many - some < 100 * decoded_bytes / 16  # freed late, they come to a tenth and more


def test_predict_many_times_leaves_nothing_behind() -> None:
    grown_bytes, seen = memory.growth_of_predictions(1500)
    assert grown_bytes < 2048, [value // MB for value in seen]
