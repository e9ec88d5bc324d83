"""The harness that `maskloop bench` runs: what it lists, what it writes, and what becomes of a failure."""

import json
import subprocess
import sys

import pytest
from tests.benchmarks.harness.case import Budget, Case, Result, Skip, Spread
from tests.benchmarks.harness.report import report_json, report_rows
from tests.benchmarks.harness.running import all_cases, chosen, run_cases
from tests.paths import REPOSITORY
from typer.testing import CliRunner

from maskloop.errors import ConfigurationError
from maskloop_studio.cli import bench as cli_bench
from maskloop_studio.cli.main import app


def _result(name="made-up/a", **changes):
    values = {"unit": "ms", "ours": Spread.of([2.0, 1.0, 3.0]), "reference": Spread.of([8.0])}
    return Result(name=name, reference_name="theirs", **(values | changes))


def _case(name, answer):
    def run(_budget):
        if isinstance(answer, Exception):
            raise answer
        return answer

    return Case(name=name, summary="a made-up one", run=run)


def test_spread_says_median_and_quartiles():
    assert Spread.of([4.0, 1.0, 2.0, 3.0, 5.0]) == Spread(median=3.0, low=2.0, high=4.0, rounds=5)
    assert Spread.of([4.0]) == Spread(median=4.0, low=4.0, high=4.0, rounds=1)


@pytest.mark.parametrize(
    ("changes", "ratio"),
    [
        pytest.param({}, 4.0, id="time"),
        pytest.param({"better": "more"}, 0.25, id="throughput"),
        pytest.param({"reference": None}, None, id="nothing to compare with"),
    ],
)
def test_result_ratio_above_one_is_a_gain(changes, ratio):
    assert _result(**changes).ratio == ratio


def test_run_cases_goes_on_after_skips_and_failures():
    told = []
    cases = [
        _case("a", Skip("no GPU")),
        _case("b", AssertionError("unequal")),
        _case("c", [_result("c/one"), _result("c/two")]),
    ]
    results, skipped, failed = run_cases(cases, Budget(), told.append)
    assert [result.name for result in results] == ["c/one", "c/two"]
    assert (skipped, failed) == ({"a": "no GPU"}, {"b": "AssertionError: unequal"})
    assert "  skipped: no GPU" in told


def test_report_json_has_the_figures_and_the_machine():
    said = json.loads(json.dumps(report_json([_result(notes={"n": 3})], {"cpu": "x"}, {"a": "no GPU"})))
    assert (said["machine"], said["skipped"]) == ({"cpu": "x"}, {"a": "no GPU"})
    entry = said["cases"][0]
    named = ("name", "ours", "reference", "unit", "reference_name", "ratio")
    assert [entry[name] for name in named] == ["made-up/a", 2.0, 8.0, "ms", "theirs", 4.0]
    assert entry["ours_spread"] == {"median": 2.0, "low": 1.5, "high": 2.5, "rounds": 3}
    assert entry["notes"] == {"n": 3}


def test_report_rows_fill_every_column():
    rows = report_rows([_result(), _result(reference=None, aim=1.0)])
    assert {len(row) for row in rows} == {len(rows[0])}
    assert rows[1][:6] == ("made-up/a", "2 (1.5-2.5)", "8", "ms", "theirs", "4")
    assert rows[2][2] == rows[2][5] == ""


def test_all_cases_have_names_of_their_own_and_say_what_they_do():
    cases = all_cases()
    names = [case.name for case in cases]
    assert {"start", "project"} <= set(names)
    assert len(set(names)) == len(names)
    assert all(case.summary for case in cases)
    assert [case.name for case in chosen(cases, ["start"])] == ["start"]
    with pytest.raises(ValueError, match="--only dance: expected one of"):
        chosen(cases, ["dance"])


def test_import_of_all_cases_leaves_heavy_modules_alone():
    code = (
        "import sys; from tests.benchmarks.harness.running import all_cases; all_cases();"
        "print(*[name for name in ('torch', 'transformers', 'label_studio_sdk') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == []


def test_bench_quick_start_end_to_end(tmp_path):
    file = tmp_path / "start.json"
    command = [sys.executable, "-m", "maskloop_studio", "bench", "--quick", "--seconds", "0"]
    done = subprocess.run(
        [*command, "--only", "start", "--json", file.name],  # as seen from where the command is given
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("| case")  # no terminal: Markdown
    said = json.loads(file.read_text())
    assert [case["name"] for case in said["cases"]] == ["start/--help"]
    assert (said["skipped"], said["failed"]) == ({}, {})


@pytest.mark.parametrize(("ended", "code"), [(0, 0), (1, 1), (2, 2), (-9, 137)])
def test_bench_passes_options_and_exit_code_on(monkeypatch, tmp_path, ended, code):
    seen = []

    def run(command, *, cwd, env, check):
        seen.append((command[1:], cwd))
        return subprocess.CompletedProcess(command, ended)

    monkeypatch.setattr(subprocess, "run", run)
    options = ["--only", "a", "--only", "b", "--json", str(tmp_path / "x"), "--seconds", "3", "--quick"]
    assert CliRunner().invoke(app, ["bench", *options]).exit_code == code
    passed = ["-m", "tests.benchmarks", "--seconds", "3.0", "--requests", "100000", "--minutes", "10.0"]
    passed += ["--only", "a", "--only", "b"]
    assert seen == [([*passed, "--json", str(tmp_path / "x"), "--quick"], REPOSITORY)]


def test_bench_without_a_checkout_says_where_one_is_had(monkeypatch, tmp_path):
    monkeypatch.setattr(cli_bench, "__file__", str(tmp_path / "a" / "b" / "cli_bench.py"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match="clone the repository"):
        cli_bench._checkout()
    monkeypatch.chdir(REPOSITORY / "docs")
    assert cli_bench._checkout() == REPOSITORY
