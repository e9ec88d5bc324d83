"""The whole loop as a new user runs it: real Label Studio, real queue, real training, better afterwards."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.own_processes import orphans_adopted
from tests.paths import STUDIO_ENV


def _demo(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MASKLOOP_")}
    return subprocess.run(
        [sys.executable, "-m", "maskloop_studio", "demo", *arguments],
        cwd=folder,
        env=environment | {"MASKLOOP_STUDIO_ENV": str(STUDIO_ENV)},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )


@pytest.mark.studio
@pytest.mark.timeout(1000)
def test_demo_two_rounds_end_better_than_they_began(studio, tmp_path):
    with orphans_adopted() as left_over:
        done = _demo(tmp_path, "--rounds", "2", "--exit", "--json", "demo.json")
        print(done.stdout)
        assert done.returncode == 0, done.stdout + done.stderr
        assert left_over() == {}, "every process has ended with the demo"
    report = json.loads((tmp_path / "demo.json").read_text())
    first, last = report["rounds"][0], report["rounds"][-1]
    corrected, again = (row["corrected"] for row in report["rounds"])
    assert 10 <= corrected == again <= 16, "the holdout is chosen by content: how many are left varies"
    for name in ("ap50", "pq", "miou"):
        assert last["metrics"][name] > first["before"][name]
    assert any(row["promoted"] for row in report["rounds"])
    for row in report["rounds"]:
        regions = row["regions"]
        assert regions["kept"] + regions["changed"] + regions["removed"] == row["regions_drawn"]
        assert row["objects"] >= row["corrected"]
        assert 0 <= row["fragments"] <= row["regions_drawn"]
        assert -5 < row["work_saved"] <= 1
