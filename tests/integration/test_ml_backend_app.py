"""Our model inside label-studio-ml's own Flask application."""

import base64
import io
import warnings

import numpy as np
import pytest
from PIL import Image
from tests.fakes.events import webhook_event

# Its Flask of 2020 imports what its itsdangerous calls deprecated; newer ones do the same to one another.
with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    from label_studio_ml.api import _manager, init_app

from label_studio_sdk.label_interface.interface import LabelInterface

from maskloop.errors import CodecError
from maskloop_studio import ml_backend

# Flask 1.1 and Werkzeug 2.0 use ast.Str and pkgutil functions that Python 3.12 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:(flask|werkzeug|label_studio_ml)")

CONFIG = (
    '<View><Image name="image" value="$photo"/><BrushLabels name="brush" toName="image">'
    '<Label value="Airplane"/><Label value="Car"/></BrushLabels></View>'
)
SETUP = {
    "project": "1.1795325281",
    "schema": CONFIG,
    "hostname": "http://localhost:8080",
    "access_token": "x",
}


@pytest.fixture
def services(make_services, monkeypatch):
    made = make_services(score_threshold=0.0)
    made.store.projects.save(1, CONFIG)
    monkeypatch.setattr(ml_backend, "process_services", lambda: made)
    ml_backend.process_handlers.cache_clear()
    yield made
    if ml_backend.process_handlers.cache_info().currsize:
        ml_backend.process_handlers().stop()
    ml_backend.process_handlers.cache_clear()


@pytest.fixture
def client(services, tmp_path, monkeypatch):
    monkeypatch.setattr(_manager.__class__, "_current_model", {})
    return init_app(model_class=ml_backend.MaskloopModel, model_dir=str(tmp_path / "jobs")).test_client()


def _task(number=1, photo=None):
    image = np.random.default_rng(number).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG")
    data_uri = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
    return {"id": number, "project": 1, "data": {"photo": photo or data_uri}}


def _predict(client, tasks):
    params = {"login": None, "password": None, "context": None}
    body = {"tasks": tasks, "project": "1.1795325281", "label_config": CONFIG, "params": params}
    return client.post("/predict", json=body)


def test_health_in_host_answers(client):
    assert client.get("/health").json["status"] == "UP"


def test_predict_in_host_returns_valid_regions(client, tiny_model):
    assert client.post("/setup", json=SETUP).status_code == 200
    answer = _predict(client, [_task(1), _task(2)]).json
    assert [result["model_version"] for result in answer["results"]] == [tiny_model.name] * 2
    assert any(result["result"] for result in answer["results"])
    for result in answer["results"]:
        assert LabelInterface(CONFIG).validate_prediction(result, return_errors=True) == []


def test_predict_in_host_of_many_requests_loads_once(client, services):
    for _ in range(2):
        client.post("/setup", json=SETUP)
        assert _predict(client, [_task()]).status_code == 200
    assert services.engine.held == (services.settings.model,)
    assert ml_backend.process_handlers.cache_info().currsize == 1


def test_predict_in_host_bad_image_serves_the_others(client):
    client.post("/setup", json=SETUP)
    good, bad = _predict(client, [_task(1), _task(2, "data:image/png;base64,bm9uZQ==")]).json["results"]
    assert good["result"]
    assert bad == [], "Label Studio stores nothing of it, and asks again"


@pytest.mark.parametrize("call", ["1.0.9", "2.x"])
def test_fit_event_reaches_the_intake(services, tmp_path, call):
    model = ml_backend.MaskloopModel(label_config=CONFIG, train_output=None)
    (tmp_path / "17").mkdir()
    (tmp_path / "17" / "event.json").write_text("{}")
    if call == "1.0.9":
        model.process_event("ANNOTATION_CREATED", webhook_event(), "17", {"workdir": str(tmp_path / "17")})
        assert not (tmp_path / "17").exists()
    else:
        model.fit("ANNOTATION_CREATED", webhook_event())
    assert len(services.queue.drain()) == 1


def test_fit_start_training_is_passed_on(services):
    model = ml_backend.MaskloopModel(label_config=CONFIG, train_output=None)
    model.process_event("START_TRAINING", {"project": {"id": 1}}, "18", {})
    assert services.store.trainings.get(1).status == "queued"


def test_fit_without_event_raises(services):
    with pytest.raises(CodecError, match="an event and its data"):
        ml_backend.MaskloopModel(label_config=CONFIG).fit(())
