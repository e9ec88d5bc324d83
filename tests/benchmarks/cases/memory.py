"""How much memory predicting takes, above what the loaded model does; and whether it comes back."""

from __future__ import annotations

import functools
import gc
import io
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..harness.case import Budget, Case, Result, Spread
from ..harness.memory import peak_bytes

__all__ = [
    "CASES",
    "SIZE_12MP",
    "growth_of_predictions",
    "jpeg_file",
    "prepare_engine",
    "prepare_transformers",
]

SIZE_12MP = (3000, 4000)
TASKS, TASK_SIZE = 100, (1080, 1920)
QUICK_TASKS = 10
MB = 1 << 20
SAMPLES = 50  # of resident memory
PREDICTIONS, QUICK_PREDICTIONS = 10_000, 1_500
PREDICTIONS_SETTING = "MASKLOOP_BENCH_PREDICTIONS"
AIM = 10.0


def run(budget: Budget) -> list[Result]:
    """Return peaks in MB, and what a prediction leaves behind in bytes."""
    tasks = QUICK_TASKS if budget.quick else TASKS
    with tempfile.TemporaryDirectory() as folder:
        return [
            _peaks("one image of 12 MP", Path(folder), 1, SIZE_12MP),
            _peaks(f"{tasks} tasks of 2 MP in one request", Path(folder), tasks, TASK_SIZE),
            _growth(budget),
        ]


def _peaks(name: str, folder: Path, count: int, size_hw: tuple[int, int]) -> Result:
    files = [jpeg_file(folder, number, size_hw) for number in range(min(count, 4))]
    paths = [str(files[number % len(files)]) for number in range(count)]
    ours, theirs = (peak_bytes(prepare, paths) / MB for prepare in (prepare_engine, prepare_transformers))
    return Result(
        name=f"memory/{name}",
        unit="MB",
        ours=Spread.of([ours]),
        reference=Spread.of([theirs]),
        reference_name="transformers' processor and post-processing, all images at once",
        same="the same model, images and threshold; what is drawn is compared by `regions` and `serve`",
        aim=AIM,
    )


def _growth(budget: Budget) -> Result:
    count = QUICK_PREDICTIONS if budget.quick else int(os.environ.get(PREDICTIONS_SETTING, PREDICTIONS))
    grown, rss = growth_of_predictions(count)
    return Result(
        name=f"memory/{count} predictions",
        unit="bytes each",
        ours=Spread.of([grown]),
        same="resident memory, the last half of the predictions against the first",
        aim=0.0,
        notes={"resident MB, by tenths": [round(value / MB, 1) for value in rss]},
    )


def growth_of_predictions(count: int) -> tuple[float, list[int]]:
    """Return by how many bytes each prediction of a tiny model makes this process larger.

    Args:
        count: predictions, of 64 pixels, through the engine.

    Returns:
        The slope of resident memory over the last half (least squares), and that memory at each tenth.
    """
    import numpy as np

    images = np.random.default_rng(0).integers(0, 256, (8, 64, 64, 3), dtype=np.uint8)
    seen: list[int] = []
    step = max(1, count // SAMPLES)
    with _engine(helpers=1) as engine:
        engine.predict([images[0]], source=str(_model()))
        gc.collect()
        gc.freeze()  # what the libraries hold is not looked through again each time
        try:
            for number in range(1, count + 1):
                engine.predict([images[number % len(images)]], source=str(_model()))
                if number % step == 0:
                    gc.collect()
                    seen.append(_resident())
        finally:
            gc.unfreeze()
    half = seen[len(seen) // 2 :]
    slope = float(np.polyfit(np.arange(len(half)) * step, half, 1)[0])
    return slope, seen[:: max(1, len(seen) // 10)]


def prepare_engine(paths: list[str]) -> Callable[[], object]:
    """Return what predicts files and draws them, as a request of many tasks is served."""
    from maskloop.segmentation.image import decode_image
    from maskloop_studio.formats import TaskImage
    from maskloop_studio.images.image_pipeline import ImageInput, ImagePipeline

    pipeline = ImagePipeline(fetcher=_Files(), engine=_engine(), max_pixels=10**8)  # type: ignore[arg-type]
    plan = _plan()
    image = TaskImage(to_name="image", item_index=None, address="")

    def draw(index: int, result: Any) -> object:
        return plan.regions(result, model_version="model", task_id=index, image=image)

    def work(wanted: list[str]) -> object:
        inputs = [
            ImageInput(uri=path, task_id=None, task=plan.task, thresholds=plan.thresholds) for path in wanted
        ]
        return pipeline.predict_and_use(inputs, draw, source=str(_model()))

    assert decode_image(Path(paths[0]).read_bytes(), max_pixels=10**8).ndim == 3
    work([_small(paths[0])])
    return functools.partial(work, paths)


def prepare_transformers(paths: list[str]) -> Callable[[], object]:
    """Return the straightforward way: all images, one call of each function."""
    import numpy as np
    import torch
    from label_studio_sdk.converter.brush import mask2rle
    from PIL import Image
    from transformers import Mask2FormerForUniversalSegmentation, Mask2FormerImageProcessorPil

    model = Mask2FormerForUniversalSegmentation.from_pretrained(_model(), dtype=torch.float32).eval()
    processor = Mask2FormerImageProcessorPil.from_pretrained(_model())

    def work(wanted: list[str]) -> object:
        images = [np.asarray(Image.open(path).convert("RGB")) for path in wanted]
        inputs = processor(images=images, return_tensors="pt")
        with torch.inference_mode():
            output = model(**inputs)
        found = processor.post_process_instance_segmentation(
            output, target_sizes=[image.shape[:2] for image in images]
        )
        return [
            [
                mask2rle((one["segmentation"] == segment["id"]).numpy().astype(np.uint8) * 255)
                for segment in one["segments_info"]
            ]
            for one in found
        ]

    work([_small(paths[0])])
    return functools.partial(work, paths)


class _Files:
    """Stands in for the fetcher: its images are files."""

    def fetch_many(self, uris: list[str], *, task_ids: object, limit: object = None) -> list[bytes]:
        """Return what the files hold."""
        return [Path(uri).read_bytes() for uri in uris]


def _engine(helpers: int | None = None) -> Any:
    from maskloop.segmentation.engine import Engine
    from maskloop.segmentation.postprocess import Thresholds
    from maskloop.settings import Settings
    from maskloop.types import SegmentationTask

    settings = Settings()
    engine = Engine(
        task=SegmentationTask.INSTANCE,
        thresholds=Thresholds.from_settings(settings),
        max_batch=settings.max_batch,
        device="cpu",
        helpers=helpers,
    )
    engine.load(str(_model()))
    return engine


def _plan() -> Any:
    from maskloop.lab.synthetic.shapes import SHAPE_CLASSES
    from maskloop.settings import Settings
    from maskloop_studio.formats.label_config import parse_label_config
    from maskloop_studio.projects.prediction_plan import ProjectOptions, ProjectPlan

    labels = "".join(f'<Label value="{label}"/>' for label in SHAPE_CLASSES)
    config = parse_label_config(
        '<View><Image name="image" value="$image"/>'
        f'<BrushLabels name="brush" toName="image">{labels}</BrushLabels></View>'
    )
    return ProjectPlan(
        settings=Settings(),
        options=ProjectOptions(),
        config=config,
        model_labels=tuple(SHAPE_CLASSES),
        model_version="model",
    ).of_project


def _model() -> Path:
    from maskloop.settings import BASE_MODEL

    return BASE_MODEL


def jpeg_file(folder: Path, number: int, size_hw: tuple[int, int]) -> Path:
    """Write an image of some shapes, large as a camera's; return its path."""
    from PIL import Image

    from maskloop.lab.synthetic.shapes import make_image

    path = folder / f"{number}-{size_hw[0]}.jpg"
    made = Image.fromarray(make_image(number, size_hw=(480, 640)).image_hwc)
    made.resize((size_hw[1], size_hw[0])).save(path, quality=92)
    return path


def _small(path: str) -> str:
    from PIL import Image

    small = Path(path).with_suffix(".small.jpg")
    with Image.open(path) as image:
        image.resize((160, 120)).save(io.BytesIO() if small.exists() else small, format="JPEG")
    return str(small)


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


CASES = [
    Case(
        name="memory",
        summary="peaks of a large image and of many tasks, and growth over predictions",
        run=run,
    )
]
