"""Our model under the exact calls of the label-studio-ml 2.x host: what comes out is looked at."""

import base64
import importlib
import io
import json
import sys
from types import ModuleType

import numpy as np
import pytest
from label_studio_sdk.label_interface import LabelInterface
from PIL import Image
from tests.fakes import ml_host_2x as host
from tests.paths import SHARED

from maskloop.store.jobs import JobKind

CONFIG = (
    '<View><Image name="image" value="$photo"/><BrushLabels name="brush" toName="image">'
    '<Label value="Airplane"/><Label value="Car"/></BrushLabels></View>'
)
TRAFFIC = SHARED / "label-studio" / "traffic"


@pytest.fixture
def services(make_services):
    made = make_services(score_threshold=0.0, duplicate_threshold=1.0, piece_threshold=1.0)
    for project_id in (1, 2):
        made.store.projects.save(project_id, CONFIG)
    return made


@pytest.fixture
def model_class(services, monkeypatch):
    module = ModuleType("label_studio_ml.model")
    module.LabelStudioMLBase = host.HostModel
    monkeypatch.setitem(sys.modules, "label_studio_ml", ModuleType("label_studio_ml"))
    monkeypatch.setitem(sys.modules, "label_studio_ml.model", module)
    monkeypatch.delitem(sys.modules, "maskloop_studio.ml_backend", raising=False)
    ml_backend = importlib.import_module("maskloop_studio.ml_backend")
    monkeypatch.setattr(ml_backend, "process_services", lambda: services)
    host.CACHE.clear()
    yield ml_backend.MaskloopModel
    ml_backend.process_handlers().stop()
    sys.modules.pop("maskloop_studio.ml_backend", None)


def _task(number=1, project=1):
    image = np.random.default_rng(number).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG")
    uri = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
    return {"id": number, "project": project, "data": {"photo": uri}}


def _request(*tasks, project="1.1795325281", **params):
    return {"tasks": list(tasks), "project": project, "label_config": CONFIG, "params": params}


@pytest.mark.parametrize(
    "params",
    [
        pytest.param({}, id="no context: the host passes an empty one"),
        pytest.param({"context": {}}, id="empty context"),
        pytest.param({"context": None}, id="null context"),
        pytest.param({"login": None, "password": None, "context": None}, id="as Label Studio sends it"),
    ],
)
def test_plain_prediction_has_regions(model_class, params):
    entries = host.predict(model_class, _request(_task(1), _task(2), **params))["results"]
    assert len(entries) == 2
    for entry in entries:
        assert entry["result"], "a threshold of zero leaves something to draw"
        assert LabelInterface(CONFIG).validate_prediction(entry, return_errors=True) == []


def test_prompt_keeps_what_it_touches(model_class):
    everything = host.predict(model_class, _request(_task()))["results"][0]["result"]
    click = {"result": [{"type": "keypointlabels", "value": {"x": 50, "y": 50, "width": 1}}]}
    (entry,) = host.predict(model_class, _request(_task(), context=click))["results"]
    assert len(entry["result"]) <= 1 < len(everything)


def test_unknown_event_is_refused_without_regions(model_class):
    (entry,) = host.predict(model_class, _request(_task(), context={"event": "track"}))["results"]
    assert entry["result"] == []
    assert "context.event" in entry["error"]


def test_task_that_fails_gets_nothing(model_class):
    bad = _task(2) | {"data": {"photo": "data:image/png;base64,bm9uZQ=="}}
    good, nothing = host.predict(model_class, _request(_task(1), bad))["results"]
    assert good["result"]
    assert nothing == []


def test_setup_names_the_version_that_predicts(model_class, tiny_model):
    body = {"project": "1.17", "schema": CONFIG, "hostname": "http://x", "access_token": "x"}
    assert host.setup(model_class, body) == {"model_version": tiny_model.name}
    (entry,) = host.predict(model_class, _request(_task()))["results"]
    assert entry["model_version"] == tiny_model.name


def test_setup_extra_params_are_of_their_project_alone(model_class, services):
    body = {"project": "2.17", "schema": CONFIG, "extra_params": {"task": "semantic"}}
    host.setup(model_class, body)
    assert services.store.projects.options(2) == {"task": "semantic"}
    first, second = (
        host.predict(model_class, _request(_task(project=project), project=f"{project}.17"))["results"]
        for project in (1, 2)
    )
    assert len(second[0]["result"]) <= 2 < len(first[0]["result"]), "a semantic answer has one area a class"


@pytest.mark.skipif(not TRAFFIC.is_dir(), reason="no recorded traffic at hand")
def test_recorded_webhooks_reach_the_intake(model_class, services):
    for path in sorted(TRAFFIC.glob("webhook-*.json")):
        host.webhook(model_class, json.loads(path.read_text())["body"])
    kinds = [job.kind for job in services.store.jobs.find()]
    assert kinds.count(JobKind.EVENT) == 2  # created and updated; this host drops the plural deletion
    assert kinds.count(JobKind.TRAINING) == 1
