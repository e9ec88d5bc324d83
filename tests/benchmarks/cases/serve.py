"""Images a second through the real HTTP server, against nothing but the forward pass of the same model.

The server is `maskloop serve` in a process of its own, which fetches each image over HTTP from this one.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import statistics
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from ..harness.case import Budget, Case, Result, Spread
from ..harness.timing import clocked, side_by_side

__all__ = ["CASES", "make_swin", "usual_score"]

LABELS = ("circle", "square", "triangle")
SIZE_HW = (480, 640)
EDGE = 480  # pixels: the shorter side that the model sees, as it is
IMAGES = 16  # different ones
SEGMENTS = 15  # of each image, about, before duplicates are dropped: the score threshold is chosen so
CONTRAST = 30.0  # of the random weights of queries and class head
BATCHES = (1, 2, 4, 8)
REFERENCE_IMAGES = 16  # of the forward pass in each round
TASKS = 100  # in one request
CLIENTS, TURNS = 32, 3  # each asks so often, for one task
LEAST_IOU = 0.95  # on average, of all that was drawn of an image; a batch rounds otherwise than one image
AIM_CPU, AIM_CUDA = 0.97, 0.90
TRIED = 40  # answers after which precision and OpenVINO are decided, or its trial runs
SETTLED_S = 300.0  # an export and a trial of one size take a minute
SHAPES = re.compile(r'maskloop_model_shapes\{\w+="(\w+)"\} (\S+)')
CONFIG = (
    '<View><Image name="image" value="$image"/><BrushLabels name="brush" toName="image">'
    + "".join(f'<Label value="{label}"/>' for label in LABELS)
    + "</BrushLabels></View>"
)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What both ways work with."""

    checkpoint: Any
    thresholds: Any  # as the server has them
    files: list[bytes]  # JPEG
    decoded: list[Any]
    address: str  # of the file server
    port: int  # of maskloop's
    process: int  # its number
    cuda: bool

    @property
    def synchronise(self) -> Callable[[], None] | None:
        """Wait for the device, where there is one."""
        import torch

        return torch.cuda.synchronize if self.cuda else None


def run(budget: Budget) -> list[Result]:
    """Return images a second, and for a lone request milliseconds."""
    with tempfile.TemporaryDirectory() as folder, _setting(Path(folder)) as setting:
        settled = {} if budget.quick else _settle(setting)
        if "precision=bfloat16" in (Path(folder) / "home" / "server.log").read_text():
            # the same for what it is held against
            plan = replace(setting.checkpoint.plan, precision="bfloat16")
            setting = replace(setting, checkpoint=replace(setting.checkpoint, plan=plan))
            settled["precision"] = "bfloat16"
        results = [_with_notes(_lone(setting, budget), settled)]
        if budget.quick:
            return results
        best, speeds = _best_batch(setting)
        notes = {"images/s of the forward pass by batch": speeds, **settled}
        many = _throughput(f"{TASKS} tasks in one request", setting, budget, best, _one_request)
        clients = _throughput(f"{CLIENTS} clients at once", setting, budget, best, _many_clients)
        return [*results, *(_with_notes(result, notes) for result in (many, clients))]


def _settle(setting: Setting) -> dict[str, object]:
    """Return how long a new model is tried in bfloat16 and by OpenVINO, how slow that is, and the outcome.

    Each model and each size of input has such a trial once; what is measured after it is how a server answers
    for days.
    """
    if setting.cuda:
        return {}
    started, answers = time.monotonic(), list[float]()
    shapes: dict[str, float] = {}
    while len(answers) < TRIED or shapes.get("trial"):
        if time.monotonic() - started > SETTLED_S:
            raise RuntimeError(f"no size was decided within {SETTLED_S:.0f} s: {shapes}")
        before = time.perf_counter()
        _ask(setting, [0])
        answers.append(time.perf_counter() - before)
        shapes = _model_shapes(setting.port)
    return {
        "s until what answers is decided": round(time.monotonic() - started, 1),
        "ms of a lone answer until then, median": round(1e3 * statistics.median(answers)),
        "answered by": "openvino" if shapes.get("openvino") else "torch",
    }


def _model_shapes(port: int) -> dict[str, float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
        lines = answer.read().decode().splitlines()
    found = (SHAPES.match(line) for line in lines)
    return {one[1]: float(one[2]) for one in found if one is not None}


def _lone(setting: Setting, budget: Budget) -> Result:
    """Time one task alone, against the same steps by hand without any server."""
    from maskloop.segmentation.image import decode_image
    from maskloop.segmentation.predict import predict_images
    from maskloop.types import SegmentationTask

    def by_hand() -> list[Any]:
        image = decode_image(setting.files[0], max_pixels=10**8)
        (prediction,) = predict_images(
            setting.checkpoint,
            [image],
            task=SegmentationTask.INSTANCE,
            thresholds=setting.thresholds,
            max_batch=1,
        )
        return _drawn(prediction, task_id=1)

    pair = side_by_side(lambda: _ask(setting, [0]), by_hand, budget, synchronise=setting.synchronise)
    shown, wanted = pair.ours[0]["result"], json.loads(json.dumps(pair.reference))
    assert shown == wanted, "one request alone: regions differ from those made by hand"
    return pair.result(
        "serve/one task",
        against="decode, predict and draw by hand, no server",
        same=f"{len(shown)} regions equal",
        aim=AIM_CUDA if setting.cuda else AIM_CPU,
    )


def _throughput(
    name: str,
    setting: Setting,
    budget: Budget,
    batch: int,
    ask: Callable[[Setting], list[dict[str, Any]]],
) -> Result:
    forward = _forward_of(setting, batch)
    answered, before = 0, _cpu_s(setting.process)

    def asked() -> list[dict[str, Any]]:
        nonlocal answered
        answers = ask(setting)
        answered += len(answers)
        return answers

    pair = side_by_side(asked, forward, budget, warmup=0, min_rounds=2, synchronise=setting.synchronise)
    count = len(pair.ours)
    server_cpu_s = (_cpu_s(setting.process) - before) / answered
    before = _cpu_s(os.getpid())
    forward()
    forward_cpu_s = (_cpu_s(os.getpid()) - before) / REFERENCE_IMAGES
    return Result(
        name=f"serve/{name}",
        unit="images/s",
        ours=Spread.of([count / seconds for seconds in pair.ours_s]),
        reference=Spread.of([REFERENCE_IMAGES / seconds for seconds in pair.reference_s]),
        reference_name=f"bare forward pass, batches of {batch}",
        better="more",
        same=_compare(setting, pair.ours),
        aim=AIM_CUDA if setting.cuda else AIM_CPU,
        notes={
            "images": count,
            "regions an image": sum(len(one["result"]) for one in pair.ours) / count,
            "CPU-s of the server an image": round(server_cpu_s, 4),
            "CPU-s of the forward pass an image": round(forward_cpu_s, 4),
        },
    )


def _one_request(setting: Setting) -> list[dict[str, Any]]:
    return _ask(setting, range(TASKS))


def _many_clients(setting: Setting) -> list[dict[str, Any]]:
    """Let each client ask for one task after the other."""
    with ThreadPoolExecutor(CLIENTS) as pool:
        shares = pool.map(
            lambda client: [_ask(setting, [client + CLIENTS * turn])[0] for turn in range(TURNS)],
            range(CLIENTS),
        )
        by_client = list(shares)
    return [by_client[number % CLIENTS][number // CLIENTS] for number in range(TURNS * CLIENTS)]


def _ask(setting: Setting, numbers: Sequence[int]) -> list[dict[str, Any]]:
    tasks = [
        {"id": number + 1, "data": {"image": f"{setting.address}/{number % IMAGES}.jpg"}}
        for number in numbers
    ]
    body = json.dumps({"tasks": tasks, "label_config": CONFIG})
    connection = http.client.HTTPConnection("127.0.0.1", setting.port, timeout=600)
    try:
        connection.request("POST", "/predict", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        text = answer.read()
    finally:
        connection.close()
    assert answer.status == 200, text
    results: list[dict[str, Any]] = json.loads(text)["results"]
    assert len(results) == len(numbers)
    return results


def _best_batch(setting: Setting) -> tuple[int, dict[str, float]]:
    speeds = {}
    for batch in BATCHES:
        forward = _forward_of(setting, batch)
        forward()
        seconds = [clocked(forward, setting.synchronise)[0] for _ in range(2)]
        speeds[str(batch)] = round(REFERENCE_IMAGES / min(seconds), 3)
    return int(max(speeds, key=lambda name: speeds[name])), speeds


def _forward_of(setting: Setting, batch: int) -> Callable[[], None]:
    """Return forward passes over resized and normalised images that lie on the device already."""
    from maskloop.segmentation.predict import run_model
    from maskloop.segmentation.preprocess import images_to_batch
    from maskloop.types import SegmentationTask

    checkpoint = setting.checkpoint
    images = setting.decoded[:batch]
    ready = images_to_batch(images, checkpoint.preprocessing, checkpoint.device)

    def forward() -> None:
        for _ in range(REFERENCE_IMAGES // batch):
            run_model(checkpoint, ready, SegmentationTask.INSTANCE)

    return forward


def _compare(setting: Setting, answers: list[dict[str, Any]]) -> str:
    import numpy as np

    from maskloop.segmentation.predict import predict_images
    from maskloop.types import SegmentationTask

    ious = []
    for number, image in enumerate(setting.decoded):
        (alone,) = predict_images(
            setting.checkpoint,
            [image],
            task=SegmentationTask.INSTANCE,
            thresholds=setting.thresholds,
            max_batch=1,
        )
        wanted = _area(_drawn(alone, task_id=number + 1))
        for answer in answers[number::IMAGES]:
            shown = _area(answer["result"])
            union = np.logical_or(wanted, shown).sum()
            ious.append(np.logical_and(wanted, shown).sum() / union if union else 1.0)
    mean = float(np.mean(ious))
    assert mean >= LEAST_IOU, f"mean IoU {mean:.3f} with what each image gives alone"
    return f"mean IoU {mean:.4f} with each image alone"


def _area(regions: list[dict[str, Any]]) -> Any:
    import numpy as np

    from maskloop_studio.formats.brush import decode_brush

    area_hw = np.zeros(SIZE_HW, dtype=bool)
    for region in regions:
        area_hw |= decode_brush(region["value"]["rle"], SIZE_HW)
    return area_hw


def _drawn(prediction: Any, *, task_id: int) -> list[Any]:
    from maskloop_studio.formats import prediction_to_regions
    from maskloop_studio.formats.label_config import map_labels, parse_label_config

    label_map = map_labels(parse_label_config(CONFIG), LABELS)
    return prediction_to_regions(prediction, label_map, id_seed=f"model/{task_id}")


@contextlib.contextmanager
def _setting(folder: Path) -> Iterator[Setting]:
    from maskloop.processes import find_free_port
    from maskloop.segmentation.checkpoint import load_checkpoint
    from maskloop.segmentation.image import decode_image

    make_swin(folder / "model", edge=EDGE)
    files = [_jpeg(number) for number in range(IMAGES)]
    decoded = [decode_image(data, max_pixels=10**8) for data in files]
    checkpoint = load_checkpoint(folder / "model")
    score = usual_score(checkpoint, decoded)
    port = find_free_port()
    with _file_server(files) as address, _server(folder, port, score) as process:
        yield Setting(
            checkpoint=checkpoint,
            thresholds=_thresholds(score),
            files=files,
            decoded=decoded,
            address=address,
            port=port,
            process=process,
            cuda=checkpoint.device.type == "cuda",
        )


def _thresholds(score: float) -> Any:
    from maskloop.segmentation.postprocess import Thresholds
    from maskloop.settings import Settings

    return Thresholds.from_settings(Settings(score_threshold=score))


def usual_score(checkpoint: Any, images: list[Any]) -> float:
    """Return the threshold that leaves about SEGMENTS of an image: random weights are never sure."""
    from maskloop.segmentation.predict import predict_images
    from maskloop.types import SegmentationTask

    all_of_them = replace(_thresholds(0.0), duplicate=1.0, piece=1.0)
    said = predict_images(
        checkpoint, images[:4], task=SegmentationTask.INSTANCE, thresholds=all_of_them, max_batch=1
    )
    scores = sorted((segment.score for one in said for segment in one.segments), reverse=True)
    return float(scores[min(SEGMENTS * len(said), len(scores) - 1)])


def make_swin(folder: Path, *, edge: int, contrast: float = CONTRAST) -> Path:
    """Write a Mask2Former Swin-T with random weights that sees images at this size.

    Args:
        folder: where.
        edge: pixels of the shorter side.
        contrast: of the random weights of queries and class head; rounding moves a model of much of it far.

    Returns:
        The folder.
    """
    import torch
    from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation

    from ..swin import swin_config

    torch.manual_seed(0)
    config = Mask2FormerConfig(
        backbone_config=swin_config(drop_path_rate=0.0),
        id2label=dict(enumerate(LABELS)),
        label2id={label: index for index, label in enumerate(LABELS)},
    )
    model = Mask2FormerForUniversalSegmentation(config).eval()
    # as a trained one: sure of a few of its queries, and that the others are nothing
    with torch.no_grad():
        model.model.transformer_module.queries_features.weight *= contrast
        model.model.transformer_module.queries_embedder.weight *= contrast
        model.class_predictor.weight *= contrast
        pixels_bchw = torch.randn(1, 3, 128, 128)
        logits_qk = model(pixel_values=pixels_bchw).class_queries_logits[0]
        lead_q = logits_qk[:, :-1].amax(dim=-1) - logits_qk[:, -1]
        model.class_predictor.bias[-1] += lead_q.quantile(1 - SEGMENTS / len(lead_q))
    model.save_pretrained(folder)
    processor = {"size": {"shortest_edge": edge, "longest_edge": 2 * edge}, "size_divisor": 32}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor), encoding="utf-8")
    return folder


def _jpeg(number: int) -> bytes:
    import io

    from PIL import Image

    from maskloop.lab.synthetic.shapes import make_image

    buffer = io.BytesIO()
    Image.fromarray(make_image(number, size_hw=SIZE_HW).image_hwc).save(buffer, format="JPEG", quality=92)
    return buffer.getvalue()


@contextlib.contextmanager
def _file_server(files: list[bytes]) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            data = files[int(self.path.strip("/").partition(".")[0])]
            self.send_response(200)
            self.send_header("Content-Type", "image/jpeg")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


@contextlib.contextmanager
def _server(folder: Path, port: int, score: float) -> Iterator[int]:
    from maskloop.processes import end, spawn

    home = folder / "home"
    home.mkdir()
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MASKLOOP_")}
    environment |= {
        "MASKLOOP_HOME": str(home),
        "MASKLOOP_MODEL": str(folder / "model"),
        "MASKLOOP_SCORE_THRESHOLD": repr(score),
        "MASKLOOP_ALLOW_PRIVATE_IMAGES": "true",
        "MASKLOOP_PREDICT_DEADLINE_S": "600",
    }
    log = home / "server.log"
    command = [sys.executable, "-m", "maskloop_studio", "serve", "--port", str(port)]
    process = spawn(command, log_path=log, env=environment)
    try:
        _wait(process, port, log)
        yield process.pid
    finally:
        end(process)


def _wait(process: Any, port: int, log: Path) -> None:
    """Return once the server has its model."""
    body = json.dumps({"config": CONFIG})
    end_s = time.monotonic() + 120
    while time.monotonic() < end_s and process.poll() is None:
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            connection.request("POST", "/validate", body, {"Content-Type": "application/json"})
            if connection.getresponse().status == 200:
                return
        time.sleep(0.2)
    raise RuntimeError(f"the server does not answer:\n{log.read_text(encoding='utf-8')[-2000:]}")


def _cpu_s(process: int) -> float:
    """Return the seconds that all threads of a process have used; 0 where the system does not say."""
    path = Path(f"/proc/{process}/stat")
    if not path.exists():
        return 0.0
    fields = path.read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _with_notes(result: Result, notes: Mapping[str, object]) -> Result:
    return replace(result, notes={**result.notes, **notes})


CASES = [
    Case(
        name="serve",
        summary="images a second through the HTTP server, against the bare forward pass",
        run=run,
    )
]
