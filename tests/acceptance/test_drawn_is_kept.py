"""Through a real Label Studio, what is drawn becomes exactly that mask: each form, each kind of image."""

import io
import time
from collections import Counter

import numpy as np
import pytest
from label_studio_sdk.label_interface import LabelInterface
from PIL import Image
from tests.fakes.drawn import SIZE_HW, WHERE, bitmask, box_mask, brush, polygon, vector

from maskloop.lab.synthetic.shapes import make_image
from maskloop.masks import paste_segment
from maskloop.store.jobs import JobKind, JobStatus
from maskloop.types import UNLABELLED
from maskloop_studio.projects.connect import connect_project
from maskloop_studio.runtime.tasks import work_on

pytestmark = pytest.mark.studio

LABELS = '<Label value="disc"/><Label value="square"/>'
IMAGE = '<Image name="image" value="$image"/>'
TOOLS = "".join(
    f'<{tag}Labels name="{name}" toName="image">{LABELS}</{tag}Labels>'
    for tag, name in (("Polygon", "p"), ("Vector", "v"), ("Brush", "b"), ("Bitmask", "m"))
)
CHOICES = '<Choices name="c" toName="image"><Choice value="unusable"/></Choices>'
CHOICE = {
    "id": "c",
    "from_name": "c",
    "to_name": "image",
    "type": "choices",
    "value": {"choices": ["unusable"]},
}
ONE_IMAGE = f"<View>{IMAGE}{TOOLS}{CHOICES}</View>"
RIGHT = (120, 30, 180, 80)  # another box, where two images differ
SET_ASIDE = "SET ASIDE"


def _polygons(name, to_name, attributes=""):
    return f'<PolygonLabels name="{name}" toName="{to_name}" {attributes}>{LABELS}</PolygonLabels>'


def _view(*parts):
    return f"<View>{''.join(parts)}</View>"


# name: label config, the task's data ("A" and "B" stand for two images), drawn,
# and (view, page) -> label -> box (nothing: an empty image), or SET_ASIDE.
CASES = {
    "bitmask beside polygon": (ONE_IMAGE, {"image": "A"}, [bitmask()], {("", 0): {"disc": WHERE}}),
    "bitmask and polygon": (
        ONE_IMAGE,
        {"image": "A"},
        [bitmask(), polygon(RIGHT, id="y")],
        {("", 0): [("disc", WHERE), ("disc", RIGHT)]},
    ),
    "vector": (ONE_IMAGE, {"image": "A"}, [vector()], {("", 0): {"disc": WHERE}}),
    "open vector": (ONE_IMAGE, {"image": "A"}, [vector(closed=False)], SET_ASIDE),
    "brush of 0 and 1": (ONE_IMAGE, {"image": "A"}, [brush(alpha=1)], {("", 0): {"disc": WHERE}}),
    "polygon in pixels": (
        ONE_IMAGE,
        {"image": "A"},
        [polygon(value={"points": [[120, 101], [160, 101], [160, 104]], "polygonlabels": ["disc"]})],
        SET_ASIDE,
    ),
    "nothing": (ONE_IMAGE, {"image": "A"}, [], {("", 0): {}}),
    "only a choice": (ONE_IMAGE, {"image": "A"}, [CHOICE], SET_ASIDE),
    "a choice beside a polygon": (ONE_IMAGE, {"image": "A"}, [CHOICE, polygon()], {("", 0): {"disc": WHERE}}),
    "a tool that the config lacks": (
        ONE_IMAGE,
        {"image": "A"},
        [polygon(from_name="gone"), polygon(RIGHT, id="y")],
        {("", 0): [(UNLABELLED, WHERE), ("disc", RIGHT)]},
    ),
    "no sizes": (
        ONE_IMAGE,
        {"image": "A"},
        [polygon(original_width=None, original_height=None, image_rotation=None)],
        {("", 0): {"disc": WHERE}},
    ),
    "bitmask without sizes": (
        ONE_IMAGE,
        {"image": "A"},
        [bitmask(original_width=None, original_height=None)],
        {("", 0): {"disc": WHERE}},
    ),
    "sizes 200.0 and 100.0": (
        ONE_IMAGE,
        {"image": "A"},
        [brush(original_width=200.0, original_height=100.0, image_rotation=0.0)],
        {("", 0): {"disc": WHERE}},
    ),
    "sizes as text": (
        ONE_IMAGE,
        {"image": "A"},
        [brush(original_width="200", original_height="100", image_rotation="0")],
        {("", 0): {"disc": WHERE}},
    ),
    "rotation 360": (ONE_IMAGE, {"image": "A"}, [vector(image_rotation=360)], {("", 0): {"disc": WHERE}}),
    "rotation -90": (ONE_IMAGE, {"image": "A"}, [polygon(image_rotation=-90)], {("", 0): {"disc": WHERE}}),
    "one control for two images, drawn on the second": (
        _view('<Image name="rgb" value="$a"/><Image name="ir" value="$b"/>', _polygons("p", "rgb,ir")),
        {"a": "A", "b": "B"},
        [polygon(to_name="ir")],
        {("ir", 0): {"disc": WHERE}},
    ),
    "one control for two images, drawn on both": (
        _view('<Image name="rgb" value="$a"/><Image name="ir" value="$b"/>', _polygons("p", "rgb,ir")),
        {"a": "A", "b": "B"},
        [polygon(to_name="ir"), polygon(RIGHT, to_name="rgb", id="y")],
        {("ir", 0): {"disc": WHERE}, ("rgb", 0): {"disc": RIGHT}},
    ),
    "two images with a control each, drawn on the second": (
        _view(
            '<Image name="rgb" value="$a"/><Image name="ir" value="$b"/>',
            _polygons("p", "rgb"),
            _polygons("q", "ir"),
        ),
        {"a": "A", "b": "B"},
        [polygon(to_name="ir", from_name="q")],
        {("ir", 0): {"disc": WHERE}},
    ),
    "the same image twice, drawn on the right one": (
        _view(
            '<Image name="left" value="$image"/><Image name="right" value="$image"/>', _polygons("p", "right")
        ),
        {"image": "A"},
        [polygon(to_name="right")],
        {("", 0): {"disc": WHERE}},
    ),
    "pages, drawn on the second": (
        _view('<Image name="image" valueList="$pages"/>', _polygons("p", "image")),
        {"pages": ["A", "B"]},
        [polygon(item_index=1)],
        {("image", 1): {"disc": WHERE}},
    ),
    "$payload.image": (
        _view('<Image name="image" value="$payload.image"/>', _polygons("p", "image")),
        {"payload": {"image": "A"}},
        [polygon()],
        {("", 0): {"disc": WHERE}},
    ),
    "$images[0]": (
        _view('<Image name="image" value="$images[0]"/>', _polygons("p", "image")),
        {"images": ["A", "B"]},
        [polygon()],
        {("", 0): {"disc": WHERE}},
    ),
    "$image-url": (
        _view('<Image name="image" value="$image-url"/>', _polygons("p", "image")),
        {"image-url": "A"},
        [polygon()],
        {("", 0): {"disc": WHERE}},
    ),
    "dynamic labels": (
        _view(IMAGE, '<PolygonLabels name="p" toName="image" value="$options"/>'),
        {"image": "A", "options": [{"value": "disc"}, {"value": "square"}]},
        [polygon()],
        {("", 0): {"disc": WHERE}},
    ),
}


def _png(seed):
    file = io.BytesIO()
    Image.fromarray(make_image(seed, size_hw=SIZE_HW, classes=("disc", "square")).image_hwc).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def uris(client):
    """Two images in a project of their own: Label Studio takes uploads only where the config has one key."""
    project = client.create_project("files", _view(IMAGE))
    yield {name: client.upload_image(project.id, f"{name}.png", _png(ord(name))) for name in "AB"}
    client.delete_project(project.id)


def _fill(value, uris):
    """Replace "A" and "B" by the addresses of two images."""
    if isinstance(value, dict):
        return {key: _fill(item, uris) for key, item in value.items()}
    if isinstance(value, list):
        return [_fill(item, uris) for item in value]
    return uris.get(value, value)


def _take_in(services, project_id, annotations):
    """Work off events, as they come in by webhook, until so many annotations are stored."""
    deadline = time.monotonic() + 60
    while len(services.store.annotations.known(project_id)) < annotations:
        assert time.monotonic() < deadline, services.store.jobs.find(kind=JobKind.EVENT)
        for job in services.store.jobs.due():
            if job.kind is JobKind.EVENT:
                assert work_on(job.job_id, services) is JobStatus.DONE, services.store.jobs.get(job.job_id)
        time.sleep(0.1)


def _assert_drawn(correction, boxes):
    found = [(s.label, paste_segment(s, correction.size_hw)) for s in correction.segments]
    wanted = boxes if isinstance(boxes, list) else list(boxes.items())
    assert [label for label, _ in found] == [label for label, _ in wanted]
    for (_, mask_hw), (_, box) in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(mask_hw, box_mask(box))


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_drawn_region_becomes_the_mask_on_its_image(services, server_url, make_project, uris, case):
    config, data, drawn, expected = case
    client, store = services.client, services.store
    project = make_project("drawn", config)
    task_id, untouched_id = client.import_tasks(project.id, [{"data": _fill(data, uris)}] * 2)
    connect_project(project.id, server_url, services)

    client._json(
        "POST",
        "api/dm/actions",
        {"project": project.id, "selectedItems": {"all": False, "included": [task_id, untouched_id]}},
        params={"id": "retrieve_tasks_predictions", "project": project.id},
    )
    (prediction,), (shown,) = client.predictions_of(task_id), client.predictions_of(untouched_id)
    regions = prediction["result"]
    assert regions
    if "options" not in data:  # the SDK knows no labels that come with a task
        answer = {"result": regions, "score": prediction["score"]}
        assert LabelInterface(config).validate_prediction(answer, return_errors=True) == []

    kept = [{**region, "origin": "prediction"} for region in shown["result"]]
    for number, result, parent in ((task_id, drawn, prediction), (untouched_id, kept, shown)):
        client.create_annotation(
            number, {"result": result, "lead_time": 1, "parent_prediction": parent["id"]}
        )
    _take_in(services, project.id, 2)

    corrections = [one for one in store.corrections.of(project.id) if one.task_id == task_id]
    if expected == SET_ASIDE:
        assert (corrections, store.annotations.count_set_aside(project.id)) == ([], 1)
    else:
        assert store.annotations.set_aside(project.id) == ()
        assert {(one.view, one.image_index) for one in corrections} == expected.keys()
        for one in corrections:
            _assert_drawn(one, expected[one.view, one.image_index])
            assert one.image_uri == uris["B" if one.view == "ir" or one.image_index == 1 else "A"]

    whole = [one for one in store.corrections.of(project.id) if one.task_id == untouched_id]
    found = Counter((one.view, one.image_index) for one in whole for _ in one.segments)
    names = {(one.view, one.image_index) for one in whole}
    several = any(view for view, _ in names)
    objects = {
        ((r["to_name"] if several else ""), r.get("item_index") or 0, r["id"].partition("-")[0])
        for r in shown["result"]
    }
    assert found == Counter((view, page) for view, page, _ in objects)
    assert all(one.edits.added == one.edits.removed == one.edits.changed == 0 for one in whole)
