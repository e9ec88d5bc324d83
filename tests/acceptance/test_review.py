"""A wrong class in a real Label Studio: the review's tab has its task first, and proposes the right one."""

import io
from typing import Any

import pytest
from PIL import Image
from tests.acceptance.test_editor_screenshot import SCREENSHOTS, log_in, wait_until_still

from maskloop.curation.duplicates.alike import AlikePair, Likeness
from maskloop.curation.review.gallery import gallery_html
from maskloop.lab.synthetic.shapes import SHAPE_CLASSES, make_image
from maskloop.segmentation.checkpoint import load_checkpoint
from maskloop.segmentation.postprocess import Thresholds
from maskloop.segmentation.predict import predict_images
from maskloop.settings import BASE_MODEL
from maskloop.types import Prediction, Segment, SegmentationTask
from maskloop_studio.formats import annotation_to_segments, prediction_to_regions
from maskloop_studio.formats.label_config import map_labels, parse_label_config
from maskloop_studio.intake.reconcile import sync_project
from maskloop_studio.review.duplicates_tab import DUPLICATES_TITLE, remove_duplicates_tab, show_duplicates
from maskloop_studio.review.review_tab import REVIEW_TITLE, remove_review
from maskloop_studio.review.run_review import review_project
from maskloop_studio.runtime.tasks import work_on

pytestmark = pytest.mark.studio

LABELS = "".join(f'<Label value="{name}"/>' for name in SHAPE_CLASSES)
CONFIG = (
    '<View><Image name="image" value="$image"/><BrushLabels name="brush" toName="image">'
    f"{LABELS}</BrushLabels></View>"
)
FIRST_SEED = 62_000_000
IMAGES = 8
CLEAR = Thresholds(score=0.7, duplicate=0.3, piece=0.5)  # what the model sees twice is an error as well


def regions_of(segments: tuple[Segment, ...], size_hw: tuple[int, int]) -> list[dict[str, Any]]:
    label_map = map_labels(parse_label_config(CONFIG), SHAPE_CLASSES)
    prediction = Prediction(segments=segments, size_hw=size_hw, confidence=1.0)
    return prediction_to_regions(prediction, label_map, id_seed="person")


@pytest.fixture
def project(client, make_project):
    """A project annotated as the model sees its images, but for the class of one region of the last task."""
    made = make_project(label_config=CONFIG)
    checkpoint = load_checkpoint(BASE_MODEL, device="cpu")
    for number in range(IMAGES):
        one = make_image(FIRST_SEED + number)
        file = io.BytesIO()
        Image.fromarray(one.image_hwc).save(file, "PNG")
        uri = client.upload_image(made.id, f"{number}.png", file.getvalue())
        (task_id,) = client.import_tasks(made.id, [{"data": {"image": uri}}])
        (seen,) = predict_images(
            checkpoint, [one.image_hwc], task=SegmentationTask.INSTANCE, thresholds=CLEAR
        )
        segments = list(seen.segments)
        if number == IMAGES - 1:
            right_label = segments[0].label
            other = next(name for name in SHAPE_CLASSES if name != right_label)
            segments[0] = Segment(mask_hw=segments[0].mask_hw, offset_yx=segments[0].offset_yx, label=other)
        client.create_annotation(task_id, {"result": regions_of(tuple(segments), one.image_hwc.shape[:2])})
    return made, task_id, right_label


def take_in(project_id, services, client):
    services.store.projects.save(project_id, CONFIG)
    sync_project(
        project_id,
        store=services.store,
        client=client,
        settings=services.settings,
        run=lambda job_id: work_on(job_id, services),
    )


def test_review_tab_has_the_wrong_task_first_and_is_removed_whole(services, client, project):
    made, wrong_task, right_label = project
    take_in(made.id, services, client)
    outcome = review_project(made.id, services, top=6, in_studio=True, say=print)
    assert (wrong_task, "wrong class") in [(one.task_id, one.kind) for one in outcome.shown[:3]]
    (tab,) = [view for view in client.views(made.id) if view["data"]["title"] == REVIEW_TITLE]
    listed = client._json("GET", "api/tasks", params={"view": tab["id"], "fields": "all"})["tasks"]
    assert [one["id"] for one in listed] == list(dict.fromkeys(one.task_id for one in outcome.shown))
    (proposal,) = client.predictions_of(wrong_task)
    drawn = annotation_to_segments(proposal["result"], parse_label_config(CONFIG))
    assert right_label in {segment.label for segment in drawn.segments}
    remove_review(made.id, client=client, pushes=services.store.pushes)
    assert client.predictions_of(wrong_task) == []
    assert all("maskloop_review" not in task.data for task in client.iter_tasks(made.id))
    assert REVIEW_TITLE not in {view["data"]["title"] for view in client.views(made.id)}


@pytest.mark.browser
def test_gallery_and_tab_open_in_a_browser(services, client, project, studio, chromium, tmp_path):
    made, wrong_task, _ = project
    take_in(made.id, services, client)
    outcome = review_project(made.id, services, top=8, in_studio=True, say=print)
    gallery = tmp_path / "review.html"
    gallery.write_text("".join(gallery_html(f"Review of project {made.id}", outcome.cards)))
    SCREENSHOTS.mkdir(exist_ok=True)
    page, asked = chromium.new_page(viewport={"width": 1180, "height": 760}), []
    page.on("request", lambda one: asked.append(one.url))
    page.goto(gallery.as_uri())
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    widths = page.eval_on_selector_all("img", "all => all.map(one => one.naturalWidth)")
    assert len(widths) == 8
    assert min(widths) > 0
    assert f"/projects/{made.id}/data?task={wrong_task}" in page.content()
    (SCREENSHOTS / "review-gallery.png").write_bytes(page.screenshot())
    page.close()
    (tab,) = [view for view in client.views(made.id) if view["data"]["title"] == REVIEW_TITLE]
    page = log_in(chromium, studio, width=1180, height=640)
    page.goto(f"{studio.url}/projects/{made.id}/data?tab={tab['id']}")
    page.get_by_text(REVIEW_TITLE).first.wait_for()
    (SCREENSHOTS / "review-tab.png").write_bytes(wait_until_still(page))
    page.close()


def test_duplicates_tab_has_copies_side_by_side_and_is_removed_whole(client, project):
    made, _, _ = project
    tasks = [task.id for task in client.iter_tasks(made.id)]
    before = {task.id: task.data for task in client.iter_tasks(made.id)}
    pairs = [
        AlikePair(first=tasks[1], second=tasks[6], likeness=Likeness.SAME_FILE, distance=0.0),
        AlikePair(first=tasks[0], second=tasks[4], likeness=Likeness.SAME_PICTURE, distance=0.1),
    ]
    for _ in range(2):  # the second one replaces the first
        assert show_duplicates(made.id, pairs, client=client) == 4
    (tab,) = [view for view in client.views(made.id) if view["data"]["title"] == DUPLICATES_TITLE]
    listed = client._json("GET", "api/tasks", params={"view": tab["id"], "fields": "all"})["tasks"]
    assert {one["id"] for one in listed[:2]} == {tasks[1], tasks[6]}
    assert {one["id"] for one in listed[2:]} == {tasks[0], tasks[4]}
    assert remove_duplicates_tab(made.id, client=client) == 4
    assert {task.id: task.data for task in client.iter_tasks(made.id)} == before
    assert client.users()[0].email
