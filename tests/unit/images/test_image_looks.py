"""An image is looked at once, whoever asks for it, and again when its content or model changes."""

from concurrent.futures import Future, ThreadPoolExecutor
from types import SimpleNamespace

import pytest
from tests.unit.images.conftest import MODEL

from maskloop.errors import ImageError
from maskloop_studio.images.time_limit import TimeLimit


def test_look_twice_is_one_forward_pass(parts, make_looked):
    first, second = (parts.looks.look(make_looked(), TimeLimit(20)) for _ in range(2))
    assert first is second
    assert parts.engine.submitted == 1


def test_look_while_another_looks_waits_for_it(parts, make_looked):
    parts.engine.may_go.clear()
    with ThreadPoolExecutor(4) as threads:
        waiting = [threads.submit(parts.looks.look, make_looked(), TimeLimit(20)) for _ in range(4)]
        while not parts.engine.submitted:
            pass
        parts.engine.may_go.set()
        assert len({id(one.result()) for one in waiting}) == 1
    assert parts.engine.submitted == 1


def test_look_after_a_prediction_uses_its_features(parts, make_looked):
    use_output, end = parts.looks.observer(make_looked(), b"first")
    assert parts.looks.observer(make_looked(), b"first") is None, "it is being made"
    use_output(SimpleNamespace(model=MODEL), None)
    predicted = Future()
    predicted.set_result([object()])
    end(predicted)
    assert parts.looks.known(make_looked()) is not None
    assert parts.looks.look(make_looked(), TimeLimit(20)) is not None
    assert parts.engine.submitted == 0


def test_look_at_what_cannot_be_fetched_or_predicted_names_the_error(parts, make_looked):
    with pytest.raises(ImageError):
        parts.looks.look(make_looked("missing"), TimeLimit(20))
    parts.engine.fails = True
    for _ in range(2):  # nothing is kept of a failure
        with pytest.raises(ImageError):
            parts.looks.look(make_looked(), TimeLimit(20))
    assert parts.engine.submitted == 2


def test_look_after_forget_sees_the_new_content(parts, make_looked):
    first = parts.looks.look(make_looked(), TimeLimit(20))
    parts.files["a"] = b"changed"
    assert parts.looks.look(make_looked(), TimeLimit(20)) is first, "the address is trusted for a while"
    parts.looks.forget(make_looked())
    assert parts.looks.look(make_looked(), TimeLimit(20)) is not first


def test_look_with_another_model_is_another_look(parts, make_looked):
    parts.looks.look(make_looked(), TimeLimit(20))
    assert parts.looks.known(make_looked(source="n")) is None
    parts.looks.drop_model("m")
    assert parts.looks.known(make_looked()) is None


def test_look_that_ends_after_its_model_was_dropped_is_answered_and_not_kept(parts, make_looked):
    parts.engine.may_go.clear()
    with ThreadPoolExecutor(2) as threads:
        old, new = (
            threads.submit(parts.looks.look, make_looked(source=name), TimeLimit(20)) for name in "mn"
        )
        while parts.engine.submitted < 2:
            pass
        parts.looks.drop_model("m")
        parts.engine.may_go.set()
        assert old.result() is not None
        assert new.result() is not None
    assert parts.looks.known(make_looked()) is None
    assert parts.looks.known(make_looked(source="n")) is not None


def test_look_limit_that_comes_first_is_no_answer(parts, make_looked):
    parts.engine.may_go.clear()
    assert parts.looks.look(make_looked(), TimeLimit(0.2)) is None
    parts.engine.may_go.set()
