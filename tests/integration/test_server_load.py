"""A real server whose model is slow: predictions are bounded, and nothing else waits for them."""

import contextlib
import json
import re
import socket
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ClassVar

import httpx
import pytest
import uvicorn
from tests.waiting import until

from maskloop.hit_counter import HitCounter
from maskloop.processes import find_free_port
from maskloop.types import Prediction
from maskloop_studio.serving.app import create_app
from maskloop_studio.serving.http.connections import GuardedConnection

CONFIG = (
    '<View><Image name="image" value="$image"/><BrushLabels name="brush" toName="image">'
    '<Label value="Car"/></BrushLabels></View>'
)
PATIENCE_S = 60.0
AT_ONCE, WAITING = 2, 1


class SlowEngine:
    """Takes every image and answers the first `quick` of them; the rest when it is let go."""

    max_batch = 8
    held = ()
    model_lookups = HitCounter()
    queued = 0
    shape_engines: ClassVar = {}  # what runs each size; none does here

    def __init__(self, quick=0):
        self.quick = quick
        self.futures = []
        self.lock = threading.Lock()

    def load(self, _source):
        return self

    labels = ("Car",)

    def submit(self, images, **_others):
        future = Future()
        with self.lock:
            self.futures.append(future)
            number = len(self.futures)
        if number <= self.quick:
            future.set_result([_prediction()])
        return future

    def let_go(self):
        self.quick = 10**9
        with self.lock:
            for future in self.futures:
                if not future.done():
                    future.set_result([_prediction()])

    def close(self):
        pass


class OneImage:
    """A fetcher whose images are never decoded: the engine is not real."""

    lookups = HitCounter()

    def fetch_many(self, uris, *, task_ids, limit):
        return [b"" for _ in uris]

    def close(self):
        pass


def _prediction():
    return Prediction(segments=(), size_hw=(8, 8), confidence=0.5)


@pytest.fixture
def engine():
    return SlowEngine()


@pytest.fixture
def services(make_services, engine):
    made = make_services(predict_requests=AT_ONCE, predict_waiting=WAITING, predict_deadline_s=PATIENCE_S)
    made.engine, made.fetcher = engine, OneImage()
    made.store.projects.save(1, CONFIG)
    return made


@contextlib.contextmanager
def _serving(services):
    port = find_free_port()
    app = create_app(services, bind_host="127.0.0.1")
    config = uvicorn.Config(app, port=port, log_level="error", lifespan="on", http=GuardedConnection)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        until(lambda: server.started, PATIENCE_S)
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_S, trust_env=False) as client:
            yield client
    finally:
        services.engine.let_go()
        server.should_exit = True
        thread.join()


def _in_hand(client):
    """How many predictions the status page shows as in hand or waiting."""
    return int(re.search(rf"<td>(\d+)</td><td>{AT_ONCE}</td>", client.get("/").text)[1])


def _body(tasks=1):
    return {
        "tasks": [{"id": number, "data": {"image": "a"}} for number in range(1, tasks + 1)],
        "project": "1.17",
        "label_config": CONFIG,
        "params": {},
    }


def _event(number):
    return {
        "action": "ANNOTATION_CREATED",
        "project": {"id": 1},
        "annotation": {"id": number, "updated_at": "2026-11-22T05:28:02.703265Z"},
    }


def test_all_slots_held_leaves_webhook_health_setup_and_status_alone(services, engine):
    secret = {"X-Maskloop-Secret": services.store.projects.webhook_secret()}
    with _serving(services) as client, ThreadPoolExecutor(AT_ONCE + WAITING) as pool:
        held = [pool.submit(client.post, "/predict", json=_body()) for _ in range(AT_ONCE + WAITING)]
        until(lambda: len(engine.futures) == AT_ONCE, PATIENCE_S)
        until(lambda: _in_hand(client) == AT_ONCE + WAITING, PATIENCE_S)
        answers = [client.post("/webhook", json=_event(number), headers=secret) for number in range(1, 30)]
        answers += [client.get(path) for path in ("/health", "/versions", "/", "/metrics")]
        answers += [client.post("/setup", json={"project": "1.17", "schema": CONFIG})]
        assert {answer.status_code for answer in answers} == {200}
        assert not any(request.done() for request in held), "all of this while every slot is held"
        assert services.store.jobs.counts() == {"waiting": 29}
        engine.let_go()
        assert {request.result().status_code for request in held} == {200}


def test_more_predictions_than_slots_and_places_get_503_with_retry_after(services, engine):
    with _serving(services) as client, ThreadPoolExecutor(AT_ONCE + WAITING) as pool:
        held = [pool.submit(client.post, "/predict", json=_body()) for _ in range(AT_ONCE + WAITING)]
        until(lambda: _in_hand(client) == AT_ONCE + WAITING, PATIENCE_S)
        refused = client.post("/predict", json=_body())
        assert refused.status_code == 503
        assert int(refused.headers["Retry-After"]) > 0
        assert "MASKLOOP_PREDICT_REQUESTS" in refused.json()["error"]
        engine.let_go()
        assert {request.result().status_code for request in held} == {200}
        assert client.post("/predict", json=_body()).status_code == 200


def _send_predict(stack, client):
    content = json.dumps(_body()).encode()
    address = (client.base_url.host, client.base_url.port)
    connection = stack.enter_context(socket.create_connection(address))
    connection.sendall(
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%s" % (len(content), content)
    )


def test_clients_that_are_gone_give_their_slots_back(services, engine):
    with _serving(services) as client:
        for round_number in (1, 2, 3):
            with contextlib.ExitStack() as stack:
                for _ in range(AT_ONCE + WAITING):
                    _send_predict(stack, client)
                until(lambda n=round_number: len(engine.futures) == n * AT_ONCE, PATIENCE_S)
            until(lambda: all(future.cancelled() for future in engine.futures), PATIENCE_S)
            until(lambda: _in_hand(client) == 0, PATIENCE_S)
        engine.let_go()
        assert client.post("/predict", json=_body()).status_code == 200


@pytest.mark.parametrize("quick", [0, 1, 7])
def test_retrieve_predictions_of_a_slow_model_answers_what_is_done_by_the_deadline(
    services, engine, caplog, quick
):
    engine.quick = quick
    services.settings = services.settings.model_copy(update={"predict_deadline_s": 1.0})
    with _serving(services) as client:
        started = time.monotonic()
        answer = client.post("/predict", json=_body(20))
        assert answer.status_code == 200
        assert time.monotonic() - started < PATIENCE_S / 2, "the model never answers the rest"
        results = answer.json()["results"]
        assert len(results) == 20
        assert sum(entry != [] for entry in results) == quick
        until(lambda: services.queue.lengths().get("predict"), PATIENCE_S)
        (job,) = services.store.jobs.find()
        assert job.action == f"{20 - quick} of 20 tasks of a request were left at its deadline"
        assert job.action in client.get("/").text
    assert f"tasks_left={20 - quick}" in caplog.text
