"""Bitmasks and vectors that a real editor writes, upright and turned: they are read, and ours stay."""

import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.acceptance.test_editor_screenshot import SIZE_HW, make_prediction, open_task, wait_until_still

from maskloop.masks import segment_iou
from maskloop_studio.demo.studio import RealStudio
from maskloop_studio.formats import (
    annotation_to_segments,
    map_labels,
    parse_label_config,
    prediction_to_regions,
)
from maskloop_studio.labelstudio.client import StudioClient, StudioProject

pytestmark = [pytest.mark.studio, pytest.mark.browser]

CONFIG = """<View><Image name="img" value="$image" rotateControl="true"/>
<BitmaskLabels name="m" toName="img"><Label value="Car"/></BitmaskLabels>
<VectorLabels name="v" toName="img" closable="true"><Label value="Tree"/><Label value="House"/></VectorLabels>
</View>"""
Points = Sequence[tuple[float, float]]  # x, y as shares of what is shown


@pytest.mark.parametrize(
    ("quarters", "stroke", "triangle"),
    [
        pytest.param(0, [(0.1, 0.93), (0.3, 0.93)], [(0.45, 0.04), (0.8, 0.04), (0.8, 0.2)], id="upright"),
        # Label Studio 1.23.2 itself takes no points of a vector in a turned view.
        pytest.param(1, [(0.2, 0.06), (0.5, 0.06)], [], id="turned"),
    ],
)
def test_editor_writes_bitmasks_and_vectors_that_are_read(
    quarters: int,
    stroke: Points,
    triangle: Points,
    studio: RealStudio,
    client: StudioClient,
    chromium: Any,
    make_project: Callable[..., StudioProject],
) -> None:
    project = make_project("draws", CONFIG)
    config = parse_label_config(project.label_config)
    grey = io.BytesIO()
    Image.new("RGB", SIZE_HW[::-1], (200, 200, 200)).save(grey, "PNG")
    uri = client.upload_image(project.id, "grey.png", grey.getvalue())
    (task_id,) = client.import_tasks(project.id, [{"data": {"image": uri}}])
    label_map = map_labels(config, ["Car", "Tree", "House"])
    regions = prediction_to_regions(make_prediction(), label_map, id_seed=f"v1/{task_id}")
    made = client.create_annotation(task_id, {"result": regions, "lead_time": 1, "project": str(project.id)})

    page = open_task(chromium, studio, project.id, task_id)
    wait_until_still(page)
    for _ in range(quarters):
        page.keyboard.press("Alt+ArrowRight")
        wait_until_still(page)
    draw(page, stroke, triangle)
    page.get_by_text("Update", exact=True).first.click()
    page.wait_for_timeout(3000)
    page.close()

    annotation = client.annotation(int(made["id"]))
    assert annotation is not None
    result = annotation["result"]
    drawn = ["bitmasklabels", "vectorlabels"] if triangle else ["bitmasklabels"]
    assert [region["type"] for region in result][3:] == drawn
    assert {region["image_rotation"] for region in result} == {90 * quarters}
    content = annotation_to_segments(result, config, size_hw=SIZE_HW)
    assert (content.refusals, content.set_aside, content.regions_here) == ((), None, 3 + len(drawn))
    ours, (painted, *closed) = content.segments[:3], content.segments[3:]
    for segment, predicted in zip(ours, make_prediction().segments, strict=True):
        assert segment_iou(segment, predicted) > 0.98, "a turned view leaves masks of the upright image"
    # A stroke across the view runs down the upright image where the view is turned.
    height, width = painted.mask_hw.shape
    assert (height > width) == (quarters % 2 == 1)
    assert painted.label == "Car"
    for segment in closed:
        assert segment.label == "Tree"
        assert segment.area == pytest.approx(np.prod(segment.mask_hw.shape) / 2, rel=0.1)


def draw(page: Any, stroke: Points, triangle: Points) -> None:
    """Paint a stroke as Car and a closed triangle as Tree, with the mouse."""
    box = page.locator(".konvajs-content").first.bounding_box()

    def move(x: float, y: float) -> None:
        page.mouse.move(box["x"] + box["width"] * x, box["y"] + box["height"] * y, steps=10)

    page.keyboard.press("1")
    page.wait_for_timeout(500)
    move(*stroke[0])
    page.mouse.down()
    move(*stroke[1])
    page.mouse.up()
    wait_until_still(page)
    page.keyboard.press("Escape")
    page.wait_for_timeout(500)
    page.keyboard.press("2")
    page.wait_for_timeout(500)
    # The first point again closes the triangle, once the editor has drawn it as hovered.
    for point in (*triangle, *triangle[:1]):
        move(*point)
        wait_until_still(page)
        page.mouse.down()
        page.wait_for_timeout(100)
        page.mouse.up()
        wait_until_still(page)
