"""`maskloop models`: tables, JSON, exit codes, and what Label Studio is told."""

import json
import sys
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from maskloop.errors import MaskloopError, StudioError
from maskloop.learning.registry import CHALLENGER, SHADOW
from maskloop.queue.lease import run_job
from maskloop.store.jobs import JobKind, JobStatus
from maskloop.testing.memory import MemoryRegistry
from maskloop.types import HoldoutMetrics
from maskloop_studio import services as services_module
from maskloop_studio.cli import main as cli
from maskloop_studio.projects.champion import follow_champion, prune_after_training
from maskloop_studio.projects.training import model_name

NAME = model_name(1)
GATE = {"promote": True, "gain": 0.25}


class FakeStudio:
    """A Label Studio with one project."""

    def __init__(self):
        self.version = f"{NAME}-v4"
        self.away = False

    def project(self, _project_id):
        if self.away:
            raise StudioError("Label Studio", expected="an answer", got="none", remedy="start it")
        return SimpleNamespace(model_version=self.version)

    find_project = project

    def update_project(self, _project_id, *, model_version):
        self.version = model_version

    def close(self):
        """See StudioClient."""


@pytest.fixture
def services(make_services, tmp_path, monkeypatch):
    made = make_services(keep_versions=1)
    made.client = FakeStudio()
    made.registry = MemoryRegistry(tmp_path / "registry")
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_text("weights")
    for number in range(1, 5):
        made.registry.register(
            NAME,
            folder,
            labels=("disc",),
            metrics=HoldoutMetrics(ap50=0.1 * number, pq=0.4, miou=0.6, images=24),
            parent=number - 1 or None,
            metadata={"decision": f"score rose in round {number}", "gate": json.dumps(GATE), "seed": "7"},
        )
        made.registry.promote(NAME, number)
    monkeypatch.setattr(services_module, "process_services", lambda: made)
    return made


def run(*arguments):
    return CliRunner().invoke(cli.app, ["models", *arguments], catch_exceptions=True)


def run_json(*arguments):
    done = run(*arguments, "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_list_shows_roles_decisions_and_rollback_target(services):
    services.registry.set_alias(NAME, SHADOW, 2)
    services.registry.set_alias(NAME, CHALLENGER, 1)
    services.store.shadows.note(1, f"{NAME}-v4", f"{NAME}-v2", agreement=0.5, differs=True)
    services.store.shadows.note(1, f"{NAME}-v4", f"{NAME}-v2", agreement=1.0, differs=False)
    rows = run_json("list", "1")
    assert [row["roles"] for row in rows] == [["challenger"], ["shadow"], [], ["champion"]]
    assert [row["rollback"] for row in rows] == [3, 2, 1, 0]
    assert (rows[3]["champion"], rows[3]["decision"], rows[3]["gate"]) == (
        True,
        "score rose in round 4",
        GATE,
    )
    assert rows[1]["shadow"] == [
        {"champion": f"{NAME}-v4", "shadow": f"{NAME}-v2", "images": 2, "differing": 1, "agreement": 0.75}
    ]
    assert "different segments on 1 (50%), agreement 0.750" in run("list", "1").stdout


def test_show_tells_all_and_damage_too(services):
    told = run_json("show", "1", f"{NAME}-v3")
    assert (told["version"], told["parent"], told["seed"], told["trouble"]) == (f"{NAME}-v3", 2, "7", None)
    assert [step["number"] for step in told["history"]] == [3, 4]
    (services.registry.get(NAME, 3).path / "config.json").unlink()
    assert "config.json" in run_json("show", "1", "3")["trouble"]
    assert "score rose in round 3" in run("show", "1", "v3").stdout


def test_rollback_shows_what_is_stored_at_once_and_renews_the_rest(services):
    services.store.pushes.begin(1, 70, f"{NAME}-v3")
    services.store.pushes.finish_many(1, f"{NAME}-v3", {70: 99})
    move = run_json("rollback", "1", "--reason", "ring is missed")
    assert move == {
        "project_id": 1,
        "before": f"{NAME}-v4",
        "after": f"{NAME}-v3",
        "shown": True,
        "stored": 1,
        "trouble": None,
    }
    assert services.client.version == f"{NAME}-v3"
    assert [job.kind for job in services.store.jobs.due()] == [JobKind.PRELABEL]
    assert services.registry.history(NAME)[-1].reason == "ring is missed"


def test_rollback_nothing_stored_display_follows_by_prelabelling(services):
    done = run("rollback", "1")
    assert done.stdout.splitlines() == [
        f"champion before: {NAME}-v4; champion now: {NAME}-v3",
        "Label Studio has no prediction of it yet; they are made in the background",
    ]
    assert services.client.version == f"{NAME}-v4"


def test_champion_moved_without_us_is_renewed_once(services):
    jobs = services.store.jobs
    assert follow_champion(1, services)  # nothing tells that it ever was
    assert not follow_champion(1, services)  # it waits
    _end_renewal(jobs, model_version=f"{NAME}-v4")
    assert not follow_champion(1, services)
    services.registry.promote(NAME, 2)  # as on MLflow's own page
    assert follow_champion(1, services)
    (waiting,) = jobs.find(kind=JobKind.PRELABEL, statuses=[JobStatus.WAITING])
    assert waiting.action == f"{NAME}-v2 is the champion"
    jobs.cancel(waiting.job_id)
    assert not follow_champion(1, services)  # somebody put an end to it
    assert not follow_champion(2, services)  # has no champion


def _end_renewal(jobs, **outcome):
    (job,) = jobs.find(kind=JobKind.PRELABEL, statuses=[JobStatus.WAITING])
    run_job(job.job_id, lambda job, control: outcome, jobs=jobs)


def test_promote_label_studio_unreachable_promotes_with_a_note(services):
    services.store.pushes.begin(1, 70, f"{NAME}-v2")
    services.store.pushes.finish_many(1, f"{NAME}-v2", {70: 99})
    services.client.away = True
    done = run("promote", "1", "2")
    assert (done.exit_code, "start it" in done.stderr) == (0, True)
    assert services.registry.champion(NAME).number == 2
    assert [job.kind for job in services.store.jobs.due()] == [JobKind.PRELABEL]


def test_promote_the_champion_again_prints_a_note(services):
    assert f"{NAME}-v4 is the champion already" in run("promote", "1", "4").stdout
    assert len(services.registry.history(NAME)) == 4


def test_prune_spares_what_is_displayed(services):
    services.registry.promote(NAME, 4)
    for _ in range(3):
        services.registry.rollback(NAME)
    services.client.version = f"{NAME}-v2"
    assert run_json("prune", "1") == {"removed": [f"{NAME}-v3"]}
    assert run("prune", "1", "--keep", "5").stdout == "nothing to remove\n"


def test_prune_label_studio_unreachable_removes_nothing(services, caplog):
    services.client.away = True
    for _ in range(3):
        services.registry.rollback(NAME)
    assert isinstance(run("prune", "1").exception, StudioError)
    prune_after_training(1, services)
    assert "versions_not_pruned" in caplog.text
    assert len(services.registry.versions(NAME)) == 4


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        pytest.param(["promote", "1", "9"], "a registered version 9", id="no such version"),
        pytest.param(["show", "1", "9"], "maskloop models list", id="show none"),
        pytest.param(["rollback", "2"], "no champion at all", id="no champion"),
        pytest.param(["promote", "1", "3"], "model.safetensors", id="damaged"),
        pytest.param(["rollback", "1"], "model.safetensors", id="back to damaged"),
    ],
)
def test_refused_command_ends_with_one_and_a_remedy(services, monkeypatch, capsys, arguments, words):
    (services.registry.get(NAME, 3).path / "model.safetensors").unlink()
    monkeypatch.setattr(sys, "argv", ["maskloop", "models", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert (ended.value.code, words in capsys.readouterr().err) == (1, True)
    assert services.registry.alias(NAME, "champion") == 4


@pytest.mark.parametrize("version", ["best", "maskloop-2-v1", "-1", "v", "١"])
def test_version_that_is_none_ends_with_two(services, version):
    done = run("promote", "1", "--", version)
    assert (done.exit_code, isinstance(done.exception, MaskloopError)) == (2, False)
