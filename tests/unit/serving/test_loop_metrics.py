"""The loop's metrics against the rows behind them; promtool reads metrics and alert rules."""

import shutil
import subprocess
from datetime import UTC, datetime

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from tests.paths import REPOSITORY

from maskloop.store.annotations import AnnotationSnapshot
from maskloop.store.corrections import DerivedMasks
from maskloop.store.drifts import DriftState
from maskloop.store.jobs import JobKind
from maskloop.types import EditCounts
from maskloop_studio.projects.edit_ledger import EditLedger
from maskloop_studio.serving.loop_metrics import LoopCollector

RULES = REPOSITORY / "docker" / "prometheus" / "maskloop.rules.yaml"
needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="install prometheus")
RULE_TEST = """
rule_files: [{rules}]
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - {{series: 'maskloop_job_leases_lapsed{{kind="training"}}', values: '{values}'}}
    alert_rule_test:
      - eval_time: 6m
        alertname: MaskloopWorkerLost
        exp_alerts: {expected}
"""
LOST = (
    "[{exp_labels: {severity: warning, kind: training}, "
    "exp_annotations: {summary: '1 running training jobs have a silent worker'}}]"
)


@pytest.fixture
def clock():
    return [0.0]


@pytest.fixture
def told(store, home, clock, settings):
    """Return the text that Prometheus gets."""

    def edits(project_id):
        ledger = EditLedger(project_id)
        ledger.update(store.edit_rows)
        return ledger.summary(settings)

    registry = CollectorRegistry()
    registry.register(LoopCollector(lambda: store, home, edits=edits, clock_s=lambda: clock[0]))
    return lambda: generate_latest(registry).decode()


def _values(text, name):
    """Return values by label values, in the order of the labels' names."""
    families = text_string_to_metric_families(text)
    return {
        tuple(sample.labels.values()): sample.value
        for family in families
        for sample in family.samples
        if sample.name == f"maskloop_{name}"
    }


def _keep(store):
    """Keep an annotation of project 1 that kept one region and added two."""
    at = datetime(2026, 1, 2, tzinfo=UTC)
    one = AnnotationSnapshot(
        annotation_id=70,
        project_id=1,
        task_id=7,
        updated_at=at,
        state="submitted",
        content={"result": []},
        label_config="<View/>",
        split="train",
        read_at=at,
    )
    masks = DerivedMasks(
        image_key="0" * 64,
        image_uri="a.png",
        size_hw=(32, 48),
        segments=(),
        edits=EditCounts(kept=1, added=2),
        model_version="maskloop-1-v1",
    )
    store.corrections.save(store.annotations.save(one).version_id, masks)


def test_jobs_and_trainings_are_told_from_their_rows(store, told, clock):
    store.projects.save(1, "<View/>")
    training = store.jobs.request(JobKind.TRAINING, 1, "maskloop train")
    store.jobs.request(JobKind.SYNC, 1, "schedule")
    store.jobs.claim(training, "worker", lease_s=-1)  # it is silent already
    text = told()
    assert _values(text, "jobs_by_kind") == {("sync", "waiting"): 1, ("training", "running"): 1}
    assert _values(text, "job_leases_lapsed") == {("training",): 1}
    assert 1 <= _values(text, "job_lease_overdue_seconds")["training",] < 600
    assert _values(text, "job_due_seconds").keys() == {("sync",)}
    assert _values(text, "training_step") == {("1",): 0}
    store.jobs.request(JobKind.PRELABEL, 1, "schedule")
    assert told() == text  # fresh enough: no further query
    clock[0] += 11
    assert ("prelabel", "waiting") in _values(told(), "jobs_by_kind")


def test_running_and_ended_trainings_are_told_with_their_figures(store, told):
    store.projects.save(1, "<View/>")
    for release in ("promoted", "refused", "refused", "<b>new</b>"):
        ended = store.jobs.request(JobKind.TRAINING, 1, "r")
        store.jobs.claim(ended, "worker", lease_s=60)
        store.jobs.finish(ended, "worker", {"release": release})
    running = store.jobs.request(JobKind.TRAINING, 1, "r")
    store.jobs.claim(running, "worker", lease_s=60)
    details = {"loss": 1.25, "images_per_s": 3.0, "memory_mb": 2.0, "eta_s": 60.0}
    store.jobs.renew(running, "worker", done=4, total=9, details=details, lease_s=60)
    text = told()
    assert -60 <= _values(text, "job_lease_overdue_seconds")["training",] < 0, "its worker renewed it"
    assert _values(text, "training_loss") == {("1",): 1.25}
    assert _values(text, "training_images_per_second") == {("1",): 3.0}
    assert _values(text, "training_memory_bytes") == {("1",): 2 * 2**20}
    assert _values(text, "training_seconds_left") == {("1",): 60.0}
    assert _values(text, "trainings_ended") == {("1", "promoted"): 1, ("1", "refused"): 2, ("1", "none"): 1}


@pytest.mark.parametrize(
    ("outcome", "serving", "pq"),
    [
        pytest.param({"promoted": True}, "maskloop-1-v2", 0.4, id="promoted"),
        pytest.param({"promoted": False}, "maskloop-1-v1", 0.2, id="refused"),
    ],
)
def test_regions_and_quality_are_told_by_project_version_and_class(store, told, outcome, serving, pq):
    store.projects.save(1, "<View/>")
    _keep(store)
    job_id = store.jobs.request(JobKind.TRAINING, 1, "maskloop train")
    store.jobs.claim(job_id, "worker", lease_s=60)
    metrics = {"ap50": 0.5, "pq": 0.4, "miou": 0.6, "boundary_iou": None, "per_class": {"a": {"pq": 0.3}}}
    outcome = {"version": "maskloop-1-v2", "base": "maskloop-1-v1", **outcome}
    outcome |= {"challenger_metrics": metrics, "champion_metrics": metrics | {"pq": 0.2}}
    store.jobs.finish(job_id, "worker", outcome)
    text = told()
    assert _values(text, "corrected_regions")["added", "1"] == 2
    assert _values(text, "work_saved") == {("1",): pytest.approx(1 / 3)}
    assert _values(text, "annotations") == {("1", "train", "submitted"): 1}
    assert _values(text, "holdout_quality")["pq", "1", serving] == pq
    assert {key[2] for key in _values(text, "holdout_quality")} == {serving}
    assert _values(text, "holdout_class_quality") == {("a", "pq", "1", serving): 0.3}


def test_drift_of_the_newest_version_is_told(store, told):
    store.projects.save(1, "<View/>")
    shared = {"known": 9, "images": 50, "threshold": 5.5, "strange_share": 0.1, "last_alarm": None}
    for tag, alarms in (("m-v1", 1), ("m-v2", 0)):
        state = DriftState(
            model_version=tag, signal="images", evidence=1.5, alarms=alarms, first_alarm=None, **shared
        )
        store.drifts.save(1, tag, [state])
    text = told()
    assert _values(text, "drift_alarm") == {("1", "images"): 0}
    assert _values(text, "drift_evidence") == {("1", "images"): 1.5}


def test_projects_beyond_the_bound_are_left_out_and_counted(store, told, monkeypatch):
    monkeypatch.setattr("maskloop_studio.serving.loop_metrics.MAX_PROJECTS", 2)
    for project_id in (1, 2, 3):
        store.projects.save(project_id, "<View/>")
    assert _values(told(), "projects_left_out") == {(): 1}


@needs_promtool
def test_promtool_finds_nothing_in_metrics_and_rules(store, told, home):
    home.mkdir(exist_ok=True)
    store.projects.save(1, "<View/>")
    store.jobs.request(JobKind.SYNC, 1, "schedule")
    text = told()
    checked = subprocess.run(
        ["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False
    )
    assert (checked.returncode, checked.stderr) == (0, ""), checked.stderr
    assert subprocess.run(["promtool", "check", "rules", RULES], capture_output=True).returncode == 0


@needs_promtool
@pytest.mark.parametrize(("values", "expected"), [("0 1x10", LOST), ("0x10", "[]")], ids=["lost", "well"])
def test_alert_of_a_lost_worker_fires_only_where_one_is_lost(tmp_path, values, expected):
    path = tmp_path / "test.yaml"
    path.write_text(RULE_TEST.format(rules=RULES, values=values, expected=expected))
    ran = subprocess.run(["promtool", "test", "rules", path], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
