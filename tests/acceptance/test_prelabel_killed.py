"""A prelabelling killed again and again ends complete: each task one prediction, with score and cluster."""

import io
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest
from PIL import Image
from pydantic import SecretStr
from tests.waiting import until

from maskloop.lab.synthetic.shapes import make_image
from maskloop.lab.tiny_models import build_tiny_mask2former
from maskloop.segmentation.checkpoint import save_checkpoint
from maskloop.store.jobs import JobKind, JobStatus
from maskloop_studio.projects.training import model_name
from maskloop_studio.services import Services

pytestmark = pytest.mark.studio

TASKS, PICTURES, KILLS = 500, 12, 3
CONFIG = (
    '<View><Image name="image" value="$image"/><BrushLabels name="brush" toName="image">'
    '<Label value="disc"/></BrushLabels></View>'
)
WORKER = """
import sys
from maskloop.queue.lease import run_job
from maskloop_studio.runtime import tasks as jobs
from maskloop_studio.prelabel import score as scoring
from maskloop_studio.services import process_services

scoring.SHARD_LEASE_S = 1.0
services = process_services()
run_job(
    int(sys.argv[1]),
    lambda job, control: jobs.WORK[job.kind](job, control, services),
    jobs=services.store.jobs,
    lease_s=1.0,
)
"""


@pytest.fixture
def services(settings, studio):
    changes = {"label_studio_url": studio.url, "label_studio_api_key": SecretStr(studio.token)}
    made = Services(settings.model_copy(update=changes))
    yield made
    made.close()


def _make_tasks(services, project_id):
    uris = []
    for number in range(PICTURES):
        buffer = io.BytesIO()
        picture = make_image(number, size_hw=(48, 48), classes=("disc", "square", "triangle"))
        Image.fromarray(picture.image_hwc).save(buffer, "PNG")
        uris.append(services.client.upload_image(project_id, f"{number}.png", buffer.getvalue()))
    tasks = [{"data": {"image": uris[number % PICTURES]}} for number in range(TASKS)]
    return services.client.import_tasks(project_id, tasks)


def test_prelabelling_killed_three_times_ends_complete_with_no_prediction_twice(
    services, make_project, tmp_path
):
    project = make_project(label_config=CONFIG, sampling="Uncertainty sampling")
    name = model_name(project.id)
    folder = save_checkpoint(build_tiny_mask2former(("disc",), seed=0), tmp_path / "model")
    services.registry.register(name, folder, labels=("disc",), metrics=None, parent=None)
    services.registry.promote(name, 1)
    task_ids = _make_tasks(services, project.id)
    services.client.create_annotation(task_ids[0], {"result": []})
    job_id = services.store.jobs.request(JobKind.PRELABEL, project.id, "test")
    draw = random.Random(6)
    for _ in range(KILLS):
        worker = _start(services, job_id)
        until(lambda worker=worker: f":{worker.pid}:" in (services.store.jobs.get(job_id).owner or ""), 120)
        before = services.store.scores.counts(project.id, f"{name}-v1")
        until(lambda before=before: services.store.scores.counts(project.id, f"{name}-v1") != before, 120)
        time.sleep(draw.uniform(0, 4))
        os.kill(worker.pid, signal.SIGKILL)
        worker.wait()
        time.sleep(1.2)  # the leases lapse
    assert services.store.jobs.get(job_id).status is JobStatus.RUNNING
    assert _start(services, job_id).wait(400) == 0
    job = services.store.jobs.get(job_id)
    assert (job.status, job.attempts) == (JobStatus.DONE, 0), job.error
    assert (job.outcome["failed"], job.outcome["in_hand"]) == (0, 0)

    stored = services.client._json("GET", "api/predictions/", params={"project": project.id})
    assert Counter(one["task"] for one in stored) == Counter(task_ids[1:])
    assert {one["model_version"] for one in stored} == {f"{name}-v1"}
    assert all(one["score"] is not None and one["cluster"] is not None for one in stored)
    assert services.client.project(project.id).model_version == f"{name}-v1"
    assert services.client.next_task(project.id) is not None


def _start(services, job_id):
    settings = services.settings
    places = {
        "MASKLOOP_HOME": str(settings.home),
        "LABEL_STUDIO_URL": settings.label_studio_url,
        "LABEL_STUDIO_API_KEY": settings.label_studio_api_key.get_secret_value(),
        "MASKLOOP_REDIS_URL": "unix:///nowhere",  # one worker is enough
        "MASKLOOP_SELECTION_VIEWS": "0",
    }
    command = [sys.executable, "-c", WORKER, str(job_id)]
    return subprocess.Popen(command, env={**os.environ, **places}, stderr=subprocess.DEVNULL)
