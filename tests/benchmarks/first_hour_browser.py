"""A new user's first hour with their own photos: the README's commands, a real Label Studio, a browser.

`python -m tests.benchmarks.first_hour_browser --data FOLDER --shots docs` imports the photos of a folder in
COCO form, runs `maskloop up` and `maskloop connect --new-labels`, lets a simulated annotator correct the next
tasks that Label Studio gives, runs `maskloop train`, and looks at what annotators are shown then: regions
against objects, work saved, and a screenshot of the editor. Where a version waits for a person, `--promote`
makes it the champion by hand.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from pydantic import SecretStr
from tests.acceptance.conftest import CHROMIUM_FLAGS, find_chromium
from tests.acceptance.test_editor_screenshot import log_in, wait_until_still
from tests.paths import STUDIO_ENV

from maskloop.learning.evaluation.annotation_cost import DEFAULT_WEIGHTS, work_saved
from maskloop.learning.evaluation.fragments import count_fragments
from maskloop.learning.evaluation.region_edits import compare_segments
from maskloop.processes import find_free_port
from maskloop.settings import Settings
from maskloop.types import EditCounts
from maskloop_studio.demo.annotator import SimulatedAnnotator
from maskloop_studio.demo.images import DemoImage, coco_material
from maskloop_studio.demo.studio import RealStudio
from maskloop_studio.formats import annotation_to_segments
from maskloop_studio.formats.label_config import parse_label_config
from maskloop_studio.services import Services

STAGES = (0, 4, 8, 12)  # annotated photos
PATIENCE_S = 600.0
COLOURS = 128  # of a screenshot's palette


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.first_hour_browser", description=__doc__
    )
    parser.add_argument("--data", type=Path, required=True, help="folder in COCO form")
    parser.add_argument("--photos", type=int, default=18)
    parser.add_argument("--seed", type=int, default=0, help="of the annotator and of maskloop")
    parser.add_argument("--promote", action="store_true", help="a version that waits is promoted by hand")
    parser.add_argument("--shots", type=Path, help="folder for the screenshots")
    parser.add_argument("--json", type=Path, help="file for the rows")
    given = parser.parse_args(arguments)
    rows = run(given)
    if given.json:
        given.json.write_text(json.dumps({"rows": rows}, indent=1) + "\n")


def run(given: argparse.Namespace) -> list[dict[str, Any]]:
    """Run all stages, print a line each, and return the rows."""
    with contextlib.ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="first-hour-")))
        studio = stack.enter_context(RealStudio(home / "label-studio", env_dir=STUDIO_ENV))
        port = find_free_port()
        environment = _environment(home / "maskloop", studio, port, given.seed)
        settings = Settings(
            home=home / "maskloop",
            label_studio_url=studio.url,
            label_studio_api_key=SecretStr(studio.token),
            seed=given.seed,
        )
        services = Services(settings)
        stack.callback(services.close)
        material = coco_material(given.data, limit=given.photos)
        project = services.client.create_project("first hour", material.label_config)
        addresses = [services.client.upload_image(project.id, one.name, one.data) for one in material.images]
        tasks = services.client.import_tasks(
            project.id, [{"data": {"image": address}} for address in addresses]
        )
        images = dict(zip(tasks, material.images, strict=True))
        stack.enter_context(_up(environment, home / "up.log", port))
        connected = json.loads(_maskloop(environment, "connect", str(project.id), "--new-labels", "--json"))
        _wait_for_predictions(services, project.id, str(connected["model_version"]))
        annotator = SimulatedAnnotator(services.client, seed=given.seed)
        rows: list[dict[str, Any]] = []
        for annotated in STAGES:
            trained = ""
            if annotated:
                _annotate(annotator, services, project.id, images, annotated)
                trained = _train(environment, services, project.id, promote=given.promote)
            rows.append({"annotated": annotated, **_look(services, project.id, images), "outcome": trained})
            print(json.dumps(rows[-1]), flush=True)
            if given.shots:
                _screenshot(studio, services, project.id, given.shots / f"first-hour-{annotated}.png")
        return rows


def _environment(home: Path, studio: RealStudio, port: int, seed: int) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MASKLOOP_")}
    return kept | {
        "MASKLOOP_HOME": str(home),
        "MASKLOOP_PORT": str(port),
        "MASKLOOP_SEED": str(seed),
        "MASKLOOP_TRAIN_AFTER": "1000",  # `maskloop train` says when
        "LABEL_STUDIO_URL": studio.url,
        "LABEL_STUDIO_API_KEY": studio.token,
    }


@contextlib.contextmanager
def _up(environment: Mapping[str, str], log: Path, port: int) -> Iterator[None]:
    import httpx

    with log.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "maskloop_studio", "up", "--port", str(port)],
            env=dict(environment),
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    try:
        deadline = time.monotonic() + 120
        while True:
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200:
                    break
            if time.monotonic() > deadline or process.poll() is not None:
                raise RuntimeError(f"maskloop up does not answer: {log.read_text()[-2000:]}")
            time.sleep(0.3)
        yield
    finally:
        process.terminate()
        process.wait(60)


def _maskloop(environment: Mapping[str, str], *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "maskloop_studio", *arguments],
        env=dict(environment),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    print(f"$ maskloop {' '.join(arguments)}\n{done.stdout}{done.stderr}", file=sys.stderr, flush=True)
    if done.returncode:
        raise RuntimeError(f"maskloop {arguments[0]} ended with {done.returncode}")
    return done.stdout


def _annotate(
    annotator: SimulatedAnnotator,
    services: Services,
    project_id: int,
    images: Mapping[int, DemoImage],
    wanted: int,
) -> None:
    config = parse_label_config(services.client.project(project_id).label_config)
    while services.store.corrections.count(project_id) < wanted:
        task = services.client.next_task(project_id)
        assert task is not None, "enough photos"
        image = images[int(task["id"])]
        before = services.store.corrections.count(project_id)
        annotator.annotate(int(task["id"]), image.segments, size_hw=image.size_hw, config=config)
        _wait(lambda before=before: services.store.corrections.count(project_id) > before, "the correction")


def _train(environment: Mapping[str, str], services: Services, project_id: int, *, promote: bool) -> str:
    _maskloop(environment, "train", str(project_id))
    outcome = services.store.trainings.of(project_id)[-1].outcome or {}
    told = f"{outcome['release']}, judged by {outcome['judged_by']}: {outcome['reason']}"
    champion = str(outcome["version"] if outcome["promoted"] else outcome["base"])
    if promote and not outcome["promoted"]:
        champion = str(outcome["version"])
        _maskloop(environment, "models", "promote", str(project_id), champion, "--reason", "looked at it")
        told += "; promoted by hand"
    _wait_for_predictions(services, project_id, champion)
    return told


def _wait_for_predictions(services: Services, project_id: int, version: str) -> None:
    """Wait until the project shows a version, and every waiting task has its prediction."""
    waiting = {task.id for task in services.client.iter_tasks(project_id, only_unlabelled=True)}

    def reached() -> bool:
        pushed = services.store.pushes.of(project_id, version)
        there = {task_id for task_id, prediction_id in pushed.items() if prediction_id is not None}
        return waiting <= there and services.client.project(project_id).model_version == version

    _wait(reached, f"predictions of {version}")


def _look(services: Services, project_id: int, images: Mapping[int, DemoImage]) -> dict[str, Any]:
    """Count what is drawn on the photos that nobody has annotated, and what correcting it costs."""
    project = services.client.project(project_id)
    config = parse_label_config(project.label_config)
    edits, regions, objects, fragments = EditCounts(), 0, 0, 0
    waiting = [task.id for task in services.client.iter_tasks(project_id, only_unlabelled=True)]
    for task_id in waiting:
        image = images[task_id]
        shown = [
            one
            for one in services.client.predictions_of(task_id)
            if one.get("model_version") == project.model_version
        ]
        result = max(shown, key=lambda one: int(one["id"]))["result"] if shown else []
        drawn = annotation_to_segments(result, config, size_hw=image.size_hw).segments
        edits += sum(compare_segments(drawn, image.segments).values(), EditCounts())
        regions, objects = regions + len(drawn), objects + len(image.segments)
        fragments += count_fragments(drawn, image.segments)
    return {
        "version": project.model_version,
        "photos": len(waiting),
        "regions": regions,
        "objects": objects,
        "fragments": fragments,
        "work_saved": round(work_saved(edits, DEFAULT_WEIGHTS), 3),
    }


def _screenshot(studio: RealStudio, services: Services, project_id: int, path: Path) -> None:
    """Photograph the task that is not annotated last of all, so that every stage shows the same one."""
    from playwright.sync_api import sync_playwright

    task_id = max(task.id for task in services.client.iter_tasks(project_id, only_unlabelled=True))
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=find_chromium(), args=list(CHROMIUM_FLAGS))
        page = log_in(browser, studio, width=1200, height=760)
        page.goto(f"{studio.url}/projects/{project_id}/data?task={task_id}")
        page.wait_for_selector(".konvajs-content")
        page.mouse.move(100, 700)
        shot = wait_until_still(page)
        browser.close()
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.open(io.BytesIO(shot)).convert("RGB").quantize(COLOURS).save(path, optimize=True)


def _wait(reached: Any, what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not reached():
        if time.monotonic() > deadline:
            raise TimeoutError(what)
        time.sleep(0.5)


if __name__ == "__main__":
    main()
