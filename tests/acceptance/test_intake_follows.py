"""A real Label Studio tells our server of an annotation; what it says ends up in the database."""

import time
from datetime import timedelta

import numpy as np
import pytest

from maskloop.masks import mask_to_segment
from maskloop.store.jobs import JobKind, JobStatus, NewEvent
from maskloop_studio.demo.annotator import SimulatedAnnotator
from maskloop_studio.formats.label_config import parse_label_config
from maskloop_studio.intake import absence
from maskloop_studio.prelabel.run import renew_project
from maskloop_studio.projects.connect import connect_project
from maskloop_studio.runtime.tasks import work_on

CONFIG = (
    '<View><Image name="image" value="$image"/><BrushLabels name="brush" toName="image">'
    '<Label value="Disc"/><Label value="Ring"/></BrushLabels>'
    '<PolygonLabels name="polygon" toName="image"><Label value="Square"/></PolygonLabels></View>'
)
SIZE_HW = (240, 320)
BROKEN_REGION = {
    "id": "broken",
    "type": "brushlabels",
    "from_name": "brush",
    "to_name": "image",
    "original_width": SIZE_HW[1],
    "original_height": SIZE_HW[0],
    "value": {"format": "rle", "rle": [0, 4, 176, 0, 57], "brushlabels": ["Disc"]},
}


@pytest.fixture
def settings(settings):
    return settings.model_copy(update={"train_after": 2})


@pytest.fixture
def project(services, server_url, make_project, make_task):
    made = make_project(label_config=CONFIG)
    for _ in range(2):
        make_task(made.id)
    connect_project(made.id, server_url, services)
    return made


def _work_off(services):
    """Do what waits, as a worker would; Label Studio's webhooks may still be on their way."""
    deadline = time.monotonic() + 10
    done = 0
    while not done and time.monotonic() < deadline:
        for job in services.store.jobs.due():
            if job.kind is JobKind.EVENT:
                assert work_on(job.job_id, services) is JobStatus.DONE, services.store.jobs.get(job.job_id)
                done += 1
        time.sleep(0.1)


def _square(top=20, left=30, side=60, label="Square"):
    mask = np.zeros(SIZE_HW, dtype=np.bool_)
    mask[top : top + side, left : left + side] = True
    return mask_to_segment(mask, label=label)


def _annotate(services, project, task_id, *segments):
    return SimulatedAnnotator(services.client).annotate(
        task_id, segments, size_hw=SIZE_HW, config=parse_label_config(CONFIG)
    )


@pytest.mark.studio
def test_annotation_made_changed_and_deleted_is_followed(services, project):
    task_id = next(services.client.iter_tasks(project.id)).id
    made = _annotate(services, project, task_id, _square(), _square(left=150, label="Ring"))
    _work_off(services)
    (correction,) = services.store.corrections.of(project.id)
    assert [segment.label for segment in correction.segments] == ["Square", "Ring"]
    assert (correction.edits.added, correction.edits.removed) == (2, 0)

    annotation = services.client.annotation(made.annotation_id)
    services.client.update_annotation(made.annotation_id, result=annotation["result"][:1])
    _work_off(services)
    assert [len(correction.segments) for correction in services.store.corrections.of(project.id)] == [1]

    services.client.delete_annotation(made.annotation_id)
    _work_off(services)
    assert services.store.corrections.of(project.id) == ()


@pytest.mark.studio
def test_corrections_enough_ask_for_one_training(services, project):
    services.queue.drain()
    for task in services.client.iter_tasks(project.id):
        _annotate(services, project, task.id, _square())
        _work_off(services)
    assert [training.reason for training in services.store.trainings.of(project.id)] == ["2 new corrections"]
    (training,) = services.store.trainings.of(project.id)
    queued = [job.job_id for job in services.queue.drain() if job.queue == "train"]
    assert queued == [f"training-{training.training_id}"]


@pytest.mark.studio
def test_skipped_task_is_no_correction(services, project):
    task_id = next(services.client.iter_tasks(project.id)).id
    services.client.create_annotation(task_id, {"result": [], "was_cancelled": True})
    _work_off(services)
    assert services.store.corrections.of(project.id) == ()


@pytest.mark.studio
def test_forged_deletion_takes_nothing_away(services, project):
    task_id = next(services.client.iter_tasks(project.id)).id
    made = _annotate(services, project, task_id, _square())
    _work_off(services)
    forged = {"action": "ANNOTATIONS_DELETED", "project_id": project.id}
    services.store.jobs.add_events([NewEvent(key="forged", subject_ids=(made.annotation_id,), **forged)])
    _work_off(services)
    assert len(services.store.corrections.of(project.id)) == 1


@pytest.mark.studio
def test_renewed_predictions_are_shown_once_each(services, project):
    assert renew_project(project.id, services) == 2
    assert renew_project(project.id, services) == 0
    shown = services.client.project(project.id).model_version
    assert shown == f"maskloop-{project.id}-v1"
    for task in services.client.iter_tasks(project.id):
        (prediction,) = services.client.predictions_of(task.id)
        assert prediction["model_version"] == shown
        assert 0 <= prediction["score"] <= 1


@pytest.mark.studio
def test_renewal_killed_between_sending_and_noting_sends_no_second_one(services, project):
    renew_project(project.id, services)
    version = services.client.project(project.id).model_version
    task_id = next(services.client.iter_tasks(project.id)).id
    with services.store._sessions.write() as session:
        from maskloop.store.tables import PushedRow

        session.query(PushedRow).filter_by(task_id=task_id).update({"prediction_id": None})
    assert renew_project(project.id, services) == 0
    assert len(services.client.prediction_ids(task_id, version)) == 1


@pytest.mark.studio
def test_unreadable_regions_are_set_aside_instead_of_teaching_emptiness(services, project):
    task_id = next(services.client.iter_tasks(project.id)).id
    services.client.create_annotation(task_id, {"result": [BROKEN_REGION], "lead_time": 1})
    (job,) = _wait_for_events(services)
    assert work_on(job.job_id, services) is JobStatus.DONE
    assert services.store.corrections.of(project.id) == ()
    (set_aside,) = services.store.annotations.set_aside(project.id)
    stored = services.store.annotations.version(set_aside.version_id).content["result"]
    assert stored == services.client.task_annotations(task_id)[0]["result"]


@pytest.mark.studio
def test_annotation_of_another_project_is_not_taken_in(services, project, make_project, make_task):
    foreign = make_project(label_config=CONFIG)
    made = _annotate(services, foreign, make_task(foreign.id), _square())
    forged = {"action": "ANNOTATION_CREATED", "project_id": project.id}
    services.store.jobs.add_events([NewEvent(key="forged", subject_ids=(made.annotation_id,), **forged)])
    _work_off(services)
    assert services.store.annotations.known(project.id) == {}


@pytest.mark.studio
def test_project_deleted_in_label_studio_is_followed(services, project, monkeypatch):
    task_id = next(services.client.iter_tasks(project.id)).id
    _annotate(services, project, task_id, _square())
    _work_off(services)
    other = {"action": "PROJECT_DELETED", "project_id": project.id}
    services.store.jobs.add_events([NewEvent(key="forged", subject_ids=(project.id,), **other)])
    _work_off(services)
    assert len(services.store.corrections.of(project.id)) == 1
    services.client.delete_project(project.id)
    monkeypatch.setattr(absence, "MIN_ABSENCE", timedelta(0))
    statuses = []
    for check in range(absence.MIN_CHECKS):
        assert len(services.store.corrections.of(project.id)) == 1
        event = NewEvent(key=f"true-{check}", subject_ids=(project.id,), **other)
        (number,) = services.store.jobs.add_events([event])
        statuses.append(work_on(number, services))
    assert statuses == [JobStatus.WAITING, JobStatus.WAITING, JobStatus.DONE]
    assert services.store.corrections.of(project.id) == ()
    assert services.store.projects.ids() == ()


@pytest.mark.studio
def test_bulk_event_one_unreadable_is_set_aside_and_the_others_are_taken_in(services, project):
    good, bad = (task.id for task in services.client.iter_tasks(project.id))
    made = _annotate(services, project, good, _square())
    broken = services.client.create_annotation(bad, {"result": [BROKEN_REGION], "lead_time": 1})
    _wait_for_events(services, count=2)
    for job in services.store.jobs.find(kind=JobKind.EVENT):
        services.store.jobs.drop(job.job_id)
    ids = (int(broken["id"]), made.annotation_id)
    bulk = {"action": "ANNOTATIONS_CREATED", "project_id": project.id}
    (number,) = services.store.jobs.add_events([NewEvent(key="bulk", subject_ids=ids, **bulk)])
    assert work_on(number, services) is JobStatus.DONE
    assert [correction.task_id for correction in services.store.corrections.of(project.id)] == [good]
    (set_aside,) = services.store.annotations.set_aside(project.id)
    assert (set_aside.annotation_id, set_aside.task_id) == (int(broken["id"]), bad)
    assert "region broken" in set_aside.reason


def _wait_for_events(services, count=1):
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        events = [job for job in services.store.jobs.due() if job.action == "ANNOTATION_CREATED"]
        if len(events) >= count:
            return events
        time.sleep(0.1)
    raise AssertionError("waited in vain")
