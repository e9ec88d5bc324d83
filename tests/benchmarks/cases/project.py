"""Images a second over the prelabelling of a project in a real Label Studio, fetching and pushing included.

Against the script that one would write: transformers' image processor, forward and post-processing,
`mask2rle` of label-studio-sdk, one request for each prediction.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..harness.case import Budget, Case, Result, Skip, Spread

__all__ = ["CASES"]

TASKS, QUICK_TASKS = 1000, 30
TASKS_SETTING = "MASKLOOP_BENCH_TASKS"
IMPORT_FILES = 50  # in one request
SCORE = 0.5  # the least of a segment, for both
LEAST_IOU = 0.9  # of what both drew, image by image, on average
VERSION = "script"
HEAVY_EDGE = 256  # pixels: the shorter side that the heavy model sees


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One model on one kind of image."""

    name: str
    share: float  # of the asked number of tasks: a heavy model has fewer
    size_hw: tuple[int, int]
    views: int  # further looks at each image, for choosing; the script has none


VARIANTS = (
    Variant(name="tiny", share=1.0, size_hw=(480, 640), views=0),
    Variant(name="tiny, second look", share=1.0, size_hw=(480, 640), views=1),
    Variant(name="swin-t", share=0.1, size_hw=(480, 640), views=0),
)


def run(budget: Budget) -> list[Result]:
    """Return images a second of both."""
    env_dir = Path(os.environ.get("MASKLOOP_STUDIO_ENV", ".venv-studio"))
    if not (env_dir / "bin" / "label-studio").exists():
        raise Skip(f"no Label Studio in {env_dir}: `make demo` makes one, or name it by MASKLOOP_STUDIO_ENV")
    from maskloop_studio.demo.studio import RealStudio

    tasks = QUICK_TASKS if budget.quick else int(os.environ.get(TASKS_SETTING, TASKS))
    variants = VARIANTS[:1] if budget.quick else VARIANTS
    with tempfile.TemporaryDirectory() as folder, RealStudio(Path(folder), env_dir=env_dir) as studio:
        return [_measure(variant, tasks, studio, Path(folder)) for variant in variants]


def _measure(variant: Variant, tasks: int, studio: Any, folder: Path) -> Result:
    count = max(8, round(tasks * variant.share))
    fewer = count if count <= 100 else max(50, count // 5)  # the script's pace does not depend on it
    with _services(variant, studio, folder) as services:
        checkpoint = _checkpoint(variant, folder)
        images = [_jpeg(number, variant.size_hw) for number in range(min(count, 200))]
        projects = [_project(services, variant.name, images, number) for number in (fewer, count, fewer)]
        script = Script(studio.url, studio.token, checkpoint)
        script_s = [script.label(projects[0], fewer)]
        ours_s, notes = _prelabel(projects[1], count, checkpoint, services)
        script_s.append(script.label(projects[2], fewer))
        same = _compare(services, projects, variant)
        for project_id in projects:
            services.client.delete_project(project_id)
    return Result(
        name=f"project/{variant.name}",
        unit="images/s",
        ours=Spread.of([count / ours_s]),
        reference=Spread.of([fewer / seconds for seconds in script_s]),
        reference_name="transformers + SDK script",
        better="more",
        same=same,
        notes={"tasks": count, "tasks of the script": fewer, **notes},
    )


def _prelabel(
    project_id: int, count: int, checkpoint: Path, services: Any
) -> tuple[float, dict[str, object]]:
    """Return the seconds that our way took, and what it spent them on."""
    from maskloop_studio.prelabel.run import prelabel_project
    from maskloop_studio.projects.training import model_name

    name = model_name(project_id)
    version = services.registry.register(name, checkpoint, labels=_labels(), metrics=None, parent=None)
    services.registry.promote(name, version.number)
    services.engine.load(str(version.path))  # the script's is loaded by now as well
    forward = ForwardClock()
    with forward.running():
        cpu, start = time.process_time(), time.perf_counter()
        report = prelabel_project(project_id, services)
        took, cpu = time.perf_counter() - start, time.process_time() - cpu
    assert (report.pushed, report.failed) == (count, 0), report
    assert forward.calls, "the forward pass was not seen"
    return took, {
        "forward busy, share of all": round(forward.seconds / took, 3),
        "forward busy, share of scoring": round(forward.seconds / report.seconds["score"], 3),
        "forward passes": forward.calls,
        "ms a push": round(1000 * report.seconds["push"] / count, 1),
        "seconds by step": report.seconds,
        "CPU-s of our process": round(cpu, 1),
    }


class ForwardClock:
    """How long the engine's forward passes take, all together; on CUDA as the device tells it."""

    def __init__(self) -> None:
        self.calls = 0
        self._cpu_s = 0.0
        self._pairs: list[tuple[Any, Any]] = []

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Watch what the engine does meanwhile."""
        from maskloop.segmentation import engine

        real = engine.forward_batch
        engine.forward_batch = lambda *args, **options: self._timed(real, *args, **options)
        try:
            yield
        finally:
            engine.forward_batch = real

    @property
    def seconds(self) -> float:
        """Return what has been counted."""
        import torch

        if self._pairs:
            torch.cuda.synchronize()
        return self._cpu_s + sum(begun.elapsed_time(ended) for begun, ended in self._pairs) / 1000

    def _timed(self, real: Any, *args: Any, **options: Any) -> Any:
        import torch

        self.calls += 1
        if torch.cuda.is_available():
            begun, ended = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            begun.record()
            result = real(*args, **options)
            ended.record()
            self._pairs.append((begun, ended))
            return result
        start = time.perf_counter()
        result = real(*args, **options)
        self._cpu_s += time.perf_counter() - start
        return result


class Script:
    """What one would write in an afternoon."""

    def __init__(self, url: str, token: str, checkpoint: Path) -> None:
        import httpx
        from label_studio_sdk import LabelStudio
        from transformers import AutoModelForUniversalSegmentation, Mask2FormerImageProcessorPil

        self._studio = LabelStudio(base_url=url, api_key=token)
        self._http = httpx.Client(base_url=url, headers={"Authorization": f"Token {token}"}, trust_env=False)
        self._processor = Mask2FormerImageProcessorPil.from_pretrained(checkpoint)
        self._model = AutoModelForUniversalSegmentation.from_pretrained(checkpoint).eval()

    def label(self, project_id: int, count: int) -> float:
        """Predict and push; return the seconds."""
        start = time.perf_counter()
        done = 0
        for task in self._studio.tasks.list(project=project_id, fields="all"):
            self._label_task(task)
            done += 1
        assert done == count, (done, count)
        return time.perf_counter() - start

    def _label_task(self, task: Any) -> None:
        import torch
        from PIL import Image

        image = Image.open(io.BytesIO(self._http.get(task.data["image"]).content)).convert("RGB")
        with torch.no_grad():
            outputs = self._model(**self._processor(images=image, return_tensors="pt"))
        found = self._processor.post_process_instance_segmentation(
            outputs, threshold=SCORE, target_sizes=[(image.height, image.width)]
        )[0]
        regions = [self._region(found, segment, image.size) for segment in found["segments_info"]]
        scores = [segment["score"] for segment in found["segments_info"]]
        self._studio.predictions.create(
            task=task.id, result=regions, score=min(scores, default=0.0), model_version=VERSION
        )

    def _region(self, found: Any, segment: Any, size_wh: tuple[int, int]) -> dict[str, Any]:
        import numpy as np
        from label_studio_sdk.converter.brush import mask2rle

        mask_hw = (found["segmentation"] == segment["id"]).numpy().astype(np.uint8) * 255
        label = self._model.config.id2label[segment["label_id"]]
        return {
            "type": "brushlabels",
            "from_name": "brush",
            "to_name": "image",
            "original_width": size_wh[0],
            "original_height": size_wh[1],
            "image_rotation": 0,
            "score": segment["score"],
            "value": {"format": "rle", "rle": mask2rle(mask_hw), "brushlabels": [label]},
        }


def _compare(services: Any, projects: list[int], variant: Variant) -> str:
    """Return how alike the two drew the same images; every task has one prediction of each kind."""
    import numpy as np

    drawn = []
    for project_id in projects[:2]:
        tasks = list(services.client.iter_tasks(project_id))
        assert [task.id for task in tasks] == sorted(task.id for task in tasks)
        drawn.append([_drawn(services, task.id, variant.size_hw) for task in tasks[:QUICK_TASKS]])
    unions = [(np.logical_or(one, other).sum(), one, other) for one, other in zip(*drawn, strict=False)]
    ious = [np.logical_and(one, other).sum() / union for union, one, other in unions if union]
    if not ious:
        return f"neither draws anything on {len(unions)} images"
    mean = float(np.mean(ious))
    assert mean >= LEAST_IOU, f"mean IoU {mean:.3f} of what both drew"
    return f"mean IoU {mean:.3f} of {len(ious)} images' foreground"


def _drawn(services: Any, task_id: int, size_hw: tuple[int, int]) -> Any:
    import numpy as np

    from maskloop_studio.formats.brush import decode_brush

    (prediction,) = services.client.predictions_of(task_id)
    all_hw = np.zeros(size_hw, dtype=bool)
    for region in prediction["result"]:
        all_hw |= decode_brush(region["value"]["rle"], size_hw)
    return all_hw


@contextlib.contextmanager
def _services(variant: Variant, studio: Any, folder: Path) -> Iterator[Any]:
    from pydantic import SecretStr

    from maskloop.settings import Settings
    from maskloop.testing.memory import MemoryQueue
    from maskloop_studio.services import Services

    settings = Settings(
        home=Path(tempfile.mkdtemp(dir=folder)),
        label_studio_url=studio.url,
        label_studio_api_key=SecretStr(studio.token),
        selection_views=variant.views,
        score_threshold=SCORE,
    )
    services = Services(settings)
    services.queue = MemoryQueue()  # nobody else works on it
    try:
        yield services
    finally:
        services.close()


def _labels() -> tuple[str, ...]:
    from maskloop.lab.synthetic.shapes import SHAPE_CLASSES

    return tuple(SHAPE_CLASSES)


def _checkpoint(variant: Variant, folder: Path) -> Path:
    """Return the shipped tiny model, or a Swin-T that draws like it."""
    import maskloop

    shipped = Path(maskloop.__file__).parent / "models" / "tiny-mask2former"
    return _heavy(shipped, folder / "swin-t") if variant.name.startswith("swin") else shipped


def _heavy(shipped: Path, folder: Path) -> Path:
    """Return a Swin-T with 100 queries, made at random: it draws next to nothing, and takes its time."""
    import torch
    from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation

    from ..swin import swin_config

    if folder.exists():
        return folder
    torch.manual_seed(0)
    names = dict(enumerate(_labels()))
    config = Mask2FormerConfig(
        backbone_config=swin_config(drop_path_rate=0.0),
        num_queries=100,
        id2label=names,
        label2id={label: number for number, label in names.items()},
    )
    model = Mask2FormerForUniversalSegmentation(config).eval()
    model.save_pretrained(folder)
    processor = json.loads((shipped / "preprocessor_config.json").read_text(encoding="utf-8"))
    processor["size"] = {"shortest_edge": HEAVY_EDGE, "longest_edge": 2 * HEAVY_EDGE}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor), encoding="utf-8")
    return folder


def _jpeg(number: int, size_hw: tuple[int, int]) -> bytes:
    from PIL import Image

    from maskloop.lab.synthetic.shapes import make_image

    buffer = io.BytesIO()
    made = make_image(number, size_hw=size_hw)
    Image.fromarray(made.image_hwc).save(buffer, format="JPEG", quality=92)
    return buffer.getvalue()


def _project(services: Any, title: str, images: list[bytes], count: int) -> int:
    """Return a new project with as many uploaded images, again from the first where there are fewer."""
    labels = "".join(f'<Label value="{label}"/>' for label in _labels())
    config = (
        '<View><Image name="image" value="$image"/>'
        f'<BrushLabels name="brush" toName="image">{labels}</BrushLabels></View>'
    )
    client = services.client
    project_id = int(client.create_project(title, config).id)
    for first in range(0, count, IMPORT_FILES):
        numbers = range(first, min(first + IMPORT_FILES, count))
        files = {
            f"file{number}": (f"{number:05}.jpg", images[number % len(images)], "image/jpeg")
            for number in numbers
        }
        client._request("POST", f"api/projects/{project_id}/import", files=files, timeout_s=300)
    assert client.count_tasks(project_id) == count
    return project_id


CASES = [
    Case(name="project", summary="images a second over a prelabelling: fetch, predict, push", run=run),
]
