"""Prediction requests that are small as text and large as work."""

import json
from types import SimpleNamespace

import pytest

from maskloop.memory_budget import MemoryBudget
from maskloop.settings import Settings
from maskloop_studio.errors import ModelLoadingError, OverloadedError, UnreadableError
from maskloop_studio.images.time_limit import TimeLimit
from maskloop_studio.labelstudio.protocol import MAX_TASKS, PredictRequest, PredictTask
from maskloop_studio.serving.app import _tree_room
from maskloop_studio.serving.http.answers import error_response
from maskloop_studio.serving.http.json_body import parse_json, tree_bytes
from maskloop_studio.serving.model_directory import ModelDirectory
from maskloop_studio.serving.task_predictor import _RequestWork


def test_predict_request_too_many_tasks_is_refused():
    def body(count):
        return json.dumps({"tasks": [{}] * count, "label_config": ""}).encode()

    assert len(parse_json(PredictRequest, body(MAX_TASKS), place="predict").tasks) == MAX_TASKS
    with pytest.raises(UnreadableError, match=f"at most {MAX_TASKS} items"):
        parse_json(PredictRequest, body(MAX_TASKS + 1), place="predict")


def test_tree_room_requests_that_do_not_fit_together_are_refused():
    body = b"[" * 100
    trees = MemoryBudget(tree_bytes(body) + 1)
    with _tree_room(trees, body):
        with pytest.raises(OverloadedError, match="MASKLOOP_MEMORY_MB"), _tree_room(trees, body):
            pass
        assert trees.held_bytes == tree_bytes(body)
    with _tree_room(trees, body):
        assert trees.held_bytes == tree_bytes(body)
    assert trees.held_bytes == 0


def test_model_that_still_loads_is_answered_with_503_and_retry_after():
    directory = ModelDirectory(Settings(), registry=dict, engine=dict, store=dict)
    with pytest.raises(ModelLoadingError, match="still loading") as raised:
        directory.current(None, timeout_s=0.0)
    answer = error_response(raised.value)
    assert (answer.status_code, "retry-after" in answer.headers) == (503, True)


def test_request_work_limit_before_the_images_are_known_leaves_the_tasks():
    limit = TimeLimit()
    limit.end()
    tasks = [PredictTask(id=number) for number in range(3)]
    work = _RequestWork(tasks, SimpleNamespace(model_version="m"), limit, keep_features=False)
    outcome = work.outcome([])
    assert (list(outcome.left), dict(outcome.predictions), dict(outcome.failures)) == ([0, 1, 2], {}, {})
