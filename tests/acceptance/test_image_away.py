"""The image host is away while Label Studio retrieves predictions: nothing is stored, and predicted later."""

import io

import pytest
from PIL import Image
from tests.fakes.drawn import SIZE_HW
from tests.fakes.http_host import run_host

from maskloop.lab.synthetic.shapes import make_image
from maskloop.store.jobs import JobKind, JobStatus
from maskloop_studio import services as services_module
from maskloop_studio.cli.jobs import list_jobs
from maskloop_studio.prelabel import run as prelabel_run
from maskloop_studio.prelabel.run import prelabel_project
from maskloop_studio.projects.connect import connect_project
from maskloop_studio.runtime.tasks import work_on
from maskloop_studio.serving import background

pytestmark = pytest.mark.studio

LABELS = ("disc", "square")
CONFIG = (
    '<View><Image name="i" value="$i"/><BrushLabels name="b" toName="i">'
    '<Label value="disc"/><Label value="square"/></BrushLabels></View>'
)


@pytest.fixture
def settings(settings):
    return settings.model_copy(update={"allow_private_images": True})


@pytest.fixture
def host():
    with run_host() as started:
        for seed in range(3):
            file = io.BytesIO()
            Image.fromarray(make_image(seed, size_hw=SIZE_HW, classes=LABELS).image_hwc).save(file, "PNG")
            started.pages[f"/{seed}.png"] = (200, {"Content-Type": "image/png"}, file.getvalue())
        yield started


@pytest.fixture
def project(services, server_url, make_project):
    made = make_project("image away", CONFIG)
    connect_project(made.id, server_url, services)
    _cancel_open(services, made.id)
    return made


def _cancel_open(services, project_id):
    for job in services.store.jobs.find(statuses=[JobStatus.WAITING], project_id=project_id):
        services.store.jobs.cancel(job.job_id)


def _open(services, project_id):
    return services.store.jobs.find(
        statuses=[JobStatus.WAITING], kind=JobKind.PRELABEL, project_id=project_id
    )


def _retrieve(client, project_id, task_ids):
    client._json(
        "POST",
        "api/dm/actions",
        {"project": project_id, "selectedItems": {"all": False, "included": task_ids}},
        params={"id": "retrieve_tasks_predictions", "project": project_id},
    )


def test_image_away_at_retrieve_predictions_is_predicted_later_by_itself(
    services, host, project, monkeypatch, capsys
):
    for module in (background, prelabel_run):
        monkeypatch.setattr(module, "FIRST_RETRY_S", 0.0)
    monkeypatch.setattr(services_module, "process_services", lambda: services)
    client = services.client
    tasks = [{"data": {"i": f"{host.url}/{seed}.png"}} for seed in range(3)]
    here, away, _ = task_ids = client.import_tasks(project.id, tasks)
    _cancel_open(services, project.id)
    page = host.pages.pop("/1.png")
    _retrieve(client, project.id, task_ids)
    assert [len(client.predictions_of(number)) for number in task_ids] == [1, 0, 1]

    (job,) = _open(services, project.id)
    assert "1 tasks could not be predicted" in job.action
    capsys.readouterr()
    list_jobs(None, None, project.id, 100, False)
    assert job.name in capsys.readouterr().out

    # Still away: tried again, and again a job stands there.
    assert work_on(job.job_id, services) is JobStatus.DONE
    assert client.predictions_of(away) == []
    (job,) = _open(services, project.id)
    assert f"task {away}" in job.action

    host.pages["/1.png"] = page
    assert work_on(job.job_id, services) is JobStatus.DONE
    (prediction,) = client.predictions_of(away)
    assert prediction["result"]
    assert prediction["score"] > 0
    assert _open(services, project.id) == ()
    assert len(client.predictions_of(here)) == 1


def test_empty_prediction_of_an_error_is_replaced(services, host, project):
    client, store = services.client, services.store
    (task_id,) = client.import_tasks(project.id, [{"data": {"i": f"{host.url}/0.png"}}])
    _cancel_open(services, project.id)
    prelabel_project(project.id, services)
    version = client.project(project.id).model_version
    (good,) = client.predictions_of(task_id)
    # As earlier versions left it, when an image could not be fetched during Retrieve Predictions.
    client.delete_prediction(good["id"])
    old = client.create_prediction(task_id, [], score=0.0, model_version=version)
    store.pushes.forget(project.id, [task_id])
    store.scores.forget_tasks(project.id, [task_id])
    report = prelabel_project(project.id, services)
    (found,) = client.predictions_of(task_id)
    assert found["id"] == old
    assert [region["value"] for region in found["result"]] == [one["value"] for one in good["result"]]
    assert found["score"] == pytest.approx(good["score"])
    assert report.replaced == 1
    assert prelabel_project(project.id, services).replaced == 0
