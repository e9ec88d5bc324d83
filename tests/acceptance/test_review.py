"""A wrong class in a real Label Studio: the review's tab has its task first, and proposes the right one."""

import io
from typing import Any

import pytest
from PIL import Image

from maskloop.lab.synthetic.shapes import SHAPE_CLASSES, make_image
from maskloop.segmentation.checkpoint import load_checkpoint
from maskloop.segmentation.postprocess import Thresholds
from maskloop.segmentation.predict import predict_images
from maskloop.settings import MODELS_DIR
from maskloop.types import Prediction, Segment, SegmentationTask
from maskloop_studio.formats import annotation_to_segments, prediction_to_regions
from maskloop_studio.formats.label_config import map_labels, parse_label_config
from maskloop_studio.intake.reconcile import sync_project
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
    checkpoint = load_checkpoint(MODELS_DIR / "tiny-mask2former", device="cpu")
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


def test_review_tab_has_the_wrong_task_first_and_is_removed_whole(services, client, project):
    made, wrong_task, right_label = project
    services.store.projects.save(made.id, CONFIG)
    sync_project(
        made.id,
        store=services.store,
        client=client,
        settings=services.settings,
        run=lambda job_id: work_on(job_id, services),
    )
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
