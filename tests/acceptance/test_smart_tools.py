"""What an annotator does with smart tools in a real editor: a click, a negative click, a rectangle."""

import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.acceptance.test_editor_edits import drag
from tests.acceptance.test_editor_screenshot import SCREENSHOTS, log_in, wait_until_still

from maskloop.lab.synthetic.shapes import make_image
from maskloop.masks import paste_segment
from maskloop.types import BoolMask, Segment
from maskloop_studio.demo.studio import RealStudio
from maskloop_studio.formats import annotation_to_segments, parse_label_config
from maskloop_studio.labelstudio.client import StudioClient, StudioProject
from maskloop_studio.projects.connect import connect_project
from maskloop_studio.services import Services

pytestmark = [pytest.mark.studio, pytest.mark.browser]

LABELS = '<Label value="square" background="#0000ff"/><Label value="tile" background="#ff0000"/>'
CONFIG = f"""<View><Image name="image" value="$image"/>
<FORM name="shape" toName="image" smart="false">{LABELS}</FORM>
<KeyPointLabels name="point" toName="image" smart="true" smartOnly="true">{LABELS}</KeyPointLabels>
<RectangleLabels name="box" toName="image" smart="true" smartOnly="true">{LABELS}</RectangleLabels></View>"""
SIZE = 512  # pixels of the square picture
MISSED = 16  # the made-up image whose only object, a square, the shipped model does not find
# Hotkeys: the point's "square", and the box's "tile", which no model knows.
KEY_POINT, NO_CLASS_BOX = "3", "6"
SLACK = 3  # pixels between the object and the dragged rectangle
BESIDE = (0.48, 0.60)  # x, y as shares: on the square, where the negative click goes


# Named by what is drawn, so that `-k brush`, for whoever works on the codec, does not start a browser.
@pytest.mark.parametrize(
    "form", [pytest.param("BrushLabels", id="masks"), pytest.param("PolygonLabels", id="outlines")]
)
def test_smart_tools_find_the_object_that_the_prediction_missed(
    form: str,
    studio: RealStudio,
    client: StudioClient,
    services: Services,
    server_url: str,
    chromium: Any,
    make_project: Callable[..., StudioProject],
) -> None:
    project = make_project("smart", CONFIG.replace("FORM", form))
    picture, truth_hw = picture_of(MISSED)
    uris = [client.upload_image(project.id, f"{number}.png", picture) for number in range(2)]
    clicked_id, boxed_id = client.import_tasks(project.id, [{"data": {"image": uri}} for uri in uris])
    connect_project(project.id, server_url, services)
    page = log_in(chromium, studio, height=1000)

    open_image(page, studio, project, clicked_id)
    (prediction,) = client.predictions_of(clicked_id)
    found = masks_of(prediction["result"], project)
    assert max((iou(mask_hw, truth_hw) for _, mask_hw in found), default=0.0) < 0.1, (
        "the prediction missed it"
    )
    page.get_by_text("Auto-Annotation", exact=True).first.click()  # `connect` made the switch appear

    choose(page, "key-point-tool", KEY_POINT)
    ((label, first_hw),) = masks_of(answer(page, lambda: click(page, middle(truth_hw))), project)
    keep_picture(page, f"smart-click-{form}")
    assert label == "square"
    assert iou(first_hw, truth_hw) > 0.9

    page.keyboard.press(KEY_POINT)  # the editor lets go of the label with each answer
    ((label, second_hw),) = masks_of(answer(page, lambda: click(page, BESIDE, negative=True)), project)
    keep_picture(page, f"smart-negative-{form}")
    row, column = int(BESIDE[1] * SIZE), int(BESIDE[0] * SIZE)
    assert first_hw[row, column]
    assert not second_hw[row - 8 : row + 8, column - 8 : column + 8].any(), "what is around it goes, too"
    assert label == "square"
    assert iou(second_hw, first_hw) > 0.8, "it is still the first click's object"
    submit(page)

    open_image(page, studio, project, boxed_id)
    choose(page, "rectangle-tool", NO_CLASS_BOX)
    boxed = answer(page, lambda: drag_box(page, truth_hw))
    keep_picture(page, f"smart-box-{form}")
    submit(page)
    page.close()

    for task_id, label, drawn_hw in ((clicked_id, "square", second_hw), (boxed_id, "tile", truth_hw)):
        (annotation,) = client.task_annotations(task_id)
        (region,) = annotation["result"]
        assert region["type"] == form.lower(), "points and boxes of smart tools leave with the answer"
        ((kept_label, kept_hw),) = masks_of([region], project)
        assert kept_label == label
        assert iou(kept_hw, drawn_hw) > 0.9
    assert [region["from_name"] for region in boxed] == ["shape"]


def picture_of(seed: int) -> tuple[bytes, BoolMask]:
    """Return a PNG of a made-up image and the mask of its object."""
    made = make_image(seed, size_hw=(128, 128), domain="shifted")
    picture = Image.fromarray(made.image_hwc).resize((SIZE, SIZE), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    picture.save(file, "PNG")
    (only,) = made.segments
    mask_hw = paste_segment(only, (128, 128))
    return file.getvalue(), np.repeat(np.repeat(mask_hw, 4, axis=0), 4, axis=1)


def masks_of(result: Sequence[dict[str, Any]], project: StudioProject) -> list[tuple[str, BoolMask]]:
    """Return labels and masks of regions."""
    content = annotation_to_segments(result, parse_label_config(project.label_config), size_hw=(SIZE, SIZE))
    assert content.refusals == ()
    return [(segment.label, mask_of(segment)) for segment in content.segments]


def mask_of(segment: Segment) -> BoolMask:
    return paste_segment(segment, (SIZE, SIZE))


def iou(first_hw: BoolMask, second_hw: BoolMask) -> float:
    return float((first_hw & second_hw).sum() / max(1, (first_hw | second_hw).sum()))


def middle(mask_hw: BoolMask) -> tuple[float, float]:
    rows, columns = np.nonzero(mask_hw)
    return float(columns.mean() / SIZE), float(rows.mean() / SIZE)


def open_image(page: Any, studio: RealStudio, project: StudioProject, task_id: int) -> None:
    page.goto(f"{studio.url}/projects/{project.id}/data?task={task_id}")
    page.wait_for_selector(".konvajs-content")
    wait_until_still(page)


def choose(page: Any, tool: str, hotkey: str) -> None:
    """Choose a smart tool of the toolbar, then a label of it."""
    page.locator(".lsf-toolbar .lsf-tool_smart").first.hover()  # it folds out the tools
    page.wait_for_timeout(500)
    page.locator(f".lsf-tool_smart[aria-label={tool}]").first.click()
    page.wait_for_timeout(300)
    page.keyboard.press(hotkey)
    page.wait_for_timeout(300)


def answer(page: Any, ask: Callable[[], None]) -> list[dict[str, Any]]:
    """Return the regions that come back for what is done on the image, once they are shown."""
    with page.expect_response(lambda response: "interactive-annotating" in response.url) as expected:
        ask()
    data = expected.value.json()["data"]
    wait_until_still(page)
    regions: list[dict[str, Any]] = data["result"]
    return regions


def shown_at(page: Any) -> tuple[float, float, float]:
    """Return left, top and side of the square picture on the page; its canvas may be wider."""
    box = page.locator(".konvajs-content").first.bounding_box()
    return box["x"], box["y"], min(box["width"], box["height"])


def click(page: Any, place: tuple[float, float], *, negative: bool = False) -> None:
    left, top, side = shown_at(page)
    if negative:
        page.keyboard.down("Alt")
    page.mouse.move(left + side * place[0], top + side * place[1], steps=5)
    page.wait_for_timeout(200)
    page.mouse.down()
    page.wait_for_timeout(100)
    page.mouse.up()
    if negative:
        page.wait_for_timeout(200)
        page.keyboard.up("Alt")


def drag_box(page: Any, mask_hw: BoolMask) -> None:
    """Drag a rectangle around an object."""
    left, top, side = shown_at(page)
    rows, columns = np.nonzero(mask_hw)
    low, high = (columns.min() - SLACK, rows.min() - SLACK), (columns.max() + SLACK, rows.max() + SLACK)
    corners = [(left + side * x / SIZE, top + side * y / SIZE) for x, y in (low, high)]
    drag(page, *corners)


def submit(page: Any) -> None:
    """Accept what is suggested, and submit."""
    buttons = page.locator("button:visible")
    names = [button.get_attribute("aria-label") for button in buttons.all()]
    buttons.nth(names.index("Submit current annotation") - 1).click()
    wait_until_still(page)
    with page.expect_response(lambda response: "/annotations" in response.url and response.ok):
        page.get_by_label("Submit current annotation").click()
    page.wait_for_timeout(500)


def keep_picture(page: Any, name: str) -> None:
    """Keep what is shown; the page is still."""
    SCREENSHOTS.mkdir(exist_ok=True)
    (SCREENSHOTS / f"{name}.png").write_bytes(page.screenshot())
