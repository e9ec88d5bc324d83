"""What annotators see: our regions in Label Studio's editor, in a real browser."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from maskloop.masks import mask_to_segment, paste_segment
from maskloop.types import BoolMask, Prediction, Segment
from maskloop_studio.demo.studio import RealStudio
from maskloop_studio.formats import annotation_to_segments, prediction_to_regions
from maskloop_studio.formats.label_config import map_labels, parse_label_config
from maskloop_studio.labelstudio.client import StudioClient, StudioProject

pytestmark = [pytest.mark.studio, pytest.mark.browser]

SCREENSHOTS = Path(__file__).with_name("screenshots")
SIZE_HW = (240, 320)
SHAPES_CONFIG = """<View><Image name="img" value="$image"/>
<EllipseLabels name="e" toName="img"><Label value="Car" background="#0000ff"/></EllipseLabels>
<KeyPointLabels name="k" toName="img"><Label value="Tree" background="#00ff00"/></KeyPointLabels>
<RectangleLabels name="r" toName="img"><Label value="House" background="#ff0000"/></RectangleLabels></View>"""
WAIT_MS = 60_000


def make_prediction() -> Prediction:
    """Three objects of the picture; the disc has a hole, which must stay open."""
    y, x = np.mgrid[: SIZE_HW[0], : SIZE_HW[1]]
    far = np.hypot(y - 110, x - 90)
    block = (y >= 80) & (y <= 200) & (x >= 215) & (x <= 290)
    crown = (y >= 120) & (y <= 200) & (abs(x - 175) <= (y - 120) * 25 / 80)
    segments = (
        _segment((far <= 50) & (far >= 20), "Car", 0.93),
        _segment(crown, "Tree", 0.81),
        _segment(block, "House", 0.74),
    )
    return Prediction(segments=segments, size_hw=SIZE_HW, confidence=0.74)


def _segment(mask_hw: BoolMask, label: str, score: float) -> Segment:
    segment = mask_to_segment(mask_hw, label=label, score=score)
    assert segment is not None
    return segment


def open_task(browser: Any, studio: RealStudio, project_id: int, task_id: int) -> Any:
    """Log in like a person and open the task; return the page once it lists regions."""
    page = log_in(browser, studio)
    page.goto(f"{studio.url}/projects/{project_id}/data?task={task_id}")
    page.wait_for_selector(".lsf-outliner-item__title")
    return page


def log_in(browser: Any, studio: RealStudio, *, width: int = 1400, height: int = 860) -> Any:
    """Return a page of a new browser session in which a person is logged in."""
    page = browser.new_page(viewport={"width": width, "height": height})
    page.set_default_timeout(WAIT_MS)
    page.goto(f"{studio.url}/user/login/")
    page.fill("input[name=email]", studio.username)
    page.fill("input[name=password]", studio.password)
    page.click("button[type=submit]")
    page.wait_for_url(lambda url: "/user/login" not in url)
    return page


def wait_until_still(page: Any) -> bytes:
    """Return a screenshot that did not change for half a second: brush masks appear late."""
    last = b""
    for _ in range(40):
        page.wait_for_timeout(500)
        shot = page.screenshot()
        if shot == last:
            return shot
        last = shot
    return last


def canvas_pixels(page: Any, shot: bytes) -> NDArray[np.uint8]:
    """Return the image's place on the screenshot, scaled to the image's own size, uint8 (H, W, 3)."""
    box = page.locator(".konvajs-content").first.bounding_box()
    left, top = round(box["x"]), round(box["y"])
    area = (left, top, left + round(box["width"]), top + round(box["height"]))
    picture = Image.open(io.BytesIO(shot)).convert("RGB").crop(area)
    return np.asarray(picture.resize(SIZE_HW[::-1], Image.Resampling.BOX))


def test_editor_shows_our_regions_where_the_masks_are(
    studio: RealStudio,
    client: StudioClient,
    chromium: Any,
    make_project: Callable[..., StudioProject],
    make_task: Callable[[int], int],
) -> None:
    project = make_project("screenshot")
    task_id = make_task(project.id)
    config = parse_label_config(project.label_config)
    prediction = make_prediction()
    regions = prediction_to_regions(
        prediction, map_labels(config, ["Car", "Tree", "House"]), id_seed=f"{task_id}:maskloop-v1"
    )
    client.create_prediction(task_id, regions, score=prediction.confidence, model_version="maskloop-v1")
    client.update_project(project.id, model_version="maskloop-v1")

    page = open_task(chromium, studio, project.id, task_id)
    titles = [title.strip() for title in page.locator(".lsf-outliner-item__title").all_inner_texts()]
    page.mouse.move(100, 700)  # away from everything that answers with a tooltip
    shot = wait_until_still(page)
    SCREENSHOTS.mkdir(exist_ok=True)
    (SCREENSHOTS / "editor.png").write_bytes(shot)
    pixels = canvas_pixels(page, shot)
    page.close()

    assert sorted(titles) == ["Car", "House", "Tree"]
    assert [region["type"] for region in regions] == ["brushlabels", "brushlabels", "polygonlabels"]
    assert mostly(pixels, prediction.segments[0], channel=2)
    assert mostly(pixels, prediction.segments[1], channel=1)
    assert mostly(pixels, prediction.segments[2], channel=0)
    assert pixels[110, 90].argmin() == 2, "the hole shows the picture's own yellow"
    assert np.ptp(pixels[20, 20].astype(int)) < 12, "nothing is drawn on the background"


def test_editor_shows_rectangle_ellipse_and_point_where_they_are(
    studio: RealStudio,
    client: StudioClient,
    chromium: Any,
    make_project: Callable[..., StudioProject],
    make_task: Callable[[int], int],
) -> None:
    project = make_project("shapes", SHAPES_CONFIG)
    task_id = make_task(project.id)
    config = parse_label_config(project.label_config)
    regions = prediction_to_regions(
        make_prediction(), map_labels(config, ["Car", "Tree", "House"]), id_seed=f"{task_id}:maskloop-v1"
    )
    client.create_prediction(task_id, regions, model_version="maskloop-v1")
    client.update_project(project.id, model_version="maskloop-v1")

    page = open_task(chromium, studio, project.id, task_id)
    page.mouse.move(100, 700)
    shot = wait_until_still(page)
    SCREENSHOTS.mkdir(exist_ok=True)
    (SCREENSHOTS / "shapes.png").write_bytes(shot)
    pixels = canvas_pixels(page, shot).astype(int)
    page.close()

    # The editor may zoom a little: shapes are compared with the picture under them.
    disc, tinted_disc = is_like(pixels, (206, 186, 92)), is_like(pixels, (164, 148, 121))
    block, tinted_block = is_like(pixels, (150, 130, 180)), is_like(pixels, (167, 104, 144))
    point, crown = pixels[..., 1] - pixels[..., 0] > 80, is_like(pixels, (120, 150, 110))
    ellipse = next(region["value"] for region in regions if region["type"] == "ellipselabels")
    share = (ellipse["radiusX"] / 100 * SIZE_HW[1] / 50) ** 2  # the disc's radius is 50 pixels
    assert tinted_disc.sum() / (disc | tinted_disc).sum() == pytest.approx(share, abs=0.04)
    np.testing.assert_allclose(middle(tinted_disc), middle(disc | tinted_disc), atol=1)
    assert block.sum() < 0.02 * tinted_block.sum()
    assert tinted_block.sum() == pytest.approx(75 * 120, rel=0.15)
    assert point.sum() > 4
    around = tuple(slice(int(at) - 6, int(at) + 7) for at in middle(point))
    assert (point | crown)[around].mean() > 0.8  # the rest is the point's soft edge


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        pytest.param(
            "rectanglelabels",
            {"x": 45.0, "y": 20.0, "width": 40.0, "height": 25.0, "rotation": 35.0},
            id="rectangle",
        ),
        pytest.param(
            "ellipselabels",
            {"x": 50.0, "y": 50.0, "radiusX": 35.0, "radiusY": 15.0, "rotation": 35.0},
            id="ellipse",
        ),
    ],
)
def test_editor_turns_shapes_as_we_read_them(
    kind: str,
    value: dict[str, Any],
    studio: RealStudio,
    client: StudioClient,
    chromium: Any,
    make_project: Callable[..., StudioProject],
) -> None:
    project = make_project("turned", SHAPES_CONFIG)
    config = parse_label_config(project.label_config)
    control = next(control for control in config.controls if control.region_type == kind)
    grey = io.BytesIO()
    Image.new("RGB", SIZE_HW[::-1], (200, 200, 200)).save(grey, "PNG")
    uri = client.upload_image(project.id, "grey.png", grey.getvalue())
    (task_id,) = client.import_tasks(project.id, [{"data": {"image": uri}}])
    region = {
        "id": "turned",
        "type": kind,
        "from_name": control.name,
        "to_name": control.to_name,
        "original_width": SIZE_HW[1],
        "original_height": SIZE_HW[0],
        "image_rotation": 0,
        "value": {**value, kind: [control.labels[0]]},
    }
    (segment,) = annotation_to_segments([region], config, size_hw=SIZE_HW).segments
    client.create_prediction(task_id, [region], model_version="maskloop-v1")
    client.update_project(project.id, model_version="maskloop-v1")

    page = open_task(chromium, studio, project.id, task_id)
    page.mouse.move(100, 700)
    pixels = canvas_pixels(page, wait_until_still(page)).astype(int)
    page.close()
    drawn_hw = np.ptp(pixels, axis=-1) > 12  # tinted: no longer grey
    expected_hw = paste_segment(segment, SIZE_HW)
    # The editor may zoom a little, and draws an outline: place and direction are compared, not every pixel.
    np.testing.assert_allclose(middle(drawn_hw), middle(expected_hw), atol=4)
    assert abs(direction(drawn_hw) - direction(expected_hw)) < 3


def direction(mask_hw: BoolMask) -> float:
    """Return the angle of the longer axis, clockwise from the x axis, in degrees."""
    y, x = np.nonzero(mask_hw)
    _, axes = np.linalg.eigh(np.cov(x, y))
    return float(np.degrees(np.arctan2(axes[1, -1], axes[0, -1])) % 180)


def is_like(pixels: NDArray[np.int_], colour: tuple[int, int, int]) -> BoolMask:
    return np.asarray(np.abs(pixels - colour).max(axis=-1) <= 8)


def middle(mask_hw: BoolMask) -> NDArray[np.float64]:
    return np.argwhere(mask_hw).mean(axis=0)


def mostly(pixels: NDArray[np.uint8], segment: Segment, *, channel: int) -> bool:
    """Tell whether a channel is the strongest on 95 % of the segment's pixels."""
    top, left, bottom, right = segment.box_yxyx
    inside = pixels[top:bottom, left:right][segment.mask_hw]
    return bool(np.mean(inside.argmax(axis=-1) == channel) > 0.95)
