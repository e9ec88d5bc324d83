"""Large bodies are read in a process of their own."""

import json
import os
import signal
import threading
from pathlib import Path

import pytest
from tests.fakes.events import annotation, webhook_event
from tests.waiting import until

from maskloop_studio.errors import OverloadedError, TooLargeError, UnreadableError
from maskloop_studio.labelstudio.protocol import PredictRequest, WebhookEvent
from maskloop_studio.serving.http.json_reader import JsonReader

MOST = 128 * 2**20


@pytest.fixture(scope="module")
def predictions():
    reader = JsonReader("predict")
    yield reader
    reader.close()


def _tasks(count, **data):
    return json.dumps({"tasks": [{"id": n, "data": {"n": n, **data}} for n in range(count)]}).encode()


@pytest.mark.parametrize("count", [1, 8_000], ids=["small, here", "large, in the process"])
def test_read_any_size_gives_what_pydantic_gives(predictions, count):
    body = _tasks(count, image="\u00e9\u2603", odd=1e999, deep=[[{"a": None}]], many=10**30)
    found = predictions.read(PredictRequest, body, max_tree_bytes=MOST)
    assert found == PredictRequest.model_validate_json(body)
    assert (predictions.pid is None) == (count == 1)


def test_read_large_event_keeps_its_numbers_only():
    reader = JsonReader("webhook")
    body = json.dumps(webhook_event(annotation=annotation(result=[{"id": "r"}] * 20_000))).encode()
    try:
        event = reader.read(WebhookEvent, body, skip_numbers=True, max_tree_bytes=MOST)
    finally:
        reader.close()
    assert event.annotation.id == 5


@pytest.mark.parametrize(
    ("body", "error"),
    [
        pytest.param(b"[" * 200_000, UnreadableError, id="deep"),
        pytest.param(_tasks(1, x="a" * 200_000)[:-9], UnreadableError, id="cut off"),
        pytest.param(_tasks(1, x=[[]] * 100_000), TooLargeError, id="one task of many lists"),
        pytest.param(_tasks(5, x=[[]] * 200_000), TooLargeError, id="more than the budget"),
    ],
)
def test_read_hostile_body_is_refused_and_the_next_is_read(predictions, body, error):
    with pytest.raises(error, match="predict"):
        predictions.read(PredictRequest, body, max_tree_bytes=MOST)
    assert len(predictions.read(PredictRequest, _tasks(5_000), max_tree_bytes=MOST).tasks) == 5_000


def test_read_process_that_was_killed_is_started_again(predictions):
    predictions.start()
    before = predictions.pid
    os.kill(before, signal.SIGKILL)
    until(lambda: Path(f"/proc/{before}/stat").read_text().split()[2] == "Z", 5)
    assert len(predictions.read(PredictRequest, _tasks(5_000), max_tree_bytes=MOST).tasks) == 5_000
    assert predictions.pid != before


def test_read_process_that_is_killed_meanwhile_is_503():
    reader = JsonReader("predict")
    reader.start()
    os.kill(reader.pid, signal.SIGSTOP)
    threading.Timer(2.0, os.kill, (reader.pid, signal.SIGKILL)).start()
    try:
        with pytest.raises(OverloadedError, match="it was ended"):
            reader.read(PredictRequest, _tasks(5_000), max_tree_bytes=MOST)
    finally:
        reader.close()


def test_read_process_that_hangs_is_killed_at_the_deadline_and_others_do_not_wait_long():
    reader = JsonReader("predict", deadline_s=1.5, patience_s=0.2)
    reader.start()
    os.kill(reader.pid, signal.SIGSTOP)
    errors = []

    def read():
        try:
            reader.read(PredictRequest, _tasks(5_000), max_tree_bytes=MOST)
        except (TooLargeError, OverloadedError) as exc:
            errors.append(type(exc))

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert errors == [OverloadedError, TooLargeError]
    assert reader.pid is None


def test_close_ends_the_process():
    reader = JsonReader("webhook")
    reader.start()
    pid = reader.pid
    reader.close()
    until(lambda: not Path(f"/proc/{pid}").exists(), 5)
