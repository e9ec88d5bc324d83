"""All nine routes as Label Studio calls them: recorded traffic, time limits, bad input."""

import base64
import io
import json
import logging
import re
import threading
import time
from collections import Counter

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image
from pydantic import SecretStr
from tests.fakes.events import annotation, webhook_event
from tests.paths import REPOSITORY, SHARED
from tests.waiting import until

from maskloop.errors import ConfigurationError, QueueError, StoreError
from maskloop.store.jobs import JobKind, JobStatus
from maskloop_studio.labelstudio.basic_auth import backend_credentials
from maskloop_studio.serving.app import create_app

CONFIG = (
    '<View><Image name="image" value="$image"/><BrushLabels name="brush" toName="image">'
    '<Label value="Airplane"/><Label value="Car"/></BrushLabels></View>'
)


@pytest.fixture
def services(make_services):
    return make_services(score_threshold=0.0)


@pytest.fixture
def client(services):
    services.store.projects.save(1, CONFIG)
    with TestClient(create_app(services)) as opened:
        yield opened


@pytest.fixture
def secret(services):
    return {"X-Maskloop-Secret": services.store.projects.webhook_secret()}


@pytest.fixture
def credentials(services):
    """What `connect` stores on the backend in Label Studio, which sends it with every call."""
    return backend_credentials(services.settings, services.store)


def _data_uri(size=(60, 80)):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _predict(client, *images, config=CONFIG, **params):
    tasks = [{"id": index, "data": {"image": image}} for index, image in enumerate(images, start=1)]
    body = {"tasks": tasks, "project": "1.1795325281", "label_config": config, "params": params}
    return client.post("/predict", json=body)


def test_health_answers_before_the_model_is_loaded_and_says_so(make_services, tiny_model, monkeypatch):
    services, may_load = make_services(), threading.Event()
    load = services.engine.load
    monkeypatch.setattr(services.engine, "load", lambda source: (may_load.wait(60), load(source))[1])
    with TestClient(create_app(services)) as client:
        before = client.get("/health").json()
        may_load.set()
        until(lambda: client.get("/health").json()["model"]["state"] != "loading", 60)
        after = client.get("/health").json()
    said = {"status": "UP", "model_class": "maskloop"}
    assert before == said | {"model": {"state": "loading", "version": tiny_model.name}}
    assert after == said | {"model": {"state": "ready", "version": tiny_model.name}}


def test_health_with_a_model_that_cannot_be_loaded_is_up_and_says_so(make_services, tmp_path):
    with TestClient(create_app(make_services(model=str(tmp_path / "none")))) as client:
        until(lambda: client.get("/health").json()["model"]["state"] != "loading", 60)
        said = client.get("/health").json()
    assert (said["status"], said["model"]["state"]) == ("UP", "failed")


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
    first, second, third, fourth = body["results"]
    assert first["result"]
    assert fourth["result"]
    assert (second, third) == ([], []), "Label Studio stores nothing of them, and asks again"
    assert caplog.text.count("tasks_not_predicted") == 1
    assert 'subjects="2, 3"' in caplog.text


def test_predict_failed_task_is_tried_again_in_the_background(client, services):
    _predict(client, "data:image/png;base64,AAAA")
    (job,) = services.store.jobs.find(kind=JobKind.PRELABEL)
    assert (job.project_id, job.status) == (1, JobStatus.WAITING)
    assert job.action.startswith("1 tasks could not be predicted: ")
    assert job.due_at > job.created_at, "what failed a moment ago fails now as well"
    assert job.name in client.get("/").text


def test_predict_oversized_image_is_no_prediction(make_services, caplog):
    services = make_services(max_image_pixels=1000)
    with TestClient(create_app(services)) as client:
        body = _predict(client, _data_uri((60, 80))).json()
    assert body["results"] == [[]]
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
    services.store.projects.save(1, CONFIG)
    with TestClient(create_app(services)) as client:
        _wait_for_model(client)
        body = _predict(client, _data_uri()).json()
        assert body["results"] == [[]]
        assert _drained(services, 1) == ["prelabel-1"]
    assert services.store.jobs.get(1).action == "1 of 1 tasks of a request were left at its deadline"


def _wait_for_model(client):
    for _ in range(200):
        if client.post("/validate", json={"config": CONFIG}).status_code == 200:
            return
        time.sleep(0.1)


def _mask(region):
    """Decode a brush region with Label Studio's own converter."""
    from label_studio_sdk.converter.brush import decode_rle

    size_hw = region["original_height"], region["original_width"]
    return decode_rle(region["value"]["rle"]).reshape(*size_hw, 4)[..., 3] > 0


@pytest.fixture
def client_of_all_segments(make_services):
    services = make_services(score_threshold=0.0, duplicate_threshold=1.0, piece_threshold=1.0)
    services.store.projects.save(1, CONFIG)
    with TestClient(create_app(services)) as opened:
        yield opened


def test_predict_click_has_the_tools_label_and_the_pixel_below_it(client_of_all_segments, caplog):
    caplog.set_level(logging.INFO)
    client, image = client_of_all_segments, _data_uri()
    regions = _predict(client, image).json()["results"][0]["result"]
    row, column = np.argwhere(_mask(regions[0]))[0]
    point = {"x": 100 * (column + 0.5) / 80, "y": 100 * (row + 0.5) / 60, "width": 1}
    for label in ("Airplane", "Car"):
        value = point | {"keypointlabels": [label]}
        click = {"type": "keypointlabels", "value": value, "original_width": 80, "original_height": 60}
        answer = _predict(client, image, context={"result": [click]}).json()["results"][0]["result"]
        assert {one["value"]["brushlabels"][0] for one in answer} == {label}
        assert _mask(answer[0])[row, column]
    assert caplog.text.count("click_answered") == 2
    assert caplog.text.count("kept=True") == 2, "opening the task was the first look"


def _click(times=1, **value):
    region = {"type": "keypointlabels", "value": {"x": 50, "y": 50, "width": 1} | value}
    return {"result": [region] * times}


TWO_IMAGES = (
    '<View><Image name="rgb" value="$rgb"/><Image name="ir" value="$ir"/>'
    '<BrushLabels name="brush" toName="rgb"><Label value="Airplane"/><Label value="Car"/></BrushLabels>'
    '<PolygonLabels name="poly" toName="ir"><Label value="Airplane"/><Label value="Car"/></PolygonLabels>'
    "</View>"
)
PAGES = (
    '<View><Image name="page" valueList="$pages"/><BrushLabels name="brush" toName="page">'
    '<Label value="Airplane"/><Label value="Car"/></BrushLabels></View>'
)


def _predict_data(client, config, *data, **params):
    tasks = [{"id": number, "data": one} for number, one in enumerate(data, start=1)]
    body = {"tasks": tasks, "project": "1.1795325281", "label_config": config, "params": params}
    return client.post("/predict", json=body).json()["results"]


def test_predict_every_image_that_has_a_control(client):
    (entry,) = _predict_data(client, TWO_IMAGES, {"rgb": _data_uri(), "ir": _data_uri((41, 33))})
    sizes = {(one["to_name"], one["from_name"], one["original_height"]) for one in entry["result"]}
    assert sizes == {("rgb", "brush", 60), ("ir", "poly", 41)}
    ids = [one["id"] for one in entry["result"]]
    assert len(set(ids)) == len(ids)
    alone = [_predict_data(client, CONFIG, {"image": _data_uri(size)}) for size in ((60, 80), (41, 33))]
    assert entry["score"] == pytest.approx(min(one["score"] for (one,) in alone)), "the least sure counts"


def test_predict_every_page_of_a_list(client):
    (entry,) = _predict_data(client, PAGES, {"pages": [_data_uri(), _data_uri((41, 33))]})
    assert {(one["item_index"], one["original_height"]) for one in entry["result"]} == {(0, 60), (1, 41)}


def test_predict_one_image_of_several_missing_is_no_prediction(client):
    whole, half = _predict_data(
        client,
        TWO_IMAGES,
        {"rgb": _data_uri(), "ir": _data_uri()},
        {"rgb": _data_uri(), "ir": "data:image/png;base64,AAAA"},
    )
    assert whole["result"]
    assert half == []


def test_predict_more_images_than_allowed_is_no_prediction(make_services, caplog):
    services = make_services(score_threshold=0.0, max_task_images=2)
    with TestClient(create_app(services)) as client:
        assert _predict_data(client, PAGES, {"pages": ["a", "b", "c"]}) == [[]]
    assert "MASKLOOP_MAX_TASK_IMAGES" in caplog.text


def test_predict_prompt_on_one_image_answers_for_it_alone(client):
    click = {"type": "keypointlabels", "to_name": "ir", "value": {"x": 50, "y": 50}}
    data = {"rgb": "data:image/png;base64,AAAA", "ir": _data_uri()}  # the other one is not even fetched
    (entry,) = _predict_data(client, TWO_IMAGES, data, context={"result": [click]})
    assert "error" not in entry
    assert {one["to_name"] for one in entry["result"]} <= {"ir"}


@pytest.mark.parametrize(
    ("context", "words"),
    [
        pytest.param({"event": "track", "frame": 0}, "context.event", id="track"),
        pytest.param({"event": "predict", "positive": [[1, 2]]}, "context.result", id="newer prompt"),
        pytest.param(
            {"result": [{"type": "keypointlabels", "to_name": "x", "value": {"x": 1, "y": 1}}]},
            "to_name",
            id="other image",
        ),
        pytest.param(_click(x=101), "inside the image", id="outside"),
        pytest.param(_click(keypointlabels=["Boat"]), "Airplane", id="label that is not there"),
        pytest.param(
            {"result": [_click()["result"][0] | {"original_width": 90, "original_height": 60}]},
            "its image has changed",
            id="image that changed",
        ),
        pytest.param(_click(times=10_000), "10000", id="10,000 points"),
    ],
)
def test_predict_context_that_is_not_understood_is_refused_without_regions(client, context, words):
    entries = _predict(client, _data_uri(), _data_uri(), context=context).json()["results"]
    assert len(entries) == 2
    for entry in entries:
        assert entry["result"] == []
        assert words in entry["error"]


def _reply(client, context):
    (entry,) = _predict(client, _data_uri(), context=context).json()["results"]
    assert "error" not in entry
    return entry["result"]


def test_predict_events_of_the_newer_protocol_are_answered_as_it_expects(client, services):
    (offer,) = _reply(client, {"event": "capabilities"})
    assert offer["value"].keys() == {"prompts", "targets", "model_info"}
    (ack,) = _reply(client, {"event": "prewarm", "frame": 0})
    assert (ack["type"], ack["value"]) == ("prewarm_ack", {"status": "ok", "cached": [], "pending": [0]})
    until(lambda: _reply(client, {"event": "prewarm"})[0]["value"]["cached"] == [0], 60)
    points = [{"type": "keypointlabels", "value": {"x": 50, "y": 50, "positive": True}}]
    for mask in _reply(client, {"frame": 0, "result": points}):
        assert (mask["type"], mask["from_name"], mask["to_name"]) == ("bitmask", "brush", "image")
        assert mask["value"]["imageDataURL"].startswith("data:image/png;base64,")
    assert _reply(client, {"event": "release"})[0]["value"] == {"status": "released"}
    assert _reply(client, {"event": "prewarm"})[0]["value"]["pending"] == [0]


@pytest.mark.parametrize("context", [{}, {"result": []}, None], ids=str)
def test_predict_context_that_asks_for_nothing_is_a_plain_prediction(client, context):
    (entry,) = _predict(client, _data_uri(), context=context).json()["results"]
    assert entry["result"]


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "1e-999", "-0.0"])
def test_predict_number_that_is_none_in_a_prompt_is_no_fault(client, number):
    body = json.dumps(
        {
            "tasks": [{"id": 1, "data": {"image": _data_uri()}}],
            "project": "1.17",
            "label_config": CONFIG,
            "params": {"context": {"result": [{"type": "keypoint", "value": {"x": 0.5, "y": 0.5}}]}},
        }
    ).replace('"x": 0.5', f'"x": {number}')
    answer = client.post("/predict", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 200
    (entry,) = answer.json()["results"]
    assert ("error" in entry) is (number in ("NaN", "Infinity", "-Infinity", "1e999"))


def test_setup_extra_params_choose_the_task(make_services):
    services = make_services(score_threshold=0.0, duplicate_threshold=1.0, piece_threshold=1.0)
    services.store.projects.save(1, CONFIG)
    image = _data_uri()
    body = {"project": "1.17", "schema": CONFIG, "extra_params": {"task": "semantic"}}
    with TestClient(create_app(services)) as client:
        instances = _predict(client, image).json()["results"][0]["result"]
        login = backend_credentials(services.settings, services.store)
        assert client.post("/setup", json=body, auth=login).status_code == 200
        areas = _predict(client, image).json()["results"][0]["result"]
    assert len(areas) <= 2 < len(instances), "a semantic answer has one area a class"
    assert services.store.projects.options(1) == {"task": "semantic"}


def test_setup_extra_params_wrong_value_is_refused(client):
    answer = client.post("/setup", json={"project": "1.17", "extra_params": {"task": "boxes"}})
    assert (answer.status_code, "extra_params" in answer.json()["error"]) == (422, True)


def _counts(services):
    return services.store.jobs.counts()


def _drained(services, count):
    """The jobs that were queued; that happens after the answer."""
    jobs = []
    deadline = time.monotonic() + 30
    while len(jobs) < count and time.monotonic() < deadline:
        jobs += [job.job_id for job in services.queue.drain()]
        time.sleep(0.01)
    return jobs


def test_webhook_is_kept_and_queued_once(client, services, secret):
    assert client.post("/webhook", json=webhook_event(), headers=secret).json()["status"] == "accepted"
    assert client.post("/webhook", json=webhook_event(), headers=secret).json()["status"] == "known"
    assert _counts(services) == {"waiting": 1}
    assert _drained(services, 1) == ["event-1"]


def test_webhook_start_training_gives_a_job_to_follow(client, services, credentials):
    event = {"action": "START_TRAINING", "project": {"id": 1}}
    job = client.post("/webhook", json=event, auth=credentials).json()["job"]
    assert client.post("/webhook", json=event, auth=credentials).json()["job"] == job, "at most one waits"
    assert client.post("/job_status", json={"job": job}).json()["job_status"] == "queued"
    assert _drained(services, 1) == [job]


def test_webhook_label_links_are_ignored(client, services, secret):
    answer = client.post("/webhook", json=webhook_event("LABEL_LINK_CREATED"), headers=secret)
    assert (answer.json()["status"], _counts(services)) == ("ignored", {})


@pytest.mark.parametrize(
    ("event", "status", "words"),
    [
        pytest.param(webhook_event("MADE_UP"), 422, "Label Studio 1.23", id="unknown kind"),
        pytest.param(webhook_event(project=None), 422, "send_payload", id="no project"),
        pytest.param(webhook_event(annotation=None), 422, "send_payload", id="no annotation"),
        pytest.param({"action": 7}, 422, "string", id="action is no text"),
        pytest.param([], 422, "object", id="not an object"),
        pytest.param(webhook_event(project={"id": 2}), 403, "maskloop connect", id="foreign project"),
        pytest.param({"action": "PROJECT_DELETED", "project": {"id": 2}}, 403, "connect", id="foreign hook"),
    ],
)
def test_webhook_bad_event_is_refused_and_not_kept(client, services, secret, event, status, words):
    answer = client.post("/webhook", json=event, headers=secret)
    assert (answer.status_code, words in answer.json()["error"]) == (status, True), answer.text
    assert _counts(services) == {}


@pytest.mark.parametrize(
    ("event", "headers", "status"),
    [
        pytest.param(webhook_event(), {}, 401, id="no secret"),
        pytest.param(webhook_event(), {"X-Maskloop-Secret": "guess"}, 401, id="wrong secret"),
        pytest.param(webhook_event(), {"X-Maskloop-Secret": ""}, 401, id="empty secret"),
        pytest.param(
            webhook_event("START_TRAINING"), {"X-Maskloop-Secret": "guess"}, 401, id="wrong for training"
        ),
        pytest.param(webhook_event("START_TRAINING"), {}, 401, id="training, no credentials"),
    ],
)
def test_webhook_sender_is_checked(client, event, headers, status):
    answer = client.post("/webhook", json=event, headers=headers)
    assert answer.status_code == status, answer.text
    assert "guess" not in answer.text


def test_webhook_secret_of_the_settings_counts(make_services):
    services = make_services(webhook_secret=SecretStr("from-settings"))
    services.store.projects.save(1, CONFIG)
    made = services.store.projects.webhook_secret()
    with TestClient(create_app(services)) as client:
        statuses = [
            client.post("/webhook", json=webhook_event(), headers={"X-Maskloop-Secret": given}).status_code
            for given in (made, "from-settings")
        ]
    assert statuses == [401, 200]


def test_webhook_project_connected_meanwhile_is_accepted_at_once(client, services, secret):
    event = webhook_event(project={"id": 2})
    assert client.post("/webhook", json=event, headers=secret).status_code == 403
    services.store.projects.save(2, CONFIG)
    assert client.post("/webhook", json=event, headers=secret).status_code == 200


def test_webhook_queue_down_waits_in_the_database(client, services, secret):
    services.queue.enqueue = _no_queue
    answers = [
        client.post("/webhook", json=webhook_event(annotation=annotation(n)), headers=secret)
        for n in range(1, 4)
    ]
    assert [answer.status_code for answer in answers] == [200] * 3
    assert len(services.store.jobs.due()) == 3


def _no_queue(_job):
    raise QueueError("queue", expected="an answer", got="none", remedy="wait")


def test_webhook_database_down_says_so(client, services, secret, monkeypatch):
    client.post("/webhook", json=webhook_event(), headers=secret)

    def no_database(_events):
        raise StoreError("database, write", expected="an answer", got="none", remedy="start it")

    monkeypatch.setattr(services.store.jobs, "add_events", no_database)
    answer = client.post("/webhook", json=webhook_event(annotation=annotation(6)), headers=secret)
    assert (answer.status_code, answer.json()["error"]) == (
        503,
        "database, write: expected an answer, got none; start it",
    )


def test_docs_describe_the_webhook(client):
    operation = client.get("/openapi.json").json()["paths"]["/webhook"]["post"]
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    assert {"action", "project", "annotation", "tasks"} <= schema["properties"].keys()
    assert "$ref" not in json.dumps(schema)
    assert "401" in operation["responses"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        pytest.param({"basic_auth_user": "me"}, "MASKLOOP_BASIC_AUTH_PASSWORD", id="no password"),
        pytest.param({"basic_auth_password": SecretStr("x")}, "MASKLOOP_BASIC_AUTH_USER", id="no user"),
        pytest.param(
            {"basic_auth_user": "a:b", "basic_auth_password": SecretStr("x")}, "colon", id="a colon"
        ),
    ],
)
def test_basic_auth_half_set_is_refused_at_start(make_services, changes, words):
    with pytest.raises(ConfigurationError, match=words):
        create_app(make_services(**changes))


@pytest.mark.parametrize("path", ["/health", "/webhook", "/metrics", "/", "/docs", "/made-up"])
def test_basic_auth_guards_every_path(make_services, caplog, path):
    services = make_services(basic_auth_user="me", basic_auth_password=SecretStr("pass:wörd"))
    with TestClient(create_app(services)) as client:
        answers = [client.get(path), client.get(path, auth=("me", "guess"))]
        right = client.get(path, auth=("me", "pass:wörd"))
        latin = base64.b64encode("me:pass:wörd".encode("latin-1")).decode()
        of_requests = client.get(path, headers={"Authorization": f"basic {latin}"})
    assert [answer.status_code for answer in answers] == [401, 401]
    assert answers[0].headers["WWW-Authenticate"].startswith("Basic ")
    assert 401 not in (right.status_code, of_requests.status_code)
    assert "guess" not in caplog.text + answers[1].text


@pytest.mark.parametrize("header", ["Basic", "Basic !!!", "Bearer x", "Basic " + "A" * 4001])
def test_basic_auth_strange_header_is_refused(make_services, header):
    services = make_services(basic_auth_user="me", basic_auth_password=SecretStr("x"))
    with TestClient(create_app(services)) as client:
        assert client.get("/health", headers={"Authorization": header}).status_code == 401


def test_route_that_is_not_served_says_so(client):
    for answer in (client.get("/made-up"), client.get("/webhook"), client.delete("/health")):
        assert answer.status_code in (404, 405)
        assert "expected" in answer.json()["error"]
        assert "made-up" not in answer.text


def test_job_status_unknown_job_is_refused(client):
    assert client.post("/job_status", json={"job": "training-99"}).status_code == 422


@pytest.mark.parametrize("route", ["/delete", "/duplicate_model"])
def test_route_without_work_answers(client, route):
    body = {"project": "1.17", "project_src": "1.17", "project_dst": "2.17"}
    assert client.post(route, json=body).json() == {"status": "ok"}


def test_metrics_and_status_page_tell_what_waits(client, secret):
    client.post("/webhook", json=webhook_event(), headers=secret)
    told = client.get("/metrics").text
    assert 'maskloop_jobs{status="waiting"} 1.0' in told
    assert 'maskloop_requests_total{route="/webhook",status="200"} 1.0' in told
    assert "waiting" in client.get("/").text


def test_metrics_and_their_documentation_name_the_same(client):
    page = (REPOSITORY / "docs" / "metrics.md").read_text()
    documented = {
        name
        for row in re.findall(r"^\| (`maskloop_.*?) \|", page, re.MULTILINE)
        for name in re.findall(r"`(\w+)`", row)
    }
    served = set(re.findall(r"^# HELP (maskloop_\w+)", client.get("/metrics").text, re.MULTILINE))
    assert {name for name in served if not name.endswith("_created")} == documented


def test_swap_of_the_champion_drops_no_request(client, services, tiny_model):
    _wait_for_model(client)
    from maskloop_studio.projects.training import model_name

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


TRAFFIC = SHARED / "label-studio" / "traffic"


@pytest.mark.skipif(not TRAFFIC.is_dir(), reason="no recorded traffic at hand")
def test_recorded_traffic_is_answered_in_time(client, services, secret, credentials):
    _wait_for_model(client)
    for path in sorted(TRAFFIC.glob("*.json")):
        recorded = json.loads(path.read_text())
        body = json.dumps(recorded["body"]) if recorded["body"] else None
        answer = client.request(
            recorded["method"],
            recorded["path"],
            content=body,
            headers=recorded["headers"] | secret,
            auth=credentials,
        )
        assert answer.status_code == 200, (path.name, answer.text)
        if recorded["path"] == "/predict":
            assert len(answer.json()["results"]) == len(recorded["body"]["tasks"])
    # Beside the events: a job for the tasks whose images are not to be had here.
    kinds = Counter(job.kind for job in services.store.jobs.find())
    assert kinds == {"event": 4, "training": 1, "prelabel": 1}
    assert sorted(name.split("-")[0] for name in _drained(services, 5)) == ["event"] * 4 + ["training"]
