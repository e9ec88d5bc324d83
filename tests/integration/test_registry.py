import multiprocessing
import time
from dataclasses import replace

import pytest

from maskloop.errors import DamagedVersionError, RegistryError
from maskloop.learning.registry import MlflowRegistry
from maskloop.testing.memory import MemoryRegistry
from maskloop.types import HoldoutMetrics

# MLflow's own tables and entities warn of what SQLAlchemy and pydantic will change one day
pytestmark = pytest.mark.filterwarnings("ignore:::mlflow", "ignore:::sqlalchemy", "ignore:::pydantic")

METRICS = HoldoutMetrics(ap50=0.5, pq=0.4, miou=0.6, images=24)


@pytest.fixture(scope="module")
def mlflow_home(tmp_path_factory):
    return tmp_path_factory.mktemp("mlflow home")  # a space: paths must survive being addresses


@pytest.fixture(params=["memory", "mlflow"])
def registry(request, tmp_path, mlflow_home):
    return MemoryRegistry(tmp_path / "registry") if request.param == "memory" else make_mlflow(mlflow_home)


@pytest.fixture
def name(request):
    return "model-" + "".join(character for character in request.node.name if character.isalnum())


def make_mlflow(home):
    return MlflowRegistry(f"sqlite:///{home / 'mlflow.db'}", home / "artifacts")


def make_folder(tmp_path, content="1"):
    folder = tmp_path / f"checkpoint-{content}"
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_text(f"weights {content}")
    return folder


def register(registry, name, tmp_path, content="1", **changes):
    values = {"labels": ("disc", "Größe, 2"), "metrics": METRICS, "parent": None, "metadata": {"seed": "7"}}
    return registry.register(name, make_folder(tmp_path, content), **(values | changes))


def test_register_then_get_gives_all_back(registry, name, tmp_path):
    made = register(registry, name, tmp_path)
    assert made == registry.get(name, 1)
    assert (made.number, made.labels, made.metrics, made.parent) == (1, ("disc", "Größe, 2"), METRICS, None)
    assert (made.path / "model.safetensors").read_text() == "weights 1"
    assert registry.metadata(name, 1) == {"seed": "7"}


def test_register_source_deleted_keeps_its_own_copy(registry, name, tmp_path):
    register(registry, name, tmp_path)
    (tmp_path / "checkpoint-1" / "model.safetensors").unlink()
    assert (registry.get(name, 1).path / "model.safetensors").is_file()


def test_champion_nothing_promoted_is_none(registry, name, tmp_path):
    assert registry.champion(name) is None
    register(registry, name, tmp_path)
    assert registry.champion(name) is None


def test_promote_newer_and_back_moves_champion(registry, name, tmp_path):
    first = register(registry, name, tmp_path, metrics=None)
    second = register(registry, name, tmp_path, "2", parent=1, metrics=replace(METRICS, pq=0.9))
    for version in (first, second, first):
        registry.promote(name, version.number)
        assert registry.champion(name) == version
    assert (second.parent, second.metrics.pq) == (1, 0.9)


def test_versions_oldest_first_and_none_for_unknown(registry, name, tmp_path):
    assert registry.versions(name) == []
    made = [register(registry, name, tmp_path, str(number)) for number in range(1, 4)]
    assert registry.versions(name) == made


def test_newest_are_paged_and_need_no_files(registry, name, tmp_path):
    assert registry.newest(name, limit=3) == []
    made = [register(registry, name, tmp_path, str(number)) for number in range(1, 4)]
    (made[1].path / "model.safetensors").unlink()
    assert registry.newest(name, limit=2) == [made[2], made[1]]
    assert registry.newest(name, limit=2, below=2) == [made[0]]
    assert registry.peek(name, 2) == made[1]
    with pytest.raises(RegistryError, match="a registered version 9"):
        registry.peek(name, 9)


def test_losses_of_a_training_by_step_and_none_without_one(registry, name, tmp_path):
    assert registry.losses(name, "training-1") == []
    run = registry.start_run(name, "training-1")
    for step, loss in ((2, 0.5), (1, 0.75)):
        registry.log_step(run, step=step, loss=loss, eta_s=1.0)
    assert registry.losses(name, "training-1") == [(1, 0.75), (2, 0.5)]
    assert registry.losses(name, "training-2") == []


def test_names_do_not_mix(registry, name, tmp_path):
    register(registry, name, tmp_path)
    assert register(registry, f"{name}-b", tmp_path).number == 1
    assert len(registry.versions(name)) == 1


@pytest.mark.parametrize("damage", ["gone", "cut", "changed"])
def test_damaged_version_is_never_handed_out(registry, name, tmp_path, mlflow_home, damage):
    register(registry, name, tmp_path)
    second = register(registry, name, tmp_path, "2")
    registry.promote(name, 2)
    weights = second.path / "model.safetensors"
    weights.unlink() if damage == "gone" else weights.write_text({"cut": "w", "changed": "weights X"}[damage])
    if damage == "changed" and isinstance(registry, MlflowRegistry):
        registry = make_mlflow(mlflow_home)  # contents are read once by each process
    for call in (
        lambda: registry.champion(name),
        lambda: registry.get(name, 2),
        lambda: registry.promote(name, 2),
    ):
        with pytest.raises(RegistryError, match=r"model\.safetensors"):
            call()
    assert len(registry.versions(name)) == 2
    registry.promote(name, 1)
    assert registry.champion(name).number == 1


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_register_incomplete_folder_raises(registry, name, tmp_path, missing):
    folder = make_folder(tmp_path)
    (folder / missing).unlink()
    with pytest.raises(RegistryError, match="a checkpoint with config"):
        registry.register(name, folder, labels=("a",), metrics=None, parent=None)
    assert registry.versions(name) == []


def test_unknown_version_raises(registry, name, tmp_path):
    register(registry, name, tmp_path)
    for call in (registry.get, registry.promote, registry.metadata):
        with pytest.raises(RegistryError, match="version 9"):
            call(name, 9)


def test_mlflow_run_is_written_while_the_training_runs(tmp_path, mlflow_home):
    registry = make_mlflow(mlflow_home)
    run_id = registry.start_run("curve", "training-4")
    registry.log_step(run_id, step=10, loss=2.0, eta_s=7.5)
    client = registry.connection.client()
    assert curve_of(client, run_id) == [(10, 2.0)]
    assert client.get_run(run_id).info.status == "RUNNING"

    # killed: another process goes on with the same record
    again = make_mlflow(mlflow_home)
    assert again.start_run("curve", "training-4") == run_id
    again.log_step(run_id, step=20, loss=float("nan"), eta_s=0.0)
    register(again, "curve", tmp_path, run_id=run_id)
    assert client.get_model_version("curve", "1").run_id == run_id
    told = client.get_run(run_id)
    assert (told.info.status, told.data.metrics["ap50"], told.data.params) == ("FINISHED", 0.5, {"seed": "7"})
    assert curve_of(client, run_id) == [(10, 2.0)]


@pytest.mark.parametrize(("failed", "status"), [(True, "FAILED"), (False, "KILLED")], ids=["failed", "ended"])
def test_mlflow_run_without_a_version_is_closed(mlflow_home, failed, status):
    registry = make_mlflow(mlflow_home)
    run_id = registry.start_run("closed", f"training-{status}")
    registry.end_run(run_id, failed=failed)
    client = registry.connection.client()
    assert client.get_run(run_id).info.status == status
    assert registry.start_run("closed", f"training-{status}") == run_id  # tried again
    assert client.get_run(run_id).info.status == "RUNNING"
    assert registry.start_run("other", f"training-{status}") != run_id


def curve_of(client, run_id):
    return [(point.step, point.value) for point in client.get_metric_history(run_id, "loss")]


def test_mlflow_other_process_sees_the_champion(tmp_path, mlflow_home):
    register(make_mlflow(mlflow_home), "seen", tmp_path)
    make_mlflow(mlflow_home).promote("seen", 1)
    assert make_mlflow(mlflow_home).champion("seen").number == 1


def test_mlflow_unreachable_raises_without_the_password(tmp_path):
    registry = MlflowRegistry("postgres-nonsense://user:secret@nowhere/db", tmp_path)
    with pytest.raises(RegistryError, match="MLFLOW_TRACKING_URI") as caught:
        registry.champion("any")
    assert "secret" not in str(caught.value)


def test_mlflow_first_use_by_several_processes_at_once(tmp_path):
    context = multiprocessing.get_context("spawn")
    start = context.Event()
    results = context.Queue()
    folder = make_folder(tmp_path)
    workers = [context.Process(target=_first_use, args=(tmp_path, folder, start, results)) for _ in range(3)]
    for worker in workers:
        worker.start()
    time.sleep(0.5)
    start.set()
    numbers = {results.get(timeout=120) for _ in workers}
    for worker in workers:
        worker.join(30)
    assert numbers == {1, 2, 3}


def _first_use(home, folder, start, results):
    start.wait(60)
    try:
        made = make_mlflow(home).register("shared", folder, labels=("a",), metrics=None, parent=None)
        results.put(made.number)
    except Exception as exc:
        results.put(repr(exc))


def four_champions(registry, name, tmp_path):
    """Versions 1 to 4, each promoted after the other."""
    for number in range(1, 5):
        register(registry, name, tmp_path, str(number), parent=number - 1 or None)
        registry.promote(name, number, reason=f"round {number}")


def test_rollback_twice_goes_two_versions_back(registry, name, tmp_path):
    four_champions(registry, name, tmp_path)
    assert [registry.rollback(name).number for _ in range(2)] == [3, 2]
    registry.promote(name, 4)  # left once, promoted anew
    assert [registry.rollback(name).number for _ in range(2)] == [2, 1]
    assert registry.champion(name).number == 1
    with pytest.raises(RegistryError, match="champion before the present one"):
        registry.rollback(name)
    assert registry.champion(name).number == 1


def test_history_tells_steps_and_reasons(registry, name, tmp_path):
    four_champions(registry, name, tmp_path)
    registry.promote(name, 4)  # is champion already
    registry.rollback(name, reason="ring is missed")
    steps = registry.history(name)
    assert [(step.number, step.before, step.kind) for step in steps] == [
        (1, None, "promotion"),
        (2, 1, "promotion"),
        (3, 2, "promotion"),
        (4, 3, "promotion"),
        (3, 4, "rollback"),
    ]
    assert (steps[0].reason, steps[-1].reason) == ("round 1", "ring is missed")
    assert registry.history("unknown") == ()


def test_rollback_to_damaged_version_is_refused(registry, name, tmp_path):
    four_champions(registry, name, tmp_path)
    (registry.get(name, 3).path / "model.safetensors").unlink()
    with pytest.raises(DamagedVersionError, match=r"-v3: expected .*model\.safetensors"):
        registry.rollback(name)
    assert registry.champion(name).number == 4
    assert len(registry.history(name)) == 4


def test_rollback_without_history_follows_the_parents(registry, name, tmp_path, monkeypatch):
    four_champions(registry, name, tmp_path)
    monkeypatch.setattr(type(registry), "history", lambda *_: ())  # as versions before it was kept
    assert registry.rollback(name).number == 3


def test_rollback_nothing_promoted_raises(registry, name, tmp_path):
    register(registry, name, tmp_path)
    with pytest.raises(RegistryError, match="got no champion at all"):
        registry.rollback(name)


@pytest.mark.parametrize(
    ("shadow", "challenger", "promoted", "left"),
    [
        pytest.param(None, 2, 2, (None, None), id="itself"),
        pytest.param(3, 2, 3, (None, None), id="a newer one"),
        pytest.param(2, 3, 2, (None, 3), id="an older one"),
        pytest.param(None, None, 2, (None, None), id="none waits"),
    ],
)
def test_promote_ends_the_waits_of_this_version_and_older_ones(
    registry, name, tmp_path, shadow, challenger, promoted, left
):
    four_champions(registry, name, tmp_path)
    registry.set_alias(name, "shadow", shadow)
    registry.set_alias(name, "challenger", challenger)
    registry.promote(name, promoted)
    assert (registry.alias(name, "shadow"), registry.alias(name, "challenger")) == left


def test_aliases_point_at_versions_and_are_removed(registry, name, tmp_path):
    four_champions(registry, name, tmp_path)
    assert registry.alias(name, "challenger") is None
    registry.set_alias(name, "challenger", 2)
    assert registry.alias(name, "challenger") == 2
    registry.set_alias(name, "challenger", None)
    registry.set_alias(name, "challenger", None)
    assert registry.alias(name, "challenger") is None
    with pytest.raises(RegistryError, match="version 9"):
        registry.set_alias(name, "shadow", 9)


def test_delete_removes_files_and_never_gives_the_number_again(registry, name, tmp_path):
    four_champions(registry, name, tmp_path)
    gone = registry.get(name, 2).path
    registry.delete(name, 2)
    assert not gone.exists()
    assert [version.number for version in registry.versions(name)] == [1, 3, 4]
    assert register(registry, name, tmp_path).number == 5
    registry.delete(name, 5)
    assert register(registry, name, tmp_path).number == 6
    for call in (registry.get, registry.delete, registry.promote):
        with pytest.raises(RegistryError, match="version 2"):
            call(name, 2)
    assert [registry.rollback(name).number for _ in range(2)] == [3, 1]


def test_delete_what_an_alias_points_at_is_refused(registry, name, tmp_path):
    four_champions(registry, name, tmp_path)
    registry.set_alias(name, "shadow", 2)
    for number, held in ((4, "champion"), (2, "shadow")):
        with pytest.raises(RegistryError, match=f"got the {held}"):
            registry.delete(name, number)
    assert len(registry.versions(name)) == 4


def test_mlflow_killed_between_note_and_alias_did_not_happen(tmp_path, mlflow_home, name, monkeypatch):
    registry = make_mlflow(mlflow_home)
    four_champions(registry, name, tmp_path)
    register(registry, name, tmp_path, "5")
    client = registry.connection.client()
    with monkeypatch.context() as broken:
        broken.setattr(client, "set_registered_model_alias", _die)
        with pytest.raises(RegistryError, match="killed"):
            registry.promote(name, 5)
        with pytest.raises(RegistryError, match="killed"):
            registry.rollback(name)
    assert registry.champion(name).number == 4
    assert registry.rollback(name).number == 3
    assert registry.rollback(name).number == 2


def test_mlflow_alias_moved_by_hand_counts_as_promoted(tmp_path, mlflow_home, name):
    registry = make_mlflow(mlflow_home)
    four_champions(registry, name, tmp_path)
    registry.connection.client().set_registered_model_alias(name, "champion", "2")
    assert registry.rollback(name).number == 4


def test_mlflow_delete_killed_after_the_files_can_be_done_again(tmp_path, mlflow_home, name, monkeypatch):
    registry = make_mlflow(mlflow_home)
    four_champions(registry, name, tmp_path)
    with monkeypatch.context() as broken:
        broken.setattr(registry.connection.client(), "delete_model_version", _die)
        with pytest.raises(RegistryError, match="killed"):
            registry.delete(name, 2)
    with pytest.raises(DamagedVersionError):
        registry.promote(name, 2)
    registry.delete(name, 2)
    assert [version.number for version in registry.versions(name)] == [1, 3, 4]


def _die(*_arguments):
    raise OSError("killed")
