"""Pauses of the interpreter."""

import gc
import os
import subprocess
import sys
import weakref

import pytest

from maskloop_studio.serving import pauses
from maskloop_studio.serving.pauses import ShortCollections, freeze_heap, switch_often


@pytest.fixture
def collections(monkeypatch):
    """Every full collection is a long one."""
    monkeypatch.setattr(pauses, "LONG_S", 0.0)
    gc.collect()
    found = ShortCollections()
    found.start()
    yield found
    found.stop()
    gc.unfreeze()


class _Ring:
    def __init__(self):
        self.me = self


def test_freeze_heap_later_collections_pass_over_what_lived():
    freeze_heap()
    try:
        assert gc.get_freeze_count() > 10_000
        assert len(gc.get_objects()) < 1_000
    finally:
        gc.unfreeze()


def test_short_collections_what_survived_a_long_one_is_passed_over(collections):
    kept = [[] for _ in range(1000)]
    gc.collect()
    assert not {id(one) for one in kept} & {id(one) for one in gc.get_objects()}


def test_short_collections_quick_ones_leave_all_in_place(collections, monkeypatch):
    monkeypatch.setattr(pauses, "LONG_S", 60.0)
    kept = [[] for _ in range(1000)]
    gc.collect()
    assert {id(one) for one in kept} <= {id(one) for one in gc.get_objects()}


def test_short_collections_dead_ring_is_found_at_the_next_look_at_all(collections):
    ring = _Ring()
    gc.collect()
    watched = weakref.ref(ring)
    del ring
    gc.collect()
    assert watched() is not None
    collections.look_at_all()
    gc.collect()
    assert watched() is None


def test_short_collections_look_at_all_by_themselves_in_the_end(collections, monkeypatch):
    monkeypatch.setattr(pauses, "FREEZES", 3)
    ring = _Ring()
    gc.collect()
    watched = weakref.ref(ring)
    del ring
    for _ in range(3):
        gc.collect()
    assert watched() is None


def test_switch_often_is_below_a_millisecond():
    before = sys.getswitchinterval()
    try:
        switch_often()
        assert sys.getswitchinterval() < 0.001
    finally:
        sys.setswitchinterval(before)


def test_server_of_its_own_does_both_once_its_model_is_loaded(tmp_path):
    code = """
import gc, sys, time
from fastapi.testclient import TestClient
from maskloop.settings import load_settings
from maskloop_studio.serving.app import create_app
from maskloop_studio.services import Services
app = create_app(Services(load_settings()), bind_host="127.0.0.1")
with TestClient(app, base_url="http://127.0.0.1") as client:
    while client.get("/health").json()["model"]["state"] == "loading":
        time.sleep(0.1)
    print(gc.get_freeze_count() > 100_000, sys.getswitchinterval() < 0.001)
"""
    environment = {**os.environ, "MASKLOOP_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["True", "True"]
