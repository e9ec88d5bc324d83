"""A champion moves back and forth: servers follow, drop no request, and never serve damaged files."""

import base64
import io
import logging
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest
import uvicorn
from PIL import Image

from maskloop.errors import ModelLoadError, RegistryError
from maskloop.learning.registry import SHADOW, MlflowRegistry
from maskloop.processes import find_free_port
from maskloop.segmentation import checkpoint
from maskloop.testing.memory import MemoryRegistry
from maskloop_studio.projects.training import model_name
from maskloop_studio.serving import model_directory as served
from maskloop_studio.serving.app import create_app
from maskloop_studio.serving.model_directory import ModelDirectory
from maskloop_studio.serving.status_page import render_status

# MLflow's own tables and entities warn of what SQLAlchemy and pydantic will change one day
pytestmark = pytest.mark.filterwarnings("ignore:::mlflow", "ignore:::sqlalchemy", "ignore:::pydantic")

CONFIG = (
    '<View><Image name="image" value="$image"/><BrushLabels name="brush" toName="image">'
    '<Label value="Airplane"/><Label value="Car"/></BrushLabels></View>'
)
NAME = model_name(1)
PATIENCE_S = 60.0


@pytest.fixture
def services(make_services, tmp_path, tiny_model):
    """Project 1 with three champions after each other, of files of their own."""
    made = make_services(score_threshold=0.0, shadow_share=1.0)
    made.registry = MemoryRegistry(tmp_path / "registry")
    _fill(made, tiny_model)
    return made


def _fill(services, tiny_model):
    services.store.projects.save(1, CONFIG)
    for number in range(1, 4):
        services.registry.register(
            NAME, tiny_model, labels=("Airplane", "Car"), metrics=None, parent=number - 1 or None
        )
        services.registry.promote(NAME, number)


@pytest.fixture
def directory(services):
    return ModelDirectory(
        services.settings,
        registry=lambda: services.registry,
        engine=lambda: services.engine,
        store=lambda: services.store,
    )


def _damage(services, number):
    weights = services.registry.versions(NAME)[number - 1].path / "model.safetensors"
    whole = weights.read_bytes()
    weights.unlink()  # not cut where it lies: a process that reads it just now would end with SIGBUS
    weights.write_bytes(whole[:100])
    return lambda: weights.write_bytes(whole)


def _wait(condition):
    deadline = time.monotonic() + PATIENCE_S
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


def test_refresh_follows_promotion_and_rollback(services, directory):
    for move, tag in (
        (lambda: None, "v3"),
        (lambda: services.registry.rollback(NAME), "v2"),
        (lambda: services.registry.rollback(NAME), "v1"),
        (lambda: services.registry.promote(NAME, 3), "v3"),
    ):
        move()
        directory.refresh()
        assert directory.tag(1) == f"{NAME}-{tag}"


def test_refresh_damaged_champion_keeps_the_previous_one_and_logs(services, directory, caplog):
    services.registry.rollback(NAME)
    directory.refresh()
    mend = _damage(services, 3)
    services.registry._aliases[NAME]["champion"] = 3  # as by another tool: promote would refuse
    for _ in range(3):
        directory.refresh()
    (state,) = directory.states()
    assert (state.tag, "model.safetensors" in state.trouble) == (f"{NAME}-v2", True)
    assert "model.safetensors" in render_status(services.store, {}, directory.states())
    assert [record.action for record in caplog.records].count("champion_not_served") == 1

    mend()
    served.QUIET_S, before = 0.0, served.QUIET_S
    try:
        directory._troubles.clear()
        directory.refresh()
    finally:
        served.QUIET_S = before
    assert [(state.tag, state.trouble) for state in directory.states()] == [(f"{NAME}-v3", None)]


def test_refresh_rollback_ends_trouble_at_once(services, directory):
    directory.refresh()
    _damage(services, 3)
    directory.refresh()
    assert directory.states()[0].trouble
    services.registry.rollback(NAME)
    directory.refresh()
    assert [(state.tag, state.trouble) for state in directory.states()] == [(f"{NAME}-v2", None)]


def test_refresh_started_on_a_damaged_champion_serves_the_one_before(services, directory):
    for number in (3, 2):
        _damage(services, number)
    directory.refresh()
    assert directory.states()[0].tag == f"{NAME}-v1"
    assert "-v3" in directory.states()[0].trouble


def test_refresh_trouble_of_one_project_leaves_others_alone(services, directory, tiny_model):
    other = model_name(2)
    services.store.projects.save(2, CONFIG)
    services.registry.register(other, tiny_model, labels=("Car",), metrics=None, parent=None)
    services.registry.promote(other, 1)
    for number in (1, 2, 3):
        _damage(services, number)
    directory.refresh()
    assert directory.tag(2) == f"{other}-v1"
    assert [state.project_id for state in directory.states() if state.trouble] == [1]


def test_refresh_registry_unreachable_continues_serving(services, directory, monkeypatch):
    directory.refresh()

    def away(_name):
        raise RegistryError("model", expected="an answer", got="none", remedy="wait")

    with monkeypatch.context() as broken:
        broken.setattr(services.registry, "champion", away)
        directory.refresh()
        assert (directory.states()[0].tag, "none" in directory.states()[0].trouble) == (f"{NAME}-v3", True)
    directory.refresh()
    assert directory.states()[0].trouble is None


@pytest.fixture
def run_server(monkeypatch):
    """Start a real server of services; it ends after the test."""
    import maskloop.learning.cycle
    import maskloop.learning.training.trainer  # noqa: F401 - the server's thread imports transformers too: not at once

    monkeypatch.setattr(served, "POLL_S", 0.05)
    running = []

    def run(services):
        port = find_free_port()
        config = uvicorn.Config(create_app(services), port=port, log_level="error", lifespan="on")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run)
        thread.start()
        running.append((server, thread))
        _wait(lambda: server.started)
        return httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_S, trust_env=False)

    yield run
    for server, thread in running:
        server.should_exit = True
        thread.join()


def _data_uri():
    image = np.random.default_rng(0).integers(0, 256, (48, 48, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _predict(client):
    body = {
        "tasks": [{"id": 1, "data": {"image": _data_uri()}}],
        "project": "1.17",
        "label_config": CONFIG,
        "params": {},
    }
    answer = client.post("/predict", json=body)
    assert answer.status_code == 200, answer.text
    said = answer.json()
    (entry,) = said["results"]
    assert entry["result"], "a threshold of zero leaves something to draw"
    assert entry["model_version"] == said["model_version"]
    return said["model_version"]


def test_server_predicting_in_a_loop_drops_nothing_while_the_alias_moves(
    make_services, tiny_model, run_server
):
    services = make_services(score_threshold=0.0)
    services.registry = MlflowRegistry(
        services.settings.resolved_tracking_uri, services.settings.artifacts_dir
    )
    _fill(services, tiny_model)
    seen, stop = Counter(), threading.Event()

    def ask(client):
        while not stop.is_set():
            seen[_predict(client)] += 1

    with run_server(services) as client, ThreadPoolExecutor(2) as pool:
        _wait(lambda: client.get("/versions").json()["versions"] == [f"{NAME}-v3"])
        loops = [pool.submit(ask, client) for _ in range(2)]
        try:
            for _ in range(3):
                for move, tag in (
                    (lambda: services.registry.rollback(NAME), f"{NAME}-v2"),
                    (lambda: services.registry.promote(NAME, 3), f"{NAME}-v3"),
                ):
                    move()
                    before = seen[tag]
                    _wait(lambda tag=tag, before=before: seen[tag] > before)
        finally:
            stop.set()
        for loop in loops:
            loop.result()  # raises what a request met
    assert set(seen) == {f"{NAME}-v2", f"{NAME}-v3"}


def test_shadow_predicts_beside_and_is_counted_but_never_shown(services, run_server):
    services.registry.set_alias(NAME, SHADOW, 1)
    with run_server(services) as client:
        _wait(lambda: _predict(client) == f"{NAME}-v3")
        pair = (f"{NAME}-v3", f"{NAME}-v1")  # the model of the settings answered before

        def counted():
            _predict(client)
            return [one for one in services.store.shadows.of(1) if (one.champion, one.shadow) == pair]

        (count,) = _wait(counted)
        assert (count.differing, count.agreement) == (0, 1.0)  # the same weights
        assert f"{NAME}-v1" in client.get("/").text
        assert client.get("/versions").json()["versions"] == [f"{NAME}-v3"]


def test_shadow_that_cannot_be_loaded_breaks_no_answer(services, run_server, monkeypatch, caplog):
    caplog.set_level(logging.WARNING)
    services.registry.set_alias(NAME, SHADOW, 1)
    source, load = str(services.registry.get(NAME, 1).path), checkpoint.load_checkpoint

    def load_or_fail(asked, **options):
        if asked == source:
            raise ModelLoadError("model", expected="weights", got="none", remedy="train again")
        return load(asked, **options)

    monkeypatch.setattr(checkpoint, "load_checkpoint", load_or_fail)
    with run_server(services) as client:
        _wait(lambda: _predict(client) and "shadow_failed" in caplog.text)
        _wait(lambda: _predict(client) == f"{NAME}-v3")
    assert services.store.shadows.of(1) == ()
    assert caplog.text.count("shadow_failed") == 1  # not tried again


def test_current_right_after_the_start_is_the_champion_and_not_the_model_of_the_settings(services, directory):
    directory.start()
    try:
        assert directory.current(1, timeout_s=PATIENCE_S).tag == f"{NAME}-v3"
        assert not directory.current(None, timeout_s=PATIENCE_S).tag.startswith(NAME)
    finally:
        directory.stop()


def test_current_first_load_that_fails_unexpectedly_is_tried_again(services, directory, monkeypatch, caplog):
    monkeypatch.setattr(served, "POLL_S", 0.05)
    load, failures = services.engine.load, [SystemError("two threads met")]

    def load_once_in_vain(source):
        if failures:
            raise failures.pop()
        return load(source)

    monkeypatch.setattr(services.engine, "load", load_once_in_vain)
    directory.start()
    try:
        assert directory.current(None, timeout_s=PATIENCE_S).tag
    finally:
        directory.stop()
    assert failures == []
    assert any(getattr(one, "action", "") == "model_directory_failed" for one in caplog.records)


def test_current_project_without_a_champion_gets_the_model_of_the_settings(services, directory):
    services.store.projects.save(2, CONFIG)
    directory.start()
    try:
        assert not directory.current(2, timeout_s=PATIENCE_S).tag.startswith("maskloop-2-")
    finally:
        directory.stop()
