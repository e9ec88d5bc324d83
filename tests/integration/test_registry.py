import multiprocessing
import time
from dataclasses import replace

import pytest

from maskloop.errors import RegistryError
from maskloop.learning.registry import MemoryRegistry, MlflowRegistry
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
    made = register(registry, name, tmp_path, loss_curve=[(10, 2.0), (20, 1.5)])
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


def test_mlflow_run_holds_curve_and_metrics(tmp_path, mlflow_home):
    registry = make_mlflow(mlflow_home)
    register(registry, "curve", tmp_path, loss_curve=[(10, 2.0), (20, 1.5)])
    client = registry._client()
    run_id = client.get_model_version("curve", "1").run_id
    assert [(point.step, point.value) for point in client.get_metric_history(run_id, "loss")] == [
        (10, 2.0),
        (20, 1.5),
    ]
    assert client.get_run(run_id).data.metrics["ap50"] == 0.5
    assert client.get_run(run_id).data.params == {"seed": "7"}


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
