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


def test_predict_a_hundred_tasks_does_not_hold_a_hundred_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Freed blocks go back at once: else the gaps of several threads' heaps count, which no image is held in.
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", str(128 << 10))
    size_hw = (720, 1280)
    paths = [str(memory.jpeg_file(tmp_path, number, size_hw)) for number in range(2)]
    few, many = (peak_bytes(memory.prepare_engine, paths * (count // 2)) for count in (30, 100))
    decoded_bytes = size_hw[0] * size_hw[1] * 3
    assert many - few < 70 * decoded_bytes / 10


def test_predict_many_times_leaves_nothing_behind() -> None:
    grown_bytes, seen = memory.growth_of_predictions(1500)
    assert grown_bytes < 2048, [value // MB for value in seen]
