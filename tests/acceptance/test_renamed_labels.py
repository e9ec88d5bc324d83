"""Labels are renamed, or spelt in another case, after people have annotated with them: trainings go on."""

import hashlib
import io
import json

import pytest
from PIL import Image
from tests.fakes.drawn import SIZE_HW

from maskloop.lab.synthetic.shapes import make_image
from maskloop.store.holdout import content_position
from maskloop.store.jobs import JobKind, JobStatus
from maskloop_studio.cli.evaluate import print_evaluation
from maskloop_studio.demo.annotator import SimulatedAnnotator
from maskloop_studio.dispatch import request
from maskloop_studio.intake.reconcile import sync_project
from maskloop_studio.projects.correction_labels import match_correction_labels
from maskloop_studio.runtime.tasks import work_on

pytestmark = pytest.mark.studio

LABELS = ("disc", "square")
TASKS = 10


def _config(*labels):
    shown = "".join(f'<Label value="{label}"/>' for label in labels)
    return f'<View><Image name="i" value="$i"/><BrushLabels name="b" toName="i">{shown}</BrushLabels></View>'


@pytest.fixture
def settings(settings):
    return settings.model_copy(update={"train_steps": 2, "train_batch": 2})


@pytest.fixture
def annotated(services, make_project):
    """A project whose tasks were annotated as discs and squares, and taken in."""
    client = services.client
    project = make_project("renamed", _config(*LABELS))
    services.store.projects.save(project.id, project.label_config)
    images = [make_image(seed, size_hw=SIZE_HW, classes=LABELS) for seed in range(TASKS)]
    uris = [client.upload_image(project.id, f"{n}.png", _png(one)) for n, one in enumerate(images)]
    task_ids = client.import_tasks(project.id, [{"data": {"i": uri}} for uri in uris])
    for task_id, image in zip(task_ids, images, strict=True):
        SimulatedAnnotator(client).annotate(task_id, image.segments, size_hw=SIZE_HW)
    places = sorted(content_position(hashlib.sha256(_png(image)).hexdigest()) for image in images)
    update = {"holdout_fraction": (places[2] + places[3]) / 2, "holdout_least": 2}
    services.settings = services.settings.model_copy(update=update)
    _sync(services, project.id)
    assert len(services.store.corrections.of(project.id)) == TASKS
    return project


def _png(image):
    file = io.BytesIO()
    Image.fromarray(image.image_hwc).save(file, "PNG")
    return file.getvalue()


def _sync(services, project_id):
    sync_project(
        project_id,
        store=services.store,
        client=services.client,
        settings=services.settings,
        run=lambda job_id: work_on(job_id, services),
    )


def _train(services, project_id):
    number = request(
        JobKind.TRAINING, project_id, "test", store=services.store, queue=services.queue, quiet_s=0
    )
    assert work_on(number, services) is JobStatus.DONE, services.store.jobs.get(number)
    return services.store.jobs.get(number).outcome


def _unknown(caplog):
    found = [record.getMessage() for record in caplog.records if "labels_unknown" in record.getMessage()]
    caplog.clear()
    return found


def _evaluate(services, project_id, capsys):
    capsys.readouterr()
    print_evaluation(project_id, None, services, as_json=True)
    return json.loads(capsys.readouterr().out)["metrics"]


def test_renamed_label_is_named_once_and_training_and_evaluation_go_on(services, annotated, caplog, capsys):
    counts = {label: 0 for label in LABELS}
    for one in services.store.corrections.of(annotated.id):
        for segment in one.segments:
            counts[segment.label] += 1
    services.client.update_project(annotated.id, label_config=_config("circle_new", "Square"))
    caplog.clear()
    _train(services, annotated.id)
    (line,) = _unknown(caplog)
    assert f"disc ({counts['disc']})" in line
    assert all(word in line for word in ("predicted_values", "MASKLOOP_LABEL_RENAMES", "label config"))
    assert "square" not in line.lower().replace("disc", "")
    metrics = _evaluate(services, annotated.id, capsys)
    assert metrics["per_class"].keys() == {"square"}  # the model's class
    assert len(_unknown(caplog)) == 1

    services.settings = services.settings.model_copy(update={"label_renames": {"disc": "circle_new"}})
    _train(services, annotated.id)
    assert _evaluate(services, annotated.id, capsys)["per_class"].keys() == {"square", "circle_new"}
    assert _unknown(caplog) == []


def test_label_of_an_annotation_read_after_the_rename_is_mapped_later(services, annotated, caplog):
    services.client.update_project(annotated.id, label_config=_config("circle_new", "Square"))
    corrections = services.store.corrections
    task_id = next(one.task_id for one in corrections.of(annotated.id) if "disc" in _labels(one))
    (annotation,) = services.client.task_annotations(task_id)
    services.client.update_annotation(annotation["id"], result=annotation["result"], lead_time=7.0)
    _sync(services, annotated.id)
    (read_again,) = (one for one in corrections.of(annotated.id) if one.task_id == task_id)
    assert "disc" in _labels(read_again)
    settings = services.settings.model_copy(update={"label_renames": {"disc": "circle_new"}})
    caplog.clear()
    ((matched,),) = match_correction_labels(
        [read_again], label_config=_config("circle_new", "Square"), settings=settings
    )
    assert _labels(matched) <= {"circle_new", "Square"}
    assert _unknown(caplog) == []


def test_labels_that_come_with_the_tasks_are_learnt(services, annotated, caplog, capsys):
    tasks = list(services.client.iter_tasks(annotated.id))
    for task in tasks:
        data = {**task.data, "options": [{"value": "disc"}, {"value": "square"}]}
        services.client._json("PATCH", f"api/tasks/{task.id}/", {"data": data})
    config = '<View><Image name="i" value="$i"/><BrushLabels name="b" toName="i" value="$options"/></View>'
    services.client.update_project(annotated.id, label_config=config)
    assert _train(services, annotated.id)["version"]
    assert _evaluate(services, annotated.id, capsys)["per_class"].keys() == set(LABELS)
    assert _unknown(caplog) == []


def _labels(correction):
    return {segment.label for segment in correction.segments}
