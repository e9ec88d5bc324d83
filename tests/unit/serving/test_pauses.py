"""Pauses of the interpreter."""

import gc
import os
import subprocess
import sys

from maskloop_studio.serving.pauses import freeze_heap, switch_often


def test_freeze_heap_later_collections_pass_over_what_lived():
    freeze_heap()
    try:
        assert gc.get_freeze_count() > 10_000
        assert len(gc.get_objects()) < 1_000
    finally:
        gc.unfreeze()


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
