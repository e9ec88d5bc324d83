"""How fast the project's page is: `python -m tests.benchmarks.dashboard_scale --versions 200 --tasks 100000`.

Versions in MLflow (with files of a few bytes), rows in SQLite, the real server on loopback, Chromium without
a cache. No model answers meanwhile.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import uvicorn
from tests.acceptance.conftest import CHROMIUM_FLAGS, find_chromium
from tests.fakes.looped_project import CONFIG, PROJECT, fill_rows, make_services
from tests.waiting import until

from maskloop.learning.registry import MlflowRegistry
from maskloop.processes import find_free_port
from maskloop.settings import Settings
from maskloop.types import HoldoutMetrics
from maskloop_studio.serving.app import create_app

NAME = f"maskloop-{PROJECT}"
PARTS = ("", "/versions", "/labels", "/next")
PAINT = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"


def _register(registry: MlflowRegistry, folder: Path, versions: int) -> None:
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_text("x")
    metrics = HoldoutMetrics(ap50=0.5, pq=0.4, miou=0.6, images=24)
    for number in range(1, versions + 1):
        registry.register(
            NAME, folder, labels=("disc",), metrics=metrics, parent=number - 1 or None, metadata={"seed": "0"}
        )
    registry.promote(NAME, 1)


def _fetch_s(url: str) -> float:
    """Return the seconds until the answer is there; a report that is still being made is asked for again."""
    started = time.perf_counter()
    while True:
        try:
            urllib.request.urlopen(url, timeout=300).read()
        except urllib.error.HTTPError as error:
            if error.code != 503:
                raise
            time.sleep(0.1)
        else:
            return time.perf_counter() - started


def _paints_s(url: str, repeats: int) -> list[float]:
    from playwright.sync_api import sync_playwright

    found = []
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=find_chromium(), args=list(CHROMIUM_FLAGS))
        for _ in range(repeats):
            page = browser.new_context().new_page()
            page.goto(url)
            until(lambda page=page: page.evaluate(f"{PAINT} > 0"), 60)
            found.append(page.evaluate(PAINT) / 1000)
            page.context.close()
        browser.close()
    return found


def main() -> None:
    """Print JSON: seconds of each part, first and later calls, and of the first paint."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--versions", type=int, default=200)
    parser.add_argument("--tasks", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--edits", action="store_true", help="also the report of edits")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch)
        services = make_services(Settings(home=home), model=str(home / "none"))
        registry = MlflowRegistry(f"sqlite:///{home / 'mlflow.db'}", home / "artifacts")
        services.registry = registry
        _register(registry, home / "checkpoint", options.versions)
        services.store.projects.save(PROJECT, CONFIG)
        fill_rows(services.store, versions=options.versions, tasks=options.tasks)
        port = find_free_port()
        server = uvicorn.Server(uvicorn.Config(create_app(services), port=port, log_level="error"))
        thread = threading.Thread(target=server.run)
        thread.start()
        while not server.started:
            time.sleep(0.05)
        base = f"http://127.0.0.1:{port}/dashboard/projects/{PROJECT}"
        try:
            seconds = {}
            for part in (*PARTS, *(("/edits",) if options.edits else ())):
                first, *later = (_fetch_s(f"{base}{part}") for _ in range(options.repeats + 1))
                seconds[part or "page"] = {"first": first, "median": statistics.median(later)}
            paints = _paints_s(base, options.repeats)
        finally:
            server.should_exit = True
            thread.join()
        result = {"versions": options.versions, "tasks": options.tasks, "seconds": seconds}
        print(json.dumps(result | {"first_paint_s": sorted(paints)}, indent=1))


if __name__ == "__main__":
    main()
