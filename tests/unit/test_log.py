"""Every event is one line with all its facts, whatever text comes in from outside."""

import ast
import io
import json
import logging
import re
from pathlib import Path

import pytest

import maskloop
import maskloop_studio
from maskloop import log
from maskloop.log import configure_logging, log_action, log_failures

PACKAGES = [Path(module.__file__).parent for module in (maskloop, maskloop_studio)]
SOURCES = [path for package in PACKAGES for path in sorted(package.rglob("*.py"))]
RESERVED = {"time", "logger", "action", "message", "exception"}  # keys of a JSON entry
OWN_METHODS = {"debug", "info", "warning", "error", "exception", "critical", "log"}
logger = logging.getLogger("maskloop.test_log")


@pytest.fixture
def written(monkeypatch):
    """Return a function that configures a form and returns the stream that entries go to."""
    root, level = logging.getLogger(), logging.getLogger().level
    handlers = list(root.handlers)

    def configure(form):
        stream = io.StringIO()
        monkeypatch.setattr(log.sys, "stderr", stream)
        configure_logging(form)
        return stream

    yield configure
    root.handlers[:] = handlers
    root.setLevel(level)


def _calls(tree):
    return [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in ("log_action", "log_failures")
    ]


def _actions(node):
    """Return the constants that an action argument can be: one, or both ends of a condition."""
    if isinstance(node, ast.IfExp):
        return [*_actions(node.body), *_actions(node.orelse)]
    return [node.value] if isinstance(node, ast.Constant) else [None]


def test_log_calls_name_actions_in_snake_case_and_facts_by_keyword():
    wrong, count = [], 0
    for path in SOURCES:
        if path.name == "log.py":
            continue
        for call in _calls(ast.parse(path.read_text())):
            count += 1
            positional = {"log_action": 2, "log_failures": 3}[call.func.id]
            names = {keyword.arg for keyword in call.keywords}
            good = len(call.args) == positional and not names & RESERVED
            good &= all(isinstance(a, str) and re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", a)
                        for a in _actions(call.args[1]))  # fmt: skip
            if not good:
                wrong.append(f"{path}:{call.lineno}")
    assert wrong == []
    assert count > 40


def test_modules_log_through_log_action_alone():
    wrong = [
        f"{path}:{node.lineno}"
        for path in SOURCES
        if path.name != "log.py"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in OWN_METHODS
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id in ("logger", "_LOG", "logging")
    ]
    assert wrong == []


FACTS = {"model_version": "m-v2", "duration_s": 1.25, "tasks": 3, "error": 'two "words"', "none": None}


def test_log_action_text_prints_every_fact(written):
    stream = written("text")
    log_action(logger, "model_loaded", **FACTS)
    line = stream.getvalue()
    expected = "model_loaded model_version=m-v2 duration_s=1.250 tasks=3 error=\"two 'words'\" none=None\n"
    assert line.endswith(f"maskloop.test_log {expected}")


def test_log_action_json_prints_every_fact(written):
    stream = written("json")
    log_action(logger, "model_loaded", level=logging.WARNING, **FACTS)
    entry = json.loads(stream.getvalue())
    assert entry | FACTS == entry
    assert (entry["action"], entry["level"], entry["logger"]) == (
        "model_loaded",
        "warning",
        "maskloop.test_log",
    )


HOSTILE = [
    pytest.param("a\nb 2026 ERROR forged", id="newline"),
    pytest.param("a\rb", id="carriage return"),
    pytest.param("\x1b[31mred\x1b[0m", id="ESC"),
    pytest.param("\x1b]0;title\x07", id="OSC"),
    pytest.param("\x9b31m", id="C1 control"),
    pytest.param("\u202eevil\u2066", id="bidirectional"),
    pytest.param("a\u2028b\u2029c\x85d", id="line separators"),
    pytest.param("zero\u200bwidth\ufeff", id="zero width"),
    pytest.param("lone \ud800 surrogate", id="surrogate"),
    pytest.param("NUL \x00", id="NUL"),
]


@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize("text", HOSTILE)
def test_log_action_hostile_text_is_one_printable_line(written, form, text):
    stream = written(form)
    log_action(logger, "task_failed", error=text)
    logging.getLogger("other").warning("of a library: %s", text)
    lines = stream.getvalue().split("\n")
    assert len(lines) == 3
    assert all(line.isprintable() for line in lines)


@pytest.mark.parametrize("form", ["text", "json"])
def test_log_action_traceback_cannot_pass_for_an_entry(written, form):
    stream = written(form)
    try:
        raise ValueError("first\n2026-01-01 00:00:00,000 ERROR   maskloop forged=1\x1b[2J")
    except ValueError:
        log_action(logger, "job_failed", exc_info=True, job_id="event-1")
    lines = stream.getvalue().splitlines()
    assert "event-1" in lines[0]
    assert all(line.startswith("    | ") for line in lines[1:])
    assert "ValueError" in stream.getvalue()
    assert "\x1b" not in stream.getvalue()


def test_log_action_long_fact_is_cut_with_its_length(written):
    stream = written("text")
    log_action(logger, "task_failed", error="x" * 1_000_000)
    assert len(stream.getvalue()) < 3000
    assert "(1000000 characters)" in stream.getvalue()


def test_log_action_json_number_that_is_none_stays_json(written):
    stream = written("json")
    log_action(logger, "scored", score=float("nan"), worst=float("-inf"))
    entry = json.loads(stream.getvalue(), parse_constant=lambda name: pytest.fail(name))
    assert (entry["score"], entry["worst"]) == ("nan", "-inf")


def test_log_failures_many_are_one_line_with_counts(written):
    stream = written("text")
    failures = [(task, "no image") for task in range(100_000)] + [(7, "too large")]
    log_failures(logger, "tasks_not_predicted", failures, project_id=3)
    log_failures(logger, "tasks_not_predicted", [])
    (line,) = stream.getvalue().splitlines()
    assert "project_id=3 count=100001" in line
    assert "no image (100000 times); too large" in line
    assert len(line) < 1000
