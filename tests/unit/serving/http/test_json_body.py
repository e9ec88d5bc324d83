"""Bytes -> a typed request, at a bounded cost."""

import json
import re

import pytest
from tests.fakes.events import annotation, webhook_event

from maskloop_studio.errors import TooLargeError, UnreadableError
from maskloop_studio.labelstudio.protocol import PredictRequest, WebhookEvent
from maskloop_studio.serving.http.json_body import (
    WINDOW_BYTES,
    _without_long_numbers,
    has_prompt,
    parse_json,
    request_schema,
    shorten_tasks,
    tree_bytes,
)


def _body(**fields):
    return json.dumps(webhook_event(annotation=annotation(**fields))).encode()


def test_parse_json_long_numbers_are_left_unread():
    body = _body(result=[{"id": "r", "value": {"rle": list(range(100_000))}}])
    event = parse_json(WebhookEvent, body, place="webhook", skip_numbers=True, max_tree_bytes=10_000)
    assert event.annotation.id == 5


def test_parse_json_long_numbers_where_objects_belong_are_still_refused():
    body = json.dumps({"action": "X", "annotations": list(range(1000))}).encode()
    with pytest.raises(UnreadableError, match="annotations"):
        parse_json(WebhookEvent, body, place="webhook", skip_numbers=True)


@pytest.mark.parametrize(
    "text", [json.dumps(list(range(300))), "[" * 300, "\\"], ids=["list", "open", "slash"]
)
def test_parse_json_numbers_inside_a_text_change_nothing_that_is_read(text):
    body = _body(comment=text, updated_at="2026-11-22T05:28:02Z")
    event = parse_json(WebhookEvent, body, place="webhook", skip_numbers=True)
    assert (event.annotation.id, event.project.id) == (5, 1)


@pytest.mark.parametrize("body", [b"[[],[],[]]", b'[{"a":1}]', b"[1,2,3,4,5]"])
def test_parse_json_costly_tree_is_refused_before_it_is_built(body):
    with pytest.raises(TooLargeError, match="fewer"):
        parse_json(WebhookEvent, body, place="webhook", max_tree_bytes=200)


def test_parse_json_error_repeats_nothing_of_the_input():
    body = json.dumps({"tasks": [{"id": "canary-1", "data": "canary-2"}]}).encode()
    with pytest.raises(UnreadableError) as caught:
        parse_json(PredictRequest, body, place="predict")
    assert "tasks.0.id" in str(caught.value)
    assert "canary" not in str(caught.value)


def test_request_schema_stands_alone():
    text = json.dumps(request_schema(WebhookEvent))
    assert "updated_at" in text
    assert "$ref" not in text
    assert "$defs" not in text


@pytest.mark.parametrize("at", [0, WINDOW_BYTES - 258, WINDOW_BYTES - 1, WINDOW_BYTES, 3 * WINDOW_BYTES + 5])
@pytest.mark.parametrize("count", [100, 300, WINDOW_BYTES, 2 * WINDOW_BYTES])
def test_without_long_numbers_equals_one_search_of_the_whole(at, count):
    numbers = b"[" + b",".join([b"7"] * count) + b"]"
    body = (
        b'{"a":"' + b"x" * at + b'","b":' + numbers + b',"c":[' + b"1, " * 200 + b'"d"],"e":' + numbers + b"}"
    )
    whole = re.sub(rb"\[[0-9,\s.\-]{256,}+\]", b"[0]", body)
    assert _without_long_numbers(body) == whole


@pytest.mark.parametrize(
    ("context", "is_prompt"),
    [
        pytest.param({"result": []}, True, id="a context with a key"),
        pytest.param({"event": "prewarm"}, True, id="an event"),
        pytest.param({}, False, id="the host's empty one"),
        pytest.param(None, False, id="null"),
    ],
)
def test_has_prompt_is_seen_without_parsing(context, is_prompt):
    body = {"tasks": [{"data": {"image": "x"}}], "params": {"login": None, "context": context}}
    assert has_prompt(json.dumps(body).encode()) is is_prompt
    assert has_prompt(json.dumps(body, indent=2).encode()) is is_prompt


@pytest.mark.parametrize(
    "before", [0, WINDOW_BYTES - 9, WINDOW_BYTES - 1, WINDOW_BYTES, 2 * WINDOW_BYTES - 4]
)
def test_has_prompt_is_seen_wherever_it_stands(before):
    assert has_prompt(b" " * before + b'"context": {"result": []}')


@pytest.mark.parametrize("length", [0, 1, WINDOW_BYTES - 1, WINDOW_BYTES, 2 * WINDOW_BYTES + 1])
def test_tree_bytes_counts_every_character_once(length):
    assert tree_bytes(b"[" * length) == length * tree_bytes(b"[")


def test_shorten_tasks_leaves_the_prompt_and_cuts_the_tasks_masks():
    mask = list(range(5000))
    regions = [{"value": {"rle": mask}} for _ in range(100)]
    body = {
        "tasks": [{"id": 1, "data": {"image": "x"}, "annotations": [{"result": regions}]}],
        "params": {"context": {"result": [{"type": "brush", "value": {"rle": mask}}]}},
    }
    raw = json.dumps(body).encode()
    short = shorten_tasks(raw)
    assert len(short) < len(raw) / 50
    read = json.loads(short)
    assert read["params"] == body["params"]
    assert read["tasks"][0]["data"] == {"image": "x"}
