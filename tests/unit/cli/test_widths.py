"""Tables fit the terminal, at 80 and at 120 columns, and no name in them is cut."""

import re
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from maskloop.learning.registry import CHAMPION, SHADOW
from maskloop.store.database import Store
from maskloop.store.job_types import Job, JobKind, JobStatus
from maskloop.testing.memory import MemoryRegistry
from maskloop.types import HoldoutMetrics
from maskloop_studio.cli.evaluate import _print_table as print_evaluation_table
from maskloop_studio.cli.jobs import _print_table as print_jobs
from maskloop_studio.cli.version_tables import print_version, print_versions

PROJECT = 123456
NAME = f"maskloop-{PROJECT}"
LABELS = tuple(f"a rather long label of class {number}" for number in range(12))
DECISION = "promoted: " + "the score rose on every class of the holdout, " * 6
widths = pytest.mark.parametrize("width", [80, 120])


@pytest.fixture
def terminal(width, monkeypatch):
    """A terminal of this width."""
    monkeypatch.setenv("COLUMNS", str(width))


@pytest.fixture
def registry(tmp_path):
    """Two versions with long names, labels and verdicts."""
    source = tmp_path / "checkpoint"
    source.mkdir()
    (source / "config.json").write_text("{}")
    (source / "model.safetensors").write_text("weights")
    made = MemoryRegistry(tmp_path / "models")
    for number in (1, 2):
        made.register(
            NAME,
            source,
            labels=LABELS,
            metrics=HoldoutMetrics(ap50=0.5, pq=0.4, miou=0.6, images=24),
            parent=number - 1 or None,
            metadata={"decision": DECISION, "gate": '{"promote": true}', "base_model": "owner/" + "m" * 50},
        )
        made.promote(NAME, number, reason="a reason " * 20)
    made.set_alias(NAME, SHADOW, 1)
    return made


def too_wide(text, width, *, paths=()):
    """Return the lines that do not fit, apart from those that hold one of these paths."""
    return [line for line in text.splitlines() if len(line) > width and not any(p in line for p in paths)]


def squeezed(text):
    """Return the text without what a table puts between the parts of a cell."""
    return re.sub(r"[\s│┃]", "", text)


@widths
def test_models_list_fits_and_verdicts_are_one_line(width, terminal, registry, tmp_path, capsys):
    store = Store(f"sqlite:///{tmp_path / 'maskloop.db'}")
    print_versions(PROJECT, registry, store, as_json=False)
    store.close()
    shown = capsys.readouterr().out
    assert too_wide(shown, width) == []
    assert f"{NAME}-v2" in shown
    assert "…" not in shown
    assert len(re.findall(r"^maskloop-123456-v\d: promoted: the score", shown, flags=re.MULTILINE)) == 2
    assert f"maskloop models show {PROJECT}" in shown


@widths
def test_models_show_fits_and_its_path_stays_whole(width, terminal, registry, capsys):
    print_version(PROJECT, 2, registry, as_json=False)
    shown = capsys.readouterr().out
    folder = str(registry.get(NAME, 2).path)
    assert too_wide(shown, width, paths=[folder]) == []
    assert folder in shown
    assert squeezed(DECISION) in squeezed(shown)
    assert squeezed("ap50 0.500, pq 0.400, miou 0.600") in squeezed(shown)
    assert "{" not in shown  # JSON is for --json
    assert CHAMPION in shown


@widths
def test_jobs_list_fits_and_names_stay_whole(width, terminal, capsys):
    moment = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    job = Job(
        job_id=1234567,
        kind=JobKind.TRAINING,
        project_id=PROJECT,
        action=f"{NAME}-v12 was promoted",
        subject_ids=(),
        status=JobStatus.WAITING,
        attempts=12,
        error=None,
        due_at=moment,
        created_at=moment,
        started_at=None,
        finished_at=None,
        owner=None,
        done=400,
        total=1000,
        cancel_requested=True,
        outcome=None,
    )
    print_jobs((job,))
    shown = capsys.readouterr().out
    assert too_wide(shown, width) == []
    assert "…" not in shown
    for part in ("training-1234567", str(PROJECT), "400/1000", f"{NAME}-v12", "promoted", "cancelled"):
        assert part in shown


@widths
def test_evaluate_table_fits(width, terminal, capsys):
    numbers = {"images": 24, "objects": 1234, "ap50": 0.5, "pq": 0.4, "iou": 0.6, "boundary_iou": 0.3}
    evaluation = SimpleNamespace(
        metrics=SimpleNamespace(ap50=0.5, pq=0.4, miou=0.6, boundary_iou=0.3, images=24),
        per_class=lambda: dict.fromkeys([*LABELS, "x" * 60], numbers),
    )
    scores = dict.fromkeys(("ap50", "pq", "iou"), (0.123, 0.876))
    print_evaluation_table(f"{NAME}-v2", evaluation, dict.fromkeys(["", *LABELS], scores))
    shown = capsys.readouterr().out
    assert too_wide(shown, width) == []
    assert "…" not in shown
    assert all(word in shown for word in LABELS[0].split())
