"""Tasks with several images as Label Studio's JSON: read back by the reader of Label Studio's answers."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from maskloop.curation.snapshots.rows import ImageRow, ObjectRow, SnapshotImage
from maskloop.mask_runs import segment_to_rle
from maskloop.types import Segment
from maskloop_studio.exchange.studio_json import StudioFormat
from maskloop_studio.formats import annotation_to_segments
from maskloop_studio.formats.controls import TaskImage
from maskloop_studio.formats.label_config import parse_label_config

SIZE = (20, 30)
LABELS = '<Label value="cat"/>'
ONE = f'<View><Image name="i" value="$image"/><BrushLabels name="b" toName="i">{LABELS}</BrushLabels></View>'
PAGES = ONE.replace('value="$image"', 'valueList="$pages.all"')
TWO = (
    '<View><Image name="left" value="$l"/><Image name="right" value="$r"/>'
    f'<BrushLabels name="b" toName="left">{LABELS}</BrushLabels>'
    f'<BrushLabels name="c" toName="right">{LABELS}</BrushLabels></View>'
)


def row(task_id, left, *, view="", page=0):
    """One image of a task with a square at `left`."""
    item = f"task-{task_id:012d}" + (f"/{view}/{page:05d}" if view or page else "")
    image = ImageRow(
        item=item,
        number=task_id,
        file_name=f"{task_id}-{view}-{page}.png",
        image_key=f"{task_id:064x}",
        image_uri=f"/data/{task_id}/{view}{page}.png",
        height=SIZE[0],
        width=SIZE[1],
        split="train",
        source="annotation",
        project_id=1,
        task_id=task_id,
        annotation_id=100 + task_id,
        version_id=1,
        annotator=1,
        updated_at="2026-01-02T03:04:05.000000+00:00",
        view=view,
        image_index=page,
    )
    segment = Segment(mask_hw=np.ones((4, 4), np.bool_), offset_yx=(3, left), label="cat")
    found = ObjectRow(
        item=item,
        position=0,
        number=1000 * task_id + left,
        kind="object",
        label="cat",
        category_id=1,
        rle=segment_to_rle(segment, SIZE),
        area=16,
        left=left,
        top=3,
        box_width=4,
        box_height=4,
        score=1.0,
    )
    return SnapshotImage(image=image, objects=(found,))


@pytest.fixture
def write(tmp_path):
    """Return the tasks that are written of rows with a label config."""

    def do(config, *rows):
        manifest = SimpleNamespace(categories=[SimpleNamespace(name="cat")], label_configs={"x": config})
        form = StudioFormat(manifest)
        records = [form.write(one, None, tmp_path) for one in rows]
        form.finish(lambda: iter(records), None, tmp_path)
        return json.loads((tmp_path / "tasks.json").read_text())

    return do


def lefts(task, config, *places):
    """Return where the square is on each image, as maskloop reads annotations in."""
    result = task["annotations"][0]["result"]
    found = [
        annotation_to_segments(
            result, parse_label_config(config), image=TaskImage(to_name=name, item_index=page, address="")
        )
        for name, page in places
    ]
    return [[segment.offset_yx[1] for segment in one.segments] for one in found]


def test_pages_of_a_task_stay_one_task_in_their_order(write):
    first, second = write(
        PAGES, row(1, 2, view="i", page=0), row(1, 9, view="i", page=2), row(2, 5, view="i")
    )
    assert first["data"] == {"pages": {"all": ["/data/1/i0.png", "/data/1/i2.png"]}}
    assert lefts(first, PAGES, ("i", 0), ("i", 1)) == [[2], [9]]
    assert second["data"] == {"pages": {"all": ["/data/2/i0.png"]}}
    assert lefts(second, PAGES, ("i", 0)) == [[5]]


def test_two_images_of_a_task_stay_one_task(write):
    whole, half = write(TWO, row(1, 2, view="left"), row(1, 9, view="right"), row(2, 5, view="right"))
    assert whole["data"] == {"l": "/data/1/left0.png", "r": "/data/1/right0.png"}
    assert lefts(whole, TWO, ("left", None), ("right", None)) == [[2], [9]]
    assert half["data"] == {"l": "", "r": "/data/2/right0.png"}


def test_pages_without_a_place_in_the_config_become_tasks(write):
    tasks = write(ONE, row(1, 2, view="old", page=0), row(1, 9, view="old", page=1))
    assert [task["data"]["image"] for task in tasks] == ["/data/1/old0.png", "/data/1/old1.png"]
    assert [lefts(task, ONE, ("i", None)) for task in tasks] == [[[2]], [[9]]]


def test_tasks_with_one_image_are_as_they_were(write):
    tasks = write(ONE, row(1, 2), row(2, 9))
    assert [task["data"] for task in tasks] == [{"image": "/data/1/0.png"}, {"image": "/data/2/0.png"}]
    assert "item_index" not in tasks[0]["annotations"][0]["result"][0]
