"""Every family, task and region form through a real Label Studio and back, as one table at the end."""

import io
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, get_args

import numpy as np
import pytest
from label_studio_sdk.label_interface import LabelInterface
from PIL import Image

from maskloop.lab.synthetic.shapes import SHAPE_CLASSES, make_image
from maskloop.masks import mask_to_segment, paste_segment, segment_iou
from maskloop.segmentation.checkpoint import load_checkpoint
from maskloop.segmentation.image import decode_image
from maskloop.segmentation.predict import predict_images
from maskloop.settings import BASE_MODEL, BASE_ONEFORMER, Settings
from maskloop.types import BoolMask, Prediction, RgbImage, Segment, SegmentationTask
from maskloop_studio.demo.studio import RealStudio
from maskloop_studio.formats import annotation_to_segments, prediction_to_regions
from maskloop_studio.formats.label_config import ControlKind, map_labels, parse_label_config
from maskloop_studio.images.fetcher import ImageFetcher
from maskloop_studio.labelstudio.client import StudioClient, StudioProject

pytestmark = pytest.mark.studio

FAMILIES = {"Mask2Former": BASE_MODEL, "OneFormer": BASE_ONEFORMER}
TAGS = {
    "brush": "Brush",
    "bitmask": "Bitmask",
    "polygon": "Polygon",
    "vector": "Vector",
    "rectangle": "Rectangle",
    "ellipse": "Ellipse",
    "keypoint": "KeyPoint",
}
SEEDS = (1003, 1009)
SIZE_HW = (160, 200)
LEAST_AREA = 100  # pixels; below, one pixel of the border weighs too much to be judged by IoU
LEAST_IOU = {"bitmask": 1.0, "polygon": 0.98, "vector": 0.98, "rectangle": 0.97, "ellipse": 0.97}


@cache
def checkpoint_of(family: str) -> Any:
    return load_checkpoint(FAMILIES[family], device="cpu")


@cache
def picture(seed: int) -> RgbImage:
    return make_image(seed, size_hw=SIZE_HW).image_hwc


@cache
def predict(family: str, task: SegmentationTask, seed: int) -> Prediction:
    return predict_images(checkpoint_of(family), [picture(seed)], task=task)[0]


@pytest.mark.parametrize(
    ("form", "own_labels"),
    [*((form, True) for form in get_args(ControlKind)), ("brush", False), ("polygon", False)],
)
def test_every_family_and_task_comes_back_from_label_studio(
    studio: RealStudio,
    client: StudioClient,
    make_project: Callable[..., StudioProject],
    record_form: Callable[..., None],
    form: str,
    own_labels: bool,
) -> None:
    shown_form = form if own_labels else f"{form} + labels"
    project = make_project(shown_form, make_label_config(TAGS[form], own_labels=own_labels))
    uris = {seed: upload(client, project.id, seed) for seed in SEEDS}
    with ImageFetcher(Settings(label_studio_url=studio.url, label_studio_api_key=studio.token)) as fetcher:
        for seed, data in zip(SEEDS, fetcher.fetch_many(list(uris.values())), strict=True):
            assert isinstance(data, bytes)
            np.testing.assert_array_equal(decode_image(data, max_pixels=10**6), picture(seed))

    combinations = [(family, task) for family in FAMILIES for task in SegmentationTask]
    jobs = [(*combination, seed) for combination in combinations for seed in SEEDS]
    task_ids = client.import_tasks(project.id, [{"data": {"photo": uris[seed]}} for _, _, seed in jobs])
    ious: dict[tuple[str, SegmentationTask], list[tuple[float, float]]] = {}
    for (family, task, seed), task_id in zip(jobs, task_ids, strict=True):
        prediction = predict(family, task, seed)
        result = through_studio(client, project, task_id, prediction, model_version=f"{family}-{task}")
        found = compare(result, prediction, project.label_config, form)
        ious.setdefault((family, task), []).extend(found)

    for (family, task), pairs in ious.items():
        own, mask = np.array(pairs).T
        record_form(family, str(task), shown_form, len(pairs), own.mean(), own.min(), mask.mean())
        assert own.min() >= LEAST_IOU.get(form, 1.0), (family, task, form)
    assert list(ious) == combinations, "every combination has segments"


def make_label_config(tag: str, *, own_labels: bool) -> str:
    """Return a config with `<BrushLabels>` or, without labels of its own, `<Brush>` beside `<Labels>`."""
    labels = "".join(f'<Label value="{name}"/>' for name in SHAPE_CLASSES)
    tools = f'<{tag}Labels name="tool" toName="img">{labels}</{tag}Labels>'
    if not own_labels:
        tools = f'<{tag} name="tool" toName="img"/><Labels name="names" toName="img">{labels}</Labels>'
    return f'<View><Image name="img" value="$photo"/>{tools}</View>'


def upload(client: StudioClient, project_id: int, seed: int) -> str:
    buffer = io.BytesIO()
    Image.fromarray(picture(seed)).save(buffer, "PNG")
    return client.upload_image(project_id, f"{seed}.png", buffer.getvalue())


def through_studio(
    client: StudioClient,
    project: StudioProject,
    task_id: int,
    prediction: Prediction,
    *,
    model_version: str,
) -> list[dict[str, Any]]:
    """Push a prediction, submit it untouched as the editor does, and return the annotation's regions."""
    label_map = map_labels(parse_label_config(project.label_config), SHAPE_CLASSES)
    regions = prediction_to_regions(prediction, label_map, id_seed=f"{model_version}/{task_id}")
    judge = LabelInterface(project.label_config)
    assert judge.validate_prediction({"result": regions, "score": 1.0}, return_errors=True) == []
    prediction_id = client.create_prediction(
        task_id, regions, score=prediction.confidence, model_version=model_version
    )
    shown = client.prediction(prediction_id)
    assert shown is not None
    submitted = client.create_annotation(
        task_id,
        {
            "result": [{**region, "origin": "prediction"} for region in shown["result"]],
            "lead_time": 3.0,
            "parent_prediction": prediction_id,
            "project": str(project.id),
        },
    )
    annotation = client.annotation(int(submitted["id"]))
    assert annotation is not None
    return list(annotation["result"])


def compare(
    result: Sequence[Mapping[str, Any]], prediction: Prediction, label_config: str, form: str
) -> list[tuple[float, float]]:
    """Return of each segment the IoU with what its form can say, and with the predicted mask."""
    content = annotation_to_segments(list(result), parse_label_config(label_config), size_hw=SIZE_HW)
    assert not content.problems
    if form == "keypoint":
        assert content.segments == (), "a point is no mask"
        return [compare_point(*pair) for pair in zip(result, prediction.segments, strict=True)]
    assert [s.label for s in content.segments] == [s.label for s in prediction.segments]
    pairs = []
    for index, (read, predicted) in enumerate(zip(content.segments, prediction.segments, strict=True)):
        if predicted.area < LEAST_AREA:
            continue
        drawn = predicted
        if form in ("rectangle", "ellipse"):
            drawn = drawn_shape(result[index]["value"], form, predicted)
        pairs.append((segment_iou(read, drawn), segment_iou(read, predicted)))
    return pairs


def compare_point(region: Mapping[str, Any], predicted: Segment) -> tuple[float, float]:
    value = region["value"]
    assert value["keypointlabels"] == [predicted.label]
    row = int(value["y"] / 100 * SIZE_HW[0])
    column = int(value["x"] / 100 * SIZE_HW[1])
    inside = paste_segment(predicted, SIZE_HW)[row, column]
    return float(inside), float("nan")


def drawn_shape(value: Mapping[str, float], form: str, predicted: Segment) -> Segment:
    """Return a rectangle or an ellipse as Label Studio shows it, pixel by pixel; it lies over the mask."""
    height, width = SIZE_HW
    y, x = np.mgrid[:height, :width] + 0.5
    dx, dy = x - value["x"] / 100 * width, y - value["y"] / 100 * height
    turn = np.deg2rad(value.get("rotation", 0))
    along, down = dx * np.cos(turn) + dy * np.sin(turn), dy * np.cos(turn) - dx * np.sin(turn)
    mask_hw: BoolMask
    if form == "rectangle":
        mask_hw = (along >= 0) & (along <= value["width"] / 100 * width)
        mask_hw &= (down >= 0) & (down <= value["height"] / 100 * height)
        top, left, bottom, right = predicted.box_yxyx
        assert mask_hw[top:bottom, left:right].all()
        assert mask_hw.sum() == (bottom - top) * (right - left)
    else:
        radius_x, radius_y = value["radiusX"] / 100 * width, value["radiusY"] / 100 * height
        mask_hw = (along / radius_x) ** 2 + (down / radius_y) ** 2 <= 1
        assert mask_hw.sum() == pytest.approx(predicted.area, rel=0.15)
    segment = mask_to_segment(mask_hw, label=predicted.label)
    assert segment is not None
    return segment
