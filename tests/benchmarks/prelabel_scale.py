"""How a prelabelling grows with its tasks: `python -m tests.benchmarks.prelabel_scale --sizes 100,1000`.

Against a real Label Studio on this machine, or with `--memory` one that costs nothing, with a model that
answers at once: what is measured is the road from planning to the displayed version. Each size has a process
of its own, and so memory of its own.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tests.fakes.prelabel_studio import PrelabelStudio

from maskloop.types import Prediction, Segment, SelectionInputs, Signals
from maskloop_studio.demo.studio import RealStudio

IN_MEMORY = "http://memory"
SIZES = (100, 1000, 10_000)
EMBEDDING = 256
EDGE = 256  # pixels
SEGMENTS = 5
IMPORT_TASKS = 1000
CONFIG = (
    '<View><Image name="image" value="$image"/><BrushLabels name="brush" toName="image">'
    '<Label value="disc"/></BrushLabels></View>'
)
STEPS = ("score", "arrange", "push", "clean up")


def made_up(task_id: int) -> Prediction:
    """Return five discs and an embedding in one of twenty groups."""
    draw = np.random.default_rng(task_id)
    yy, xx = np.mgrid[:40, :40]
    disc_hw = (yy - 20) ** 2 + (xx - 20) ** 2 < 350
    segments = tuple(
        Segment(
            mask_hw=disc_hw,
            offset_yx=(int(draw.integers(0, EDGE - 40)), int(draw.integers(0, EDGE - 40))),
            label="disc",
            score=0.9,
        )
        for _ in range(SEGMENTS)
    )
    group_d = np.random.default_rng(task_id % 20).standard_normal(EMBEDDING)
    embedding_d = group_d + 0.3 * draw.standard_normal(EMBEDDING)
    return Prediction(
        segments=segments,
        size_hw=(EDGE, EDGE),
        confidence=float(draw.random()),
        selection_inputs=SelectionInputs(
            signals=Signals(entropy=0.1, margin=0.2, border=0.3, missing=0.4),
            embedding_d=(embedding_d / np.linalg.norm(embedding_d)).astype(np.float32),
        ),
    )


class _MadeUpPredictions:
    """Stands in for the pipeline of images."""

    def predict(self, inputs: Sequence[Any], **_others: object) -> list[Prediction]:
        return [made_up(image.task_id) for image in inputs]


def run_one(size: int, connections: int, url: str, token: str) -> dict[str, float]:
    """Prelabel a new project and return seconds by step, and memory."""
    from pydantic import SecretStr

    from maskloop.lab.tiny_models import build_tiny_mask2former
    from maskloop.segmentation.checkpoint import save_checkpoint
    from maskloop.settings import Settings
    from maskloop.testing.memory import MemoryQueue
    from maskloop_studio.prelabel.run import prelabel_project
    from maskloop_studio.projects.training import model_name
    from maskloop_studio.services import Services

    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(
            home=Path(folder) / "home",
            label_studio_url=url,
            label_studio_api_key=SecretStr(token),
            push_connections=connections,
        )
        services = Services(settings)
        services.queue = MemoryQueue()
        services.images = _MadeUpPredictions()  # type: ignore[assignment]
        if url == IN_MEMORY:
            services.client = small = PrelabelStudio()
            small.page_size, project_id = 200, 1
            small.add_tasks(size)
        else:
            project_id = services.client.create_project(f"scale {size}", CONFIG).id
        name = model_name(project_id)
        checkpoint = save_checkpoint(build_tiny_mask2former(("disc",), seed=0), Path(folder) / "model")
        services.registry.register(name, checkpoint, labels=("disc",), metrics=None, parent=None)
        services.registry.promote(name, 1)
        for first in range(0, 0 if url == IN_MEMORY else size, IMPORT_TASKS):
            uris = [f"http://images/{number}.png" for number in range(first, first + IMPORT_TASKS)]
            tasks = [{"data": {"image": uri}} for uri in uris[: size - first]]
            services.client.import_tasks(project_id, tasks)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        cpu, started = time.process_time(), time.perf_counter()
        report = prelabel_project(project_id, services)
        wall = time.perf_counter() - started
        assert (report.pushed, report.failed) == (size, 0), report
        found = {
            **{step: report.seconds[step] for step in STEPS},
            "all": wall,
            "CPU of ours": time.process_time() - cpu,
            "MiB before": before / 1024,
            "MiB at most": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        }
        started = time.perf_counter()
        assert prelabel_project(project_id, services).pushed == 0
        found["again"] = time.perf_counter() - started
        if url != IN_MEMORY:
            services.client.delete_project(project_id)
        services.close()
    return found


def run_apart(size: int, connections: int, url: str, token: str) -> dict[str, float]:
    """Do `run_one` in a process of its own."""
    module = "tests.benchmarks.prelabel_scale"
    command = [sys.executable, "-m", module, "--one", f"{size},{connections}"]
    places = {"LABEL_STUDIO_URL": url, "LABEL_STUDIO_API_KEY": token}
    done = subprocess.run(
        command, env={**os.environ, **places}, stdout=subprocess.PIPE, text=True, check=True
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Print a table, and write JSON where that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)), help="numbers of tasks")
    parser.add_argument("--connections", default="4", help="pushes at once; several are compared")
    parser.add_argument("--memory", action="store_true", help="a Label Studio in memory, without images")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        size, connections = map(int, arguments.one.split(","))
        place, token = os.environ["LABEL_STUDIO_URL"], os.environ["LABEL_STUDIO_API_KEY"]
        print(json.dumps(run_one(size, connections, place, token)))
        return
    found: dict[str, dict[str, float]] = {}
    env_dir = Path(os.environ.get("MASKLOOP_STUDIO_ENV", ".venv-studio"))
    with contextlib.ExitStack() as stack:
        place, token = IN_MEMORY, "token"
        if not arguments.memory:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            studio = stack.enter_context(RealStudio(Path(folder), env_dir=env_dir))
            place, token = studio.url, studio.token
        for size in map(int, arguments.sizes.split(",")):
            for connections in map(int, arguments.connections.split(",")):
                name = f"{size:,} tasks, {connections} at once"
                found[name] = run_apart(size, connections, place, token)
                print(name, {key: round(value, 2) for key, value in found[name].items()}, flush=True)
    print(f"\nseconds and MiB; Python {platform.python_version()}, {platform.machine()}")
    keys = list(next(iter(found.values())))
    print(f"{'':<28}" + "".join(f"{key:>14}" for key in keys))
    for name, values in found.items():
        print(f"{name:<28}" + "".join(f"{values[key]:>14.2f}" for key in keys))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
