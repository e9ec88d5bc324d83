"""What an annotator does with the mouse to a predicted polygon, and what maskloop counts of it."""

import dataclasses
import io
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import SecretStr
from tests.acceptance.test_editor_screenshot import (
    SCREENSHOTS,
    make_prediction,
    open_task,
    wait_until_still,
)

from maskloop.settings import Settings
from maskloop.store.jobs import JobStatus, NewEvent
from maskloop.testing.memory import MemoryQueue
from maskloop.types import EditCounts
from maskloop_studio.demo.studio import RealStudio
from maskloop_studio.formats import map_labels, parse_label_config, prediction_to_regions
from maskloop_studio.labelstudio.client import StudioClient, StudioProject
from maskloop_studio.runtime.tasks import work_on
from maskloop_studio.services import Services

pytestmark = [pytest.mark.studio, pytest.mark.browser]

CONFIG = """<View><Image name="img" value="$image"/><PolygonLabels name="poly" toName="img">
<Label value="House" background="#ff0000"/></PolygonLabels></View>"""
MOVED = (0.16, 0.08)  # of the predicted house's width and height, inwards: IoU .88


@pytest.fixture
def services(settings: Settings, studio: RealStudio) -> Iterator[Services]:
    changes = {"label_studio_url": studio.url, "label_studio_api_key": SecretStr(studio.token)}
    made = Services(settings.model_copy(update=changes))
    made.queue = MemoryQueue()
    yield made
    made.close()


def test_editor_vertex_dragged_with_the_mouse_is_counted_as_nudged(
    studio: RealStudio,
    client: StudioClient,
    services: Services,
    chromium: Any,
    make_project: Callable[..., StudioProject],
    make_task: Callable[[int], int],
) -> None:
    project = make_project("vertex", CONFIG)
    task_id = make_task(project.id)
    label_map = map_labels(parse_label_config(project.label_config), ["House"])
    whole = make_prediction()
    prediction = dataclasses.replace(whole, segments=whole.segments[-1:])  # the house
    regions = prediction_to_regions(prediction, label_map, id_seed=f"{task_id}:maskloop-v1")
    client.create_prediction(task_id, regions, model_version="maskloop-v1")
    client.update_project(project.id, model_version="maskloop-v1")

    page = open_task(chromium, studio, project.id, task_id)
    wait_until_still(page)
    page.locator(".lsf-outliner-item__title", has_text="House").first.click()
    left, top, right, bottom = outline_box(page)
    drag(page, (left, top), (left + MOVED[0] * (right - left), top + MOVED[1] * (bottom - top)))
    SCREENSHOTS.mkdir(exist_ok=True)
    (SCREENSHOTS / "vertex.png").write_bytes(wait_until_still(page))
    page.get_by_text("Submit", exact=True).first.click()
    page.wait_for_timeout(3000)
    page.close()

    (annotation,) = client.task_annotations(task_id)
    (before,), (after,) = regions, annotation["result"]
    assert after["id"] == before["id"]
    assert after["value"]["points"] != before["value"]["points"], "the vertex was moved"

    services.store.projects.save(project.id, project.label_config)
    event = NewEvent(
        key="saved", action="ANNOTATION_CREATED", project_id=project.id, subject_ids=(annotation["id"],)
    )
    (job_id,) = services.store.jobs.add_events([event])
    assert job_id is not None
    assert work_on(job_id, services) is JobStatus.DONE
    (edited,) = services.store.corrections.edited(project.id)
    assert edited.annotator is not None
    assert dict(edited.label_edits) == {"House": EditCounts(changed=1, nudged=1)}


def outline_box(page: Any) -> tuple[int, int, int, int]:
    """Return where the selected red outline is on the page: left, top, right, bottom.

    The editor may zoom the image a little, so this cannot be computed from the region's points.
    """
    shot = Image.open(io.BytesIO(wait_until_still(page))).convert("RGB")
    box = page.locator(".konvajs-content").first.bounding_box()
    x, y = round(box["x"]), round(box["y"])
    canvas = np.asarray(shot.crop((x, y, x + round(box["width"]), y + round(box["height"])))).astype(int)
    rows, columns = np.nonzero((canvas[..., 0] > 240) & (canvas[..., 1:].max(axis=-1) < 40))
    return x + int(columns.min()), y + int(rows.min()), x + int(columns.max()), y + int(rows.max())


def drag(page: Any, start_xy: tuple[float, float], end_xy: tuple[float, float]) -> None:
    """Drag with the mouse from one place of the page to another."""
    page.mouse.move(*start_xy, steps=10)
    page.wait_for_timeout(500)
    page.mouse.down()
    page.wait_for_timeout(200)
    page.mouse.move(*end_xy, steps=10)
    page.wait_for_timeout(200)
    page.mouse.up()
