"""All nine routes as Label Studio calls them: recorded traffic, time limits, bad input."""

import base64
import io
import json
import logging
import time
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from maskloop_studio.server import MAX_BODY_BYTES, create_app

CONFIG = (
    '<View><Image name="image" value="$image"/><BrushLabels name="brush" toName="image">'
    '<Label value="Airplane"/><Label value="Car"/></BrushLabels></View>'
)


@pytest.fixture
def services(make_services):
    return make_services(score_threshold=0.0)


@pytest.fixture
def client(services):
    with TestClient(create_app(services)) as opened:
        yield opened


def _data_uri(size=(60, 80)):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _predict(client, *images, config=CONFIG, **params):
    tasks = [{"id": index, "data": {"image": image}} for index, image in enumerate(images, start=1)]
    body = {"tasks": tasks, "project": "1.1795325281", "label_config": config, "params": params}
    return client.post("/predict", json=body)


def _event(action="ANNOTATION_CREATED", number=5, **changes):
    event = {
        "action": action,
        "project": {"id": 1},
        "annotation": {"id": number, "updated_at": "2026-11-22T05:28:02.703265Z"},
    }
    return event | changes


def test_health_answers_before_the_model_is_loaded(client):
    assert client.get("/health").json() == {"status": "UP", "model_class": "maskloop"}


def test_setup_tells_the_version_at_once(client, tiny_model):
    answer = client.post("/setup", json={"project": "1.17", "schema": CONFIG, "access_token": "x"})
    assert answer.json() == {"model_version": tiny_model.name}


def test_predict_draws_regions_that_the_sdk_accepts(client):
    from label_studio_sdk.label_interface import LabelInterface

    body = _predict(client, _data_uri(), _data_uri((41, 33))).json()
    judge = LabelInterface(CONFIG)
    assert len(body["results"]) == 2
    for entry in body["results"]:
        assert entry["result"], "a threshold of zero leaves something to draw"
        assert judge.validate_prediction(entry, return_errors=True) == []
        assert 0 <= entry["score"] <= 1


def test_predict_broken_image_leaves_the_rest_alone(client, caplog):
    caplog.set_level(logging.WARNING)
    body = _predict(client, _data_uri(), "data:image/png;base64,AAAA", None, _data_uri()).json()
    assert [bool(entry["result"]) for entry in body["results"]] == [True, False, False, True]
    assert "task_id=2" in caplog.text
    assert "task_id=3" in caplog.text


def test_predict_oversized_image_gets_an_empty_result(make_services, caplog):
    services = make_services(max_image_pixels=1000)
    with TestClient(create_app(services)) as client:
        body = _predict(client, _data_uri((60, 80))).json()
    assert body["results"][0]["result"] == []
    assert "MASKLOOP_MAX_IMAGE_PIXELS" in caplog.text


@pytest.mark.parametrize(
    ("config", "words"),
    [
        pytest.param("<View><Text name='t' value='$t'/></View>", "Image", id="no image"),
        pytest.param("<View><Image name='image' value='$image'/></View>", "BrushLabels", id="no control"),
        pytest.param("<View><Image", "Start Tag", id="not XML"),
    ],
)
def test_predict_label_config_without_what_it_needs_is_refused(client, config, words):
    answer = _predict(client, _data_uri(), config=config)
    assert answer.status_code == 422
    assert words in answer.json()["error"]


def test_predict_no_matching_label_is_empty_and_says_why(client, caplog):
    body = _predict(
        client, _data_uri(), config=CONFIG.replace("Airplane", "Zebra").replace("Car", "Yak")
    ).json()
    assert body["results"][0]["result"] == []
    assert "predicted_values" in caplog.text


def test_validate_no_matching_label_is_refused(client):
    config = CONFIG.replace("Airplane", "Zebra").replace("Car", "Yak")
    answer = client.post("/validate", json={"config": config})
    assert (answer.status_code, "predicted_values" in answer.json()["error"]) == (422, True)
    assert client.post("/validate", json={"config": CONFIG}).json() == {"status": "ok"}


def test_predict_missing_checkpoint_says_where_and_what_to_do(make_services):
    services = make_services(model="/no/such/checkpoint")
    with TestClient(create_app(services)) as client:
        answer = _predict(client, _data_uri())
    assert answer.status_code == 500
    assert "MASKLOOP_MODEL" in answer.json()["error"]


def test_predict_deadline_gone_leaves_tasks_for_later(make_services):
    services = make_services(predict_deadline_s=1e-6)
    with TestClient(create_app(services)) as client:
        _wait_for_model(client)
        body = _predict(client, _data_uri()).json()
    assert body["results"] == [[]]
    assert [job.job_id for job in services.queue.drain()] == ["renewal-1"]


def _wait_for_model(client):
    for _ in range(200):
        if client.post("/validate", json={"config": CONFIG}).status_code == 200:
            return
        time.sleep(0.1)


def test_predict_prompt_keeps_only_what_was_clicked(client):
    image = _data_uri()
    everything = _predict(client, image).json()["results"][0]["result"]
    click = {"result": [{"type": "keypointlabels", "value": {"x": 50, "y": 50, "width": 1}}]}
    prompted = _predict(client, image, context=click).json()["results"][0]["result"]
    assert len(prompted) <= 1 < len(everything)


def test_setup_extra_params_choose_the_task(make_services):
    services = make_services(score_threshold=0.0, duplicate_threshold=1.0)
    services.store.projects.save(1, CONFIG)
    image = _data_uri()
    body = {"project": "1.17", "schema": CONFIG, "extra_params": {"task": "semantic"}}
    with TestClient(create_app(services)) as client:
        instances = _predict(client, image).json()["results"][0]["result"]
        assert client.post("/setup", json=body).status_code == 200
        areas = _predict(client, image).json()["results"][0]["result"]
    assert len(areas) <= 2 < len(instances), "a semantic answer has one area a class"
    assert services.store.projects.options(1) == {"task": "semantic"}


def test_setup_extra_params_wrong_value_is_refused(client):
    answer = client.post("/setup", json={"project": "1.17", "extra_params": {"task": "boxes"}})
    assert (answer.status_code, "extra_params" in answer.json()["error"]) == (422, True)


def test_webhook_is_kept_and_queued_once(client, services):
    assert client.post("/webhook", json=_event()).json()["status"] == "accepted"
    assert client.post("/webhook", json=_event()).json()["status"] == "known"
    assert services.store.events.counts() == {"pending": 1}
    assert [job.job_id for job in services.queue.drain()] == ["event-1"]


def test_webhook_start_training_gives_a_job_to_follow(client):
    job = client.post("/webhook", json={"action": "START_TRAINING", "project": {"id": 1}}).json()["job"]
    assert client.post("/job_status", json={"job": job}).json()["job_status"] == "queued"


@pytest.mark.parametrize(
    "event",
    [
        pytest.param(_event("MADE_UP"), id="unknown kind"),
        pytest.param(_event(project=None), id="no project"),
        pytest.param({"action": 7}, id="action is no text"),
        pytest.param([], id="not an object"),
    ],
)
def test_webhook_bad_event_is_refused_and_not_kept(client, services, event):
    answer = client.post("/webhook", json=event)
    assert answer.status_code == 422
    assert "expected" in answer.json()["error"]
    assert services.store.events.counts() == {}


def test_webhook_not_json_is_refused(client):
    assert client.post("/webhook", content=b"{" * 1000).status_code == 422


def test_body_over_the_limit_is_refused(client):
    answer = client.post("/predict", content=b" " * (MAX_BODY_BYTES + 1))
    assert answer.status_code == 413


def test_body_over_the_limit_without_a_length_is_refused(client):
    chunks = (b" " * 2**20 for _ in range(MAX_BODY_BYTES // 2**20 + 1))
    assert client.post("/predict", content=chunks).status_code == 413


def test_job_status_unknown_job_is_refused(client):
    assert client.post("/job_status", json={"job": "training-99"}).status_code == 422


@pytest.mark.parametrize("route", ["/delete", "/duplicate_model"])
def test_route_without_work_answers(client, route):
    body = {"project": "1.17", "project_src": "1.17", "project_dst": "2.17"}
    assert client.post(route, json=body).json() == {"status": "ok"}


def test_metrics_and_status_page_tell_what_waits(client):
    client.post("/webhook", json=_event())
    assert 'maskloop_events{status="pending"} 1.0' in client.get("/metrics").text
    assert "pending" in client.get("/").text


def test_swap_of_the_champion_drops_no_request(client, services, tiny_model):
    _wait_for_model(client)
    from maskloop_studio.training import model_name

    services.store.projects.save(1, CONFIG)
    version = services.registry.register(
        model_name(1), tiny_model, labels=("Airplane", "Car"), metrics=None, parent=None, metadata={}
    )
    services.registry.promote(model_name(1), version.number)
    image, tags = _data_uri(), []
    deadline = time.monotonic() + 60
    while version.tag not in tags and time.monotonic() < deadline:
        answer = _predict(client, image)
        assert answer.status_code == 200
        tags.append(answer.json()["model_version"])
    assert tags[-1] == version.tag
    assert client.get("/versions").json() == {"versions": [version.tag]}


TRAFFIC = Path(__file__).parents[3] / "shared" / "label-studio" / "traffic"


@pytest.mark.skipif(not TRAFFIC.is_dir(), reason="no recorded traffic at hand")
def test_recorded_traffic_is_answered_in_time(client, services):
    _wait_for_model(client)
    for path in sorted(TRAFFIC.glob("*.json")):
        recorded = json.loads(path.read_text())
        body = json.dumps(recorded["body"]) if recorded["body"] else None
        answer = client.request(
            recorded["method"], recorded["path"], content=body, headers=recorded["headers"]
        )
        assert answer.status_code == 200, (path.name, answer.text)
        if recorded["path"] == "/predict":
            assert len(answer.json()["results"]) == len(recorded["body"]["tasks"])
    assert services.store.events.counts() == {"pending": 4}
    assert [job.job_id for job in services.queue.drain()][-1] == "training-1"
