"""While we are down a real Label Studio goes on; one pass afterwards brings the database to what it says."""

import random
from datetime import datetime, timedelta

import httpx
import pytest
from pydantic import SecretStr
from tests.acceptance.conftest import studio_database

from maskloop.store.jobs import JobStatus, NewEvent
from maskloop.testing.memory import MemoryQueue
from maskloop_studio.intake import absence
from maskloop_studio.intake.reconcile import find_changes, sync_project
from maskloop_studio.labelstudio import data_manager
from maskloop_studio.runtime.tasks import work_on
from maskloop_studio.services import Services

pytestmark = [
    pytest.mark.studio,
    # The SDK's own, when it refreshes a personal access token.
    pytest.mark.filterwarnings("ignore:The `parse_obj` method is deprecated:DeprecationWarning"),
]

CONFIG = (
    '<View><Image name="image" value="$image"/><PolygonLabels name="polygon" toName="image">'
    '<Label value="Square"/></PolygonLabels></View>'
)


def personal_token(studio):
    """Make a personal access token, as its owner does under Account & Settings."""
    headers = {"Authorization": f"Token {studio.token}"}
    with httpx.Client(base_url=studio.url, headers=headers, trust_env=False) as api:
        return api.post("/api/token/").raise_for_status().json()["token"]


@pytest.fixture(params=["legacy", "personal"])
def token(request, studio):
    return studio.token if request.param == "legacy" else personal_token(studio)


@pytest.fixture
def make_services(settings, studio):
    made = []

    def make(token=studio.token):
        changes = {"label_studio_url": studio.url, "label_studio_api_key": SecretStr(token)}
        services = Services(settings.model_copy(update=changes | {"train_after": 1000}))
        services.queue = MemoryQueue()
        made.append(services)
        return services

    yield make
    for services in made:
        services.client.close()
        services.close()


@pytest.fixture
def project(client, make_project, make_task):
    made = make_project(label_config=CONFIG)
    make_task(made.id)
    return made


@pytest.fixture
def image(client, project):
    return next(client.iter_tasks(project.id)).data["image"]


def square(left=10.0):
    points = [[left, 10], [left + 20, 10], [left + 20, 40], [left, 40]]
    return {
        "id": f"r{left}",
        "type": "polygonlabels",
        "from_name": "polygon",
        "to_name": "image",
        "original_width": 320,
        "original_height": 240,
        "value": {"points": points, "polygonlabels": ["Square"], "closed": True},
    }


def said(annotation):
    return (
        annotation["task"],
        datetime.fromisoformat(annotation["updated_at"]),
        annotation["was_cancelled"],
        annotation["result"],
    )


def in_studio(client, project_id):
    """What each task's own page says."""
    tasks = [client._json("GET", f"api/tasks/{task.id}") for task in client.iter_tasks(project_id)]
    return {one["id"]: said(one) for task in tasks for one in task["annotations"]}


def in_database(services, project_id):
    state = {}
    for number, known in services.store.annotations.known(project_id).items():
        newest = max(services.store.annotations.history(number), key=lambda version: version.updated_at)
        assert (known.task_id, known.updated_at, known.state) == (
            newest.task_id,
            newest.updated_at,
            newest.state,
        )
        state[number] = said(newest.content)
    return state


def _parts(services):
    return {"store": services.store, "client": services.client, "settings": services.settings}


def sync(services, project_id, **options):
    return sync_project(
        project_id, **_parts(services), run=lambda job_id: work_on(job_id, services), **options
    )


def bulk(client, project_id, action, task_ids):
    body = {"project": project_id, "selectedItems": {"all": False, "included": task_ids}}
    client._json("POST", "api/dm/actions", body, params={"id": action, "project": project_id})


def annotate_everything(client, project_id, image):
    """Eight tasks: one annotation each, the last one skipped."""
    ids = client.import_tasks(project_id, [{"data": {"image": image}} for _ in range(8)])
    made = [client.create_annotation(task_id, {"result": [square()]})["id"] for task_id in ids[:7]]
    made.append(client.create_annotation(ids[7], {"result": [], "was_cancelled": True})["id"])
    return ids, made


def go_on_without_us(client, project_id, image, ids, made):
    """What happens in an hour: all there is to do with annotations and tasks."""
    client.update_annotation(made[0], result=[square(50.0)])
    client.delete_annotation(made[1])
    client.update_annotation(made[2], was_cancelled=True)
    client.update_annotation(made[7], was_cancelled=False, result=[square(30.0)])
    client._request("DELETE", f"api/tasks/{ids[3]}/")
    bulk(client, project_id, "delete_tasks", [ids[4]])
    bulk(client, project_id, "delete_tasks_annotations", [ids[5]])
    client._request("POST", f"api/annotations/{made[6]}/convert-to-draft", body={})
    client.create_annotation(ids[0], {"result": [square(5.0)]})
    imported = {
        "data": {"image": image},
        "annotations": [{"result": [square()]}, {"result": [], "was_cancelled": True}],
    }
    client.import_tasks(project_id, [imported] * 3)
    client._json("POST", f"api/tasks/{ids[1]}/drafts", {"result": [square()], "lead_time": 1})


def test_one_pass_after_an_hour_brings_exactly_what_label_studio_says(
    client, make_services, project, image, token
):
    services = make_services(token)
    services.store.projects.save(project.id, CONFIG)
    ids, made = annotate_everything(client, project.id, image)
    first = sync(services, project.id)
    assert (first.missed, first.changed, first.deleted, first.listed_all) == (8, 0, 0, False)
    assert in_database(services, project.id) == in_studio(client, project.id)

    go_on_without_us(client, project.id, image, ids, made)
    report = sync(services, project.id)
    assert (report.missed, report.changed, report.deleted) == (7, 3, 5)
    assert in_database(services, project.id) == in_studio(client, project.id)
    assert services.store.jobs.counts() == {"done": 1 + 8 + 15}

    again = sync(services, project.id, full=True)
    assert (again.found, again.event_ids) == (0, ())


def test_nothing_left_but_deleted_tasks_shows_in_the_counts(client, make_services, project, image):
    services = make_services()
    services.store.projects.save(project.id, CONFIG)
    annotate_everything(client, project.id, image)
    sync(services, project.id)
    client._request("DELETE", f"api/projects/{project.id}/tasks/")
    report = sync(services, project.id)
    assert (report.deleted, report.listed_all) == (8, True)
    assert services.store.annotations.known(project.id) == {}


def test_annotation_that_outlives_its_task_counts_as_deleted(client, make_services, project, image, studio):
    """What is left where "Delete tasks" meets somebody who saves: the annotation stays, its task is gone."""
    services = make_services()
    services.store.projects.save(project.id, CONFIG)
    ids, made = annotate_everything(client, project.id, image)
    sync(services, project.id)
    bulk(client, project.id, "delete_tasks", [ids[6]])
    with studio_database(studio) as database:
        database.execute("DELETE FROM task WHERE id = ?", (ids[0],))
    assert client.annotation(made[0]) is not None
    assert client.task(ids[0], project_id=project.id) is None
    assert client.project(project.id).annotation_count == 6  # of seven, one is deleted; the other counts
    (job_id,) = services.store.jobs.add_events(
        [NewEvent(key="late", action="ANNOTATION_UPDATED", project_id=project.id, subject_ids=(made[0],))]
    )
    work_on(job_id, services)
    assert made[0] not in services.store.annotations.known(project.id)
    listed = [sync(services, project.id).listed_all for _ in range(2)]
    assert listed == [True, False]
    assert in_database(services, project.id) == in_studio(client, project.id)


@pytest.mark.parametrize("seed", range(2))
def test_interrupted_anywhere_and_run_again_ends_the_same(
    client, make_services, project, image, monkeypatch, seed
):
    monkeypatch.setattr(data_manager, "PAGE_SIZE", 2)
    chance = random.Random(seed)
    services = make_services()
    services.store.projects.save(project.id, CONFIG)
    ids, made = annotate_everything(client, project.id, image)
    sync(services, project.id)
    go_on_without_us(client, project.id, image, ids, made)

    def stop(_checked, _total):
        if chance.random() < 0.3:
            raise KeyboardInterrupt

    for _ in range(50):
        try:
            find_changes(project.id, **_parts(services), on_page=stop)
        except KeyboardInterrupt:
            continue
        break
    sync(services, project.id)
    assert in_database(services, project.id) == in_studio(client, project.id)
    assert sync(services, project.id, full=True).found == 0


def test_deleted_project_takes_its_annotations_along_once_it_was_missing_long_enough(
    client, make_services, make_task, image, project, monkeypatch
):
    monkeypatch.setattr(absence, "MIN_ABSENCE", timedelta(0))
    services = make_services()
    lost = client.create_project("lost", CONFIG)
    services.store.projects.save(lost.id, CONFIG)
    services.store.projects.save(project.id, CONFIG)
    made = client.create_annotation(make_task(lost.id), {"result": [square()]})
    sync(services, lost.id)
    client.delete_project(lost.id)
    for _ in range(absence.MIN_CHECKS - 1):
        report = sync(services, lost.id)
        assert (report.project_away, report.deleted) == (True, 0)
        assert len(services.store.annotations.known(lost.id)) == 1
    report = sync(services, lost.id)
    assert (report.project_gone, report.deleted) == (True, 1)
    assert services.store.annotations.known(lost.id) == {}
    assert len(services.store.annotations.history(made["id"])) == 1
    assert sync(services, project.id).found == 0


def test_dead_event_is_neither_told_again_nor_makes_every_pass_list_everything(
    client, make_services, project, image
):
    services = make_services()
    services.store.projects.save(project.id, CONFIG)
    (task_id,) = client.import_tasks(project.id, [{"data": {"image": image}}])
    made = client.create_annotation(task_id, {"result": [square()]})
    _config_event, job_id = find_changes(project.id, **_parts(services)).event_ids
    job = services.store.jobs.claim(job_id, "owner")
    assert services.store.jobs.fail(job.job_id, "owner", "no", retry=False) is JobStatus.DEAD

    report = find_changes(project.id, **_parts(services))
    assert (report.event_ids, report.listed_all) == ((), False)
    client.update_annotation(made["id"], result=[square(60.0)])
    assert len(find_changes(project.id, **_parts(services)).event_ids) == 1
    assert services.store.jobs.retry(job_id) == job_id
    sync(services, project.id)
    assert in_database(services, project.id) == in_studio(client, project.id)


def test_reconnected_project_is_told_anew(client, make_services, project, image):
    services = make_services()
    services.store.projects.save(project.id, CONFIG)
    (task_id,) = client.import_tasks(project.id, [{"data": {"image": image}}])
    client.create_annotation(task_id, {"result": [square()]})
    sync(services, project.id)
    services.store.annotations.delete_project(project.id)
    services.store.projects.set_watermark(project.id, None)
    assert sync(services, project.id).missed == 1
    assert in_database(services, project.id) == in_studio(client, project.id)
