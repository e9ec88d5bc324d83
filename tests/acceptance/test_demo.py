"""The whole loop as a new user runs it: real Label Studio, real queue, real training, better afterwards."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.fakes.http_host import run_host
from tests.fakes.otlp import read_spans
from tests.own_processes import orphans_adopted
from tests.paths import STUDIO_ENV


def _demo(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MASKLOOP_")}
    return subprocess.run(
        [sys.executable, "-m", "maskloop_studio", "demo", *arguments],
        cwd=folder,
        env=environment | {"MASKLOOP_STUDIO_ENV": str(STUDIO_ENV)} | variables,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )


@pytest.mark.studio
@pytest.mark.timeout(1000)
def test_demo_two_rounds_end_better_than_they_began(studio, tmp_path):
    with orphans_adopted() as left_over, run_host() as collector:
        collector.pages["/v1/traces"] = (200, {}, b"")
        done = _demo(
            tmp_path,
            "--rounds",
            "2",
            "--exit",
            "--json",
            "demo.json",
            OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
            OTEL_EXPERIMENTAL_RESOURCE_DETECTORS="process",
        )
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
    promoted = [one for one in report["rounds"] if one["promoted"]]
    _check_traces([one.body for one in collector.seen], promotions=len(promoted))


def _check_traces(bodies: list[bytes], *, promotions: int) -> None:
    """Check that each promotion is reached from a webhook: by one trace, a link and another trace."""
    spans = list(read_spans(bodies))
    of_event = {one.trace for one in spans if one.name == "webhook"}
    requests = [one for one in spans if one.name == "request training" and one.trace in of_event]
    released = {one.trace for one in spans if one.name == "release" and one.attributes["maskloop.better"]}
    assert len(released) == promotions
    assert released <= {link for one in requests for link in one.links}
    assert {one.name for one in spans if one.trace in released} >= {"job training", "fine-tune", "judge"}
    steps = ("webhook", "job event", "release")
    webhook, event, release = ({one.pid for one in spans if one.name == name} for name in steps)
    assert webhook.isdisjoint(event | release), "of the server"
    assert event.isdisjoint(release), "of two workers"
