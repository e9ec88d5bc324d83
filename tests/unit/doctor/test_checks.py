"""Each check finds what is wrong, hides no other, and shows no secret."""

import json
import os
import shutil
import threading
from datetime import timedelta
from types import SimpleNamespace

import pytest
from pydantic import SecretStr
from typer.testing import CliRunner

from maskloop.errors import ImageError, MaskloopError, StoreError, StudioCause, StudioError
from maskloop.queue import durability, workers
from maskloop.queue.durability import QueueDurability
from maskloop.queue.spec import QueueName
from maskloop.segmentation import graph_export
from maskloop.store.audit import MASKLOOP
from maskloop.store.database import Store
from maskloop.store.jobs import JobKind
from maskloop.store.sessions import now
from maskloop_studio import services as services_module
from maskloop_studio.cli.main import app
from maskloop_studio.doctor import command, drawing, machine, order, project
from maskloop_studio.doctor.check_context import CheckContext
from maskloop_studio.doctor.check_run import run_checks
from maskloop_studio.doctor.command import examine, print_findings
from maskloop_studio.doctor.findings import Finding, Level, good
from maskloop_studio.labelstudio.models import StudioBackend, StudioProject, StudioTask
from maskloop_studio.labelstudio.webhooks import SECRET_HEADER
from maskloop_studio.projects.task_order import SAMPLING, TITLE

URL = "http://127.0.0.1:9090"
CONFIG = (
    '<View><Image name="i" value="$image"/><BrushLabels name="b" toName="i">'
    '<Label value="disc"/></BrushLabels></View>'
)


class Studio:
    """A Label Studio where all is well; each test breaks one thing."""

    url = "http://studio:8080"

    def __init__(self, secret):
        hook = {"id": 1, "url": f"{URL}/webhook", "headers": {SECRET_HEADER: secret}, "is_active": True}
        self.raw = {"maximum_annotations": 1, "show_collab_predictions": True}
        self.fields = {"sampling": SAMPLING, "model_version": "maskloop-7-v2", "label_config": CONFIG}
        self.hooks = [hook | {"send_for_all_actions": True, "send_payload": True}]
        self.machines = [self.backend()]
        self.tabs = [{"id": 1, "data": {"title": TITLE, "ordering": ["tasks:predictions_score"]}}]
        self.counts = {"maskloop-7-v2": 40}
        self.done = [0.01 * number for number in range(12)]
        self.left = [0.2 + 0.01 * number for number in range(40)]
        self.bare = 0
        self.data = {"image": "http://host/1.png"}
        self.asked = []

    @staticmethod
    def backend(url=URL, title="maskloop", state="CO", auth="BASIC_AUTH"):
        return StudioBackend(id=1, url=url, title=title, model_version="", state=state, auth_method=auth)

    def whoami(self):
        return SimpleNamespace(id=1, email="me@example.com")

    def studio_version(self):
        return "1.23.2"

    def project(self, number):
        self.asked.append("project")
        counts = {"task_count": 52, "annotation_count": 12, "skipped_count": 0}
        return StudioProject(id=number, title="Fruit", raw=self.raw, **counts, **self.fields)

    def backends(self, _number):
        return self.machines

    def webhooks(self, _number):
        return self.hooks

    def views(self, _number):
        return self.tabs

    def prediction_counts(self, _number):
        return self.counts

    def latest_scores(self, _number, count, *, since):
        return self.done[:count]

    def count_unlabelled(self, _number, *filters):
        if not filters:
            return len(self.left) + self.bare
        (line,) = filters
        if line["operator"] == "less":
            return sum(score < line["value"] for score in self.left)
        return self.bare if line["value"] else len(self.left)

    def iter_tasks(self, number):
        yield StudioTask(
            id=1, project_id=number, data=self.data, is_labeled=False, total_predictions=1, updated_at=""
        )


@pytest.fixture
def services(settings):
    store = Store(settings.resolved_database_url)
    store.projects.save(7, CONFIG)
    client = Studio(store.projects.webhook_secret())
    version = SimpleNamespace(tag="maskloop-7-v2", labels=("disc",))
    registry = SimpleNamespace(
        alias=lambda _name, _alias: 2, get=lambda _name, _number: version, versions=lambda _name: []
    )
    fetcher = SimpleNamespace(fetch=lambda _uri, task_id: _png())
    job_id = store.jobs.request(JobKind.SYNC, 7)
    store.jobs.claim(job_id, "me")
    store.jobs.finish(job_id, "me")
    yield SimpleNamespace(settings=settings, store=store, client=client, registry=registry, fetcher=fetcher)
    store.close()


CHECKS = (*project.PROJECT_CHECKS, *order.ORDER_CHECKS, *drawing.DRAWING_CHECKS)


def look(services, *checks):
    return run_checks(checks or CHECKS, CheckContext(services, 7))


def bad(findings):
    return [(one.check, one.level.value) for one in findings if one.level is not Level.GOOD]


def test_doctor_all_well_finds_only_good_things(services):
    assert bad(look(services)) == []


def _break(name, value):
    return lambda services: setattr(services.client, name, value)


def _field(name, value):
    return lambda services: services.client.fields.update({name: value})


def _raw(name, value):
    return lambda services: services.client.raw.update({name: value})


def _hook(name, value):
    return lambda services: services.client.hooks[0].update({name: value})


def _unknown(services):
    services.store.projects.remove(7)


def _late(services):
    services.settings = services.settings.model_copy(update={"sync_minutes": 0})


def _dead(services):
    job_id = services.store.jobs.request(JobKind.PRELABEL, 7)
    while True:
        with services.store.jobs._sessions.write() as session:
            from maskloop.store.tables import JobRow

            session.get_one(JobRow, job_id).due_at = now() - timedelta(days=1)
        if services.store.jobs.claim(job_id, "me") is None:
            return
        services.store.jobs.fail(job_id, "me", "it broke")


def _no_image(services):
    def fail(uri, task_id):
        raise ImageError(f"image {uri}", expected="an image", got="none", remedy="bring it back")

    services.fetcher.fetch = fail


def _set_aside(services):
    one = SimpleNamespace(annotation_id=5, task_id=3, reason="a form that is not known")
    services.store.annotations.count_set_aside = lambda _number: 1
    services.store.annotations.set_aside = lambda _number, limit: (one,)


def _away(services):
    services.store.projects.note_missing(7, at=now())


def _no_champion(services):
    services.registry.alias = lambda _name, _alias: None


TWO = [Studio.backend(), Studio.backend("http://10.0.0.9:1", "other")]
BROKEN = [
    pytest.param(_unknown, "project", "trouble", "maskloop connect 7", id="not connected"),
    pytest.param(_break("machines", []), "backend", "trouble", "maskloop connect 7", id="no backend"),
    pytest.param(
        _break("machines", [Studio.backend(state="DI")]), "backend", "trouble", "ML_BLOCK", id="not reached"
    ),
    pytest.param(
        _break("machines", [Studio.backend(auth="NONE")]),
        "backend",
        "trouble",
        "run `maskloop connect 7` again",
        id="connected without credentials",
    ),
    pytest.param(_break("machines", TWO), "backend", "hint", "remove those", id="two backends"),
    pytest.param(_hook("is_active", False), "webhook", "trouble", "connect 7", id="webhook switched off"),
    pytest.param(_hook("send_for_all_actions", False), "webhook", "trouble", "connect", id="some events"),
    pytest.param(
        _hook("consecutive_failures", 50), "webhook", "hint", "50 failures in a row", id="webhook fails"
    ),
    pytest.param(_set_aside, "set aside", "trouble", "1 set aside", id="annotation set aside"),
    pytest.param(_set_aside, "set aside", "hint", "a form that is not known", id="and its reason"),
    pytest.param(_away, "away", "hint", "404 at 1 checks", id="away"),
    pytest.param(_hook("headers", {}), "webhook", "trouble", "connect", id="webhook without secret"),
    pytest.param(
        _field("label_config", CONFIG.replace('"disc"', '"pear"')), "labels", "hint", "pear", id="label"
    ),
    pytest.param(_field("label_config", "<View/>"), "labels", "trouble", "Image", id="no image"),
    pytest.param(_no_champion, "labels", "hint", "prelabel", id="no version"),
    pytest.param(_late, "sync", "hint", "maskloop sync 7", id="late comparison"),
    pytest.param(_dead, "jobs", "trouble", "it broke", id="dead letter"),
    pytest.param(_no_image, "images", "trouble", "bring it back", id="image gone"),
    pytest.param(_break("data", {"photo": 1}), "images", "trouble", "(photo)", id="another field"),
    pytest.param(
        _field("model_version", "maskloop-7-v1"), "shown version", "trouble", "no order", id="version"
    ),
    pytest.param(_break("counts", {}), "shown version", "trouble", "prelabel 7", id="none stored"),
    pytest.param(
        _break("counts", {f"maskloop-7-v{n}": 3 for n in range(4)}),
        "shown version",
        "hint",
        "v1: 3",
        id="stale predictions",
    ),
    pytest.param(_field("sampling", "Sequential sampling"), "sampling", "trouble", SAMPLING, id="sampling"),
    pytest.param(_raw("maximum_annotations", 3), "overlap", "hint", "others began", id="three a task"),
    pytest.param(_raw("show_collab_predictions", False), "overlap", "hint", "prelabel", id="not shown"),
    pytest.param(_break("tabs", []), "tabs", "trouble", "ORDER_TABS", id="tab deleted"),
    pytest.param(
        _break("done", [0.3 + 0.02 * n for n in range(12)]),
        "order followed",
        "trouble",
        "members",
        id="chance",
    ),
    pytest.param(_break("bare", 5), "unpredicted", "hint", "5 of 45", id="no prediction"),
]


@pytest.mark.parametrize(("break_it", "check", "level", "words"), BROKEN)
def test_doctor_one_thing_broken_is_found(services, break_it, check, level, words):
    break_it(services)
    found = [one for one in look(services) if (one.check, one.level) == (check, level)]
    assert any(words in f"{one.expected} {one.got} {one.remedy}" for one in found)


def test_doctor_few_done_says_nothing_of_the_order(services):
    services.client.done = [0.9] * 9
    (found,) = look(services, order.check_order_followed)
    assert (found.level, "too few" in found.got) == (Level.GOOD, True)


def test_run_checks_one_raises_others_are_made(services):
    def check_first(_context):
        yield good("a", "b")
        raise ValueError("a fault of ours")

    def check_second(_context):
        raise MaskloopError("there", expected="x", got="y", remedy="z")

    def check_third(_context):
        yield good("c", "d")

    findings = look(services, check_first, check_second, check_third)
    assert [(one.check, one.level.value) for one in findings] == [
        ("first", "good"),  # what it found before the fault is kept
        ("first", "trouble"),
        ("second", "trouble"),
        ("third", "good"),
    ]
    assert (findings[2].place, findings[2].expected, findings[2].remedy) == ("there", "x", "z")


def _studio_error(cause):
    def fail(*_args, **_kwargs):
        fail.count += 1
        raise StudioError(
            f"request {fail.count}", expected="an answer", got="none", remedy="start it", cause=cause
        )

    fail.count = 0
    return fail


@pytest.mark.parametrize("cause", [cause for cause in StudioCause if cause.is_shared])
def test_run_checks_studio_away_is_one_trouble_and_the_rest_is_looked_at(services, cause):
    fail = _studio_error(cause)
    for name in (
        "whoami", "project", "backends", "webhooks", "views", "prediction_counts", "latest_scores",
        "count_unlabelled", "iter_tasks",
    ):  # fmt: skip
        setattr(services.client, name, fail)
    findings = look(services, machine.check_label_studio, *CHECKS)
    troubles = [one for one in findings if one.level is Level.TROUBLE]
    assert [one.check for one in troubles] == ["label studio"]
    skipped = {one.check: one.got for one in findings if one.level is Level.SKIPPED}
    assert set(skipped.values()) == {"needs: Label Studio"}
    assert {"project", "backend", "webhook", "images", "tabs", "unpredicted"} <= skipped.keys()
    assert {"jobs", "sync", "set aside"} <= {one.check for one in findings if one.level is Level.GOOD}


def test_run_checks_database_away_is_one_trouble(services):
    def fail(*_args, **_kwargs):
        raise StoreError("database", expected="an answer", got="none", remedy="start it")

    store = SimpleNamespace(jobs=SimpleNamespace(counts=fail, find=fail))
    store.projects = SimpleNamespace(ids=fail, absences=fail, webhook_secret=fail)
    store.annotations = SimpleNamespace(count_set_aside=fail)
    store.scores = SimpleNamespace(empty_counts=fail)
    services.store = store
    findings = look(services, machine.check_database, *CHECKS)
    assert [one.check for one in findings if one.level is Level.TROUBLE] == ["database"]


def test_run_checks_two_causes_are_two_troubles(services):
    def check_first(_context):
        raise StudioError("a", expected="x", got="y", remedy="z", cause=StudioCause.FORBIDDEN, status=403)

    def check_second(_context):
        raise StudioError("b", expected="x", got="y", remedy="z", cause=StudioCause.FORBIDDEN, status=403)

    assert bad(look(services, check_first, check_second)) == [("first", "trouble"), ("second", "trouble")]


def test_run_checks_slow_ones_run_side_by_side(services):
    barrier = threading.Barrier(4)

    def check_slow(_context):
        barrier.wait(timeout=20)  # passes only once four checks are inside
        yield good("a", "b")

    assert len(look(services, *[check_slow] * 4)) == 4


def test_print_findings_one_line_for_all_that_need_one_thing(services, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    fail = _studio_error(StudioCause.UNREACHABLE)
    for name in ("whoami", "project", "backends", "webhooks", "views", "prediction_counts", "iter_tasks"):
        setattr(services.client, name, fail)
    print_findings(look(services, machine.check_label_studio, *CHECKS), as_json=False)
    shown = capsys.readouterr().out
    assert shown.count("needs: Label Studio") == 1
    assert shown.count("trouble") == 1
    assert max(len(line) for line in shown.splitlines()) <= 80


def test_doctor_no_finding_shows_a_secret(services):
    secret = services.store.projects.webhook_secret()
    services.settings = services.settings.model_copy(
        update={
            "label_studio_api_key": SecretStr("t0ken-of-mine"),
            "database_url": "postgresql://me:pa55word@host/db",
        }
    )

    def check_leaks(_context):
        yield good(f"token t0ken-of-mine, {secret}", "postgresql://me:pa55word@host/db")

    context = CheckContext(services, 7)
    (found,) = run_checks([check_leaks], context, secrets=[*machine.secrets_of(services.settings), secret])
    assert not {"t0ken-of-mine", "pa55word", secret} & set(found.place.split(", ") + found.got.split("@"))
    assert "pa55word" not in found.got


@pytest.mark.parametrize(
    ("version", "level"), [("1.23.2", "good"), ("1.9.0", "hint"), ("", "hint"), ("2.0", "good")]
)
def test_check_label_studio_version(services, version, level):
    services.client.studio_version = lambda: version
    assert look(services, machine.check_label_studio)[-1].level == level


@pytest.mark.parametrize(
    ("token", "kind"), [("a" * 40, "legacy"), ("eyJh.eyJp.c2ln", "personal")], ids=["legacy", "personal"]
)
def test_check_label_studio_names_the_kind_of_token(services, token, kind):
    services.settings = services.settings.model_copy(update={"label_studio_api_key": SecretStr(token)})
    assert kind in look(services, machine.check_label_studio)[0].got


def test_check_queue_away_is_told(services):
    (found,) = look(services, machine.check_queue)
    assert (found.level, "MASKLOOP_REDIS_URL" in found.remedy) == (Level.TROUBLE, True)


def test_check_queue_names_what_nobody_serves(services, monkeypatch):
    monkeypatch.setattr(workers, "served_queues", lambda _connection: {"intake": 2})
    monkeypatch.setattr(workers, "has_live_scheduler", lambda _connection: True)
    found = {one.place: one.level.value for one in look(services, machine.check_queue)}
    assert found["workers of intake"] == "good"
    assert found["workers of train"] == "trouble"


@pytest.mark.parametrize(
    ("appends", "fsync", "evicts_by", "levels", "words"),
    [
        (True, "always", None, ["good"], "deletes no job"),
        (True, None, None, ["good"], "does not tell"),
        (True, "everysec", None, ["hint"], "before a job is on disk"),
        (True, "no", None, ["hint"], "before a job is on disk"),
        (False, "everysec", None, ["hint"], "forgets jobs when it stops"),
        (True, "always", "allkeys-lru", ["trouble"], "allkeys-lru"),
        (False, None, "volatile-ttl", ["trouble", "hint"], "volatile-ttl"),
    ],
)
def test_check_queue_tells_how_jobs_are_kept(services, monkeypatch, appends, fsync, evicts_by, levels, words):
    kept = QueueDurability(appends=appends, fsync=fsync, evicts_by=evicts_by)
    monkeypatch.setattr(workers, "served_queues", lambda _connection: dict.fromkeys(QueueName, 1))
    monkeypatch.setattr(workers, "has_live_scheduler", lambda _connection: True)
    monkeypatch.setattr(durability, "queue_durability", lambda _connection: kept)
    found = [one for one in look(services, machine.check_queue) if one.place == "the queue's server"]
    assert [one.level.value for one in found] == levels
    assert words in found[0].got


@pytest.mark.parametrize("line", ["every day", "0 0 31 2 *"])
def test_check_schedules_bad_line_is_trouble_and_named(services, line):
    services.store.projects.set_options(7, {"train_cron": line}, actor=MASKLOOP)
    found = look(services, machine.check_schedules)
    assert bad(found) == [("schedules", "trouble")]
    assert (found[-1].place, "train_cron" in found[-1].remedy) == ("schedule training-7", True)


def test_check_home_open_file_is_closed_and_named_once(services):
    (services.settings.home / "maskloop.db-wal").touch()
    (services.settings.home / "maskloop.db-wal").chmod(0o644)
    assert bad(look(services, machine.check_home)) == [("home", "hint")]
    assert bad(look(services, machine.check_home)) == []


def test_check_disk_full_is_told(services):
    services.settings = services.settings.model_copy(update={"min_free_disk_bytes": 2**60})
    assert bad(look(services, machine.check_disk)) == [("disk", "trouble")]


@pytest.mark.parametrize(("policy", "levels"), [("PASSIVE", []), ("ACTIVE", [("threads", "hint")])])
def test_check_threads_that_spin_are_told(services, monkeypatch, policy, levels):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0, 1}, raising=False)
    monkeypatch.setenv("OMP_WAIT_POLICY", policy)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert bad(look(services, machine.check_threads)) == levels


def test_check_model_folder_without_weights_is_told(services, tmp_path):
    services.settings = services.settings.model_copy(update={"model": str(tmp_path)})
    assert bad(look(services, machine.check_model)) == [("model", "trouble")]


def test_check_model_without_a_processor_names_what_is_missing(services, tmp_path):
    folder = shutil.copytree(services.settings.model, tmp_path / "model")
    (folder / "preprocessor_config.json").unlink()
    services.settings = services.settings.model_copy(update={"model": str(folder)})
    (found,) = [f for f in look(services, machine.check_model) if f.place == f"files of {folder}"]
    assert (found.level, "no preprocessor_config.json" in found.got) == ("hint", True)
    assert found.remedy == "add the file that belongs to it"


@pytest.mark.parametrize(
    ("mode", "installed", "device", "level", "words"),
    [
        ("auto", "2026.4.1", "cpu", Level.GOOD, "OpenVINO 2026.4.1 for image sizes that it is faster at"),
        ("auto", None, "cpu", Level.GOOD, "pip install 'maskloop[openvino]'"),
        ("off", "2026.4.1", "cpu", Level.GOOD, "MASKLOOP_OPENVINO is off"),
        ("on", None, "cpu", Level.TROUBLE, "no such package"),
        ("on", "2026.4.1", "meta", Level.GOOD, "torch on meta"),
    ],
)
def test_check_engine_says_what_models_are_run_by(
    services, monkeypatch, mode, installed, device, level, words
):
    monkeypatch.setattr(graph_export, "installed_openvino", lambda: installed)
    settings = services.settings.model_copy(update={"openvino": mode, "device": device})
    (finding,) = machine.check_engine(SimpleNamespace(settings=settings))
    assert finding.level is level
    assert words in finding.got


@pytest.mark.parametrize(("levels", "well"), [(["good", "hint", "skipped"], True), (["trouble"], False)])
@pytest.mark.parametrize("as_json", [False, True], ids=["table", "json"])
def test_print_findings_says_whether_all_is_well(capsys, levels, well, as_json):
    findings = [
        Finding(check="x", level=Level(level), place="[here]", expected="a", got="b", remedy="c")
        for level in levels
    ]
    assert print_findings(findings, as_json=as_json) is well
    shown = capsys.readouterr().out
    assert "[here]" in shown
    if as_json:
        assert json.loads(shown)["well"] is well


def test_examine_without_project_looks_at_the_machine(services, monkeypatch):
    monkeypatch.setattr(command, "MACHINE_CHECKS", (machine.check_database,))
    assert {one.check for one in examine(services)} == {"database"}
    assert len({one.check for one in examine(services, 7)}) == 1 + len(CHECKS)


@pytest.mark.parametrize("level", [Level.GOOD, Level.TROUBLE])
def test_doctor_command_ends_with_the_verdict(services, monkeypatch, level):
    finding = Finding(check="x", level=level, place="p", got="g")
    monkeypatch.setattr(services_module, "process_services", lambda: services)
    monkeypatch.setattr(command, "examine", lambda _services, _project: [finding])
    done = CliRunner().invoke(app, ["doctor", "7", "--json"])
    assert done.exit_code == (level is Level.TROUBLE)
    assert json.loads(done.stdout)["findings"][0]["place"] == "p"


def _png():
    import io

    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (4, 3)).save(buffer, "PNG")
    return buffer.getvalue()
