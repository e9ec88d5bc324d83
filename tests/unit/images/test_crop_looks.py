"""Crops are looked at in the background, one of an image at a time, kept under their content and model."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.waiting import until

from maskloop.segmentation.upsample import Window
from maskloop_studio.images.crop_looks import MOST_PENDING
from maskloop_studio.images.time_limit import TimeLimit

LEFT, RIGHT = (Window(top=0, left=left, bottom=20, right=left + 20) for left in (0, 20))


@pytest.fixture
def looked(parts, make_looked):
    """Return an image whose first look is over."""
    parts.looks.look(make_looked(), TimeLimit(20))
    return make_looked()


def _is_idle(parts):
    return not parts.looks._crops._pending


def test_look_closer_is_there_a_moment_later_and_was_not_urgent(parts, looked):
    assert parts.looks.known(looked, LEFT) is None
    assert parts.looks.look_closer(looked, LEFT) == "begun"
    until(lambda: parts.looks.known(looked, LEFT) is not None, 20)
    assert parts.looks.known(looked, RIGHT) is None
    assert (parts.engine.windows, parts.engine.urgent) == ([None, LEFT], [True, False])
    until(lambda: parts.memory.held_bytes == 0, 20)


def test_look_closer_from_many_threads_is_one_crop_of_an_image(parts, looked):
    parts.engine.crops_may_go.clear()
    with ThreadPoolExecutor(16) as threads:
        states = list(threads.map(lambda _: parts.looks.look_closer(looked, LEFT), range(200)))
    assert (states.count("begun"), states.count("pending")) == (1, 199)
    assert parts.looks.look_closer(looked, RIGHT) == "pending", "another part of the same image"
    parts.engine.crops_may_go.set()
    until(lambda: _is_idle(parts), 20)
    assert parts.looks.look_closer(looked, RIGHT) == "begun"


def test_look_does_not_wait_for_a_crop_that_is_fetched_or_made(parts, looked, make_looked):
    parts.engine.crops_may_go.clear()
    fetch, may_fetch = parts.fetcher.fetch_many, threading.Event()
    parts.fetcher.fetch_many = lambda uris, **given: (may_fetch.wait(20), fetch(uris, **given))[1]
    parts.looks.look_closer(looked, LEFT)
    assert parts.looks.known(looked) is not None, "the click is answered from the whole image"
    may_fetch.set()
    until(lambda: LEFT in parts.engine.windows, 20)
    assert parts.looks.look(make_looked("b"), TimeLimit(20)) is not None
    assert not parts.engine.futures[1].done(), "the crop is still being made"


def test_look_closer_crops_of_all_images_are_bounded(parts, make_looked):
    parts.engine.crops_may_go.clear()
    images = [make_looked(str(number)) for number in range(MOST_PENDING + 1)]
    for number, image in enumerate(images):
        parts.files[str(number)] = b"%d" % number
        parts.looks.look(image, TimeLimit(20))
    states = [parts.looks.look_closer(image, LEFT) for image in images]
    assert states == ["begun"] * MOST_PENDING + ["busy"]


def test_look_closer_without_memory_for_the_file_does_not_wait(parts, looked):
    parts.memory.acquire(parts.memory.total_bytes)
    assert parts.looks.look_closer(looked, LEFT) == "busy"
    parts.memory.release(parts.memory.total_bytes)
    assert parts.looks.look_closer(looked, LEFT) == "begun"


def test_look_closer_where_the_cache_has_no_room_for_both_begins_nothing(parts, looked):
    parts.cache._max_bytes = 19  # features of an image and of a part count 10 each
    assert parts.looks.look_closer(looked, LEFT) == "busy"
    parts.cache._max_bytes = 20
    assert parts.looks.look_closer(looked, LEFT) == "begun"


def test_look_closer_content_that_changed_gives_no_crop_and_a_new_look(parts, looked):
    before = parts.looks.known(looked)
    parts.files["a"] = b"changed"
    parts.looks.look_closer(looked, LEFT)
    until(lambda: _is_idle(parts) and parts.looks.known(looked) is None, 20)
    assert parts.looks.look(looked, TimeLimit(20)) is not before
    assert parts.looks.known(looked, LEFT) is None
    assert parts.engine.windows == [None, None]


@pytest.mark.parametrize("is_running", [True, False], ids=["running", "queued"])
@pytest.mark.parametrize("drop", ["model", "image"])
def test_look_closer_what_is_dropped_meanwhile_is_not_kept(parts, looked, drop, is_running):
    parts.engine.crops_may_go.clear()
    parts.engine.starts_at_once = is_running
    parts.looks.look_closer(looked, LEFT)
    (crop,) = parts.looks._crops._pending.values()
    until(lambda: crop.predicted is not None and crop.predicted.running() is is_running, 20)
    if drop == "model":
        parts.looks.drop_model("m")
    else:
        parts.looks.forget(looked)
    assert crop.predicted.cancelled() is not is_running
    parts.engine.crops_may_go.set()
    until(lambda: parts.engine.futures[1].done() and parts.memory.held_bytes == 0, 20)
    assert (len(parts.cache), parts.cache.held_bytes) == (0, 0)


def test_look_closer_that_fails_is_one_warning_and_may_be_tried_again(parts, looked, caplog):
    parts.engine.fails = True
    parts.looks.look_closer(looked, LEFT)
    until(lambda: _is_idle(parts), 20)
    del parts.files["a"]
    parts.looks.look_closer(looked, LEFT)
    until(lambda: _is_idle(parts) and parts.memory.held_bytes == 0, 20)
    until(lambda: caplog.text.count("crop_not_looked_at") >= 2, 20)  # the line comes last
    assert caplog.text.count("crop_not_looked_at") == 2
    assert parts.looks.known(looked, LEFT) is None
    assert parts.looks.known(looked) is not None
