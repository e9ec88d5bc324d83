"""A training worker killed again and again ends with the dataset it began with, and one usable version."""

import io
import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest
from PIL import Image
from pydantic import SecretStr
from tests.waiting import until

from maskloop.lab.synthetic.shapes import make_image
from maskloop.learning.data.snapshot import SnapshotManifest
from maskloop.segmentation.checkpoint import load_checkpoint
from maskloop.store.annotations import AnnotationSnapshot
from maskloop.store.corrections import DerivedMasks
from maskloop.store.jobs import JobKind, JobStatus
from maskloop.store.sessions import now
from maskloop.types import EditCounts
from maskloop_studio.cli.evaluate import print_evaluation
from maskloop_studio.projects.training import ensure_champion, model_name
from maskloop_studio.services import Services

KILLS = 10
LABELS = ("disc", "square", "triangle")
WORKER = """
import sys
from maskloop.queue.lease import run_job
from maskloop.settings import load_settings
from maskloop_studio.runtime import tasks as jobs
from maskloop_studio.services import process_services

services = process_services()
number = int(sys.argv[1])
run_job(
    number,
    lambda job, control: jobs.WORK[job.kind](job, control, services),
    jobs=services.store.jobs,
    lease_s=1.0,
)
"""


@pytest.fixture
def services(settings, studio):
    made = Services(
        settings.model_copy(
            update={
                "label_studio_url": studio.url,
                "label_studio_api_key": SecretStr(studio.token),
                "train_steps": 120,
            }
        )
    )
    yield made
    made.close()


def _keep_corrections(services, project_id, label_config, count=18):
    """Keep made-up annotations as the intake would: every fourth one judges."""
    for number in range(count):
        image = make_image(number, size_hw=(96, 96), classes=LABELS)
        key = services.image_cache.put(_png(image.image_hwc))
        version_id = services.store.annotations.save(
            AnnotationSnapshot(
                annotation_id=number + 1,
                project_id=project_id,
                task_id=number + 1,
                updated_at=now(),
                state="submitted",
                content={"result": []},
                label_config=label_config,
                split="holdout" if number % 4 == 0 else "train",
                read_at=now(),
            )
        ).version_id
        services.store.corrections.save(
            version_id,
            DerivedMasks(
                image_key=key,
                image_uri="",
                size_hw=(96, 96),
                segments=image.segments,
                edits=EditCounts(),
                model_version=None,
            ),
        )


def _make_project(services, make_project):
    labels = "".join(f'<Label value="{label}"/>' for label in LABELS)
    config = (
        '<View><Image name="image" value="$image"/>'
        f'<BrushLabels name="brush" toName="image">{labels}</BrushLabels></View>'
    )
    project = make_project(label_config=config)
    services.store.projects.save(project.id, config)
    ensure_champion(project.id, registry=services.registry, settings=services.settings)
    _keep_corrections(services, project.id, config)
    return project, config


@pytest.mark.studio
def test_evaluate_champion_on_the_holdout_tells_every_class(services, make_project, capsys):
    project, _ = _make_project(services, make_project)
    print_evaluation(project.id, None, services, as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert (told["version"], told["metrics"]["images"]) == (f"{model_name(project.id)}-v1", 5)
    assert set(told["metrics"]["per_class"]) == set(LABELS)
    assert len(told["images"]) == 5
    print_evaluation(project.id, 1, services, as_json=False)
    assert all(label in capsys.readouterr().out for label in LABELS[:1])


@pytest.mark.studio
def test_training_killed_ten_times_ends_with_its_dataset_and_one_version(services, make_project):
    project, config = _make_project(services, make_project)
    job_id = services.store.jobs.request(JobKind.TRAINING, project.id, "test")
    snapshot = services.settings.runs_dir / f"training-{job_id}" / "snapshot.json"
    wanted = None
    draw = random.Random(7)
    for kill in range(KILLS):
        worker = _start(services, job_id)
        until(
            lambda worker=worker: f":{worker.pid}:" in (services.store.jobs.get(job_id).owner or ""),
            timeout_s=120.0,
        )
        if kill % 2:  # the others hit the time before anything is begun
            before = services.store.jobs.get(job_id).done
            until(lambda before=before: services.store.jobs.get(job_id).done != before, timeout_s=120.0)
        time.sleep(draw.uniform(0.2, 6))
        os.kill(worker.pid, signal.SIGKILL)
        worker.wait()
        time.sleep(1.2)  # the lease lapses
        if wanted is None and snapshot.exists():
            wanted = SnapshotManifest.read(snapshot).digest
            # What comes in from now on belongs to the next training.
            _keep_corrections(services, project.id, config + " ", count=2)
    assert _start(services, job_id).wait(400) == 0
    job = services.store.jobs.get(job_id)
    assert (job.status, job.attempts) == (JobStatus.DONE, 0)
    base, made = services.registry.versions(model_name(project.id))
    assert SnapshotManifest.read(made.path / "snapshot.json").digest == wanted
    assert load_checkpoint(made.path, device="cpu").labels == made.labels
    assert made.parent == base.number


def _png(image_hwc):
    buffer = io.BytesIO()
    Image.fromarray(image_hwc).save(buffer, "PNG")
    return buffer.getvalue()


def _start(services, job_id):
    settings = services.settings
    places = {
        "MASKLOOP_HOME": str(settings.home),
        "LABEL_STUDIO_URL": settings.label_studio_url,
        "LABEL_STUDIO_API_KEY": settings.label_studio_api_key.get_secret_value(),
        "MASKLOOP_TRAIN_STEPS": str(settings.train_steps),
        "MASKLOOP_HOLDOUT_LEAST": "5",
    }
    command = [sys.executable, "-c", WORKER, str(job_id)]
    return subprocess.Popen(command, env={**os.environ, **places}, stderr=subprocess.DEVNULL)
