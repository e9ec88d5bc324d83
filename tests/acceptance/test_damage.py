"""40 annotated images, half of them in forms that cannot be read: none becomes an empty correction."""

import io
import re
import time

import httpx
import pytest
from PIL import Image
from tests.fakes.drawn import bitmask, brush, polygon, vector

from maskloop.lab.synthetic.shapes import make_image
from maskloop.store.jobs import JobKind, JobStatus
from maskloop_studio.doctor.command import examine
from maskloop_studio.intake.set_aside_report import set_aside_lines
from maskloop_studio.projects.connect import connect_project
from maskloop_studio.runtime.tasks import work_on

pytestmark = pytest.mark.studio

TOOLS = "".join(
    f'<{tag}Labels name="{name}" toName="TO"><Label value="disc"/></{tag}Labels>'
    for tag, name in (("Polygon", "p"), ("Vector", "v"), ("Brush", "b"), ("Bitmask", "m"))
)
CONFIG = f'<View><Image name="image" value="$image"/>{TOOLS.replace("TO", "image")}</View>'
WIDER = (
    f'<View><Image name="image" value="$image"/><Image name="photo" value="$image"/>'
    f"{TOOLS.replace('TO', 'image,photo')}</View>"
)
PIXELS = {"points": [[120, 101], [160, 101], [160, 104]], "polygonlabels": ["disc"]}
DAMAGED = {
    "unknown type": [polygon(type="hologramlabels", value={"hologramlabels": ["disc"]})],
    "unknown type beside a polygon": [polygon(), polygon(id="y", type="superpixel", value={"cells": [4]})],
    "open vector": [vector(closed=False)],
    "polygon in pixels": [polygon(value=PIXELS)],
    "brush cut off": [brush(value={"format": "rle", "rle": [0, 4, 176, 0, 57], "brushlabels": ["disc"]})],
    "brush of another image": [brush(original_width=50, original_height=80)],
    "bitmask that is no PNG": [bitmask(value={"imageDataURL": "data:image/png;base64,AAAA"})],
    "tool that is not there": [polygon(from_name="gone", type="lassolabels", value={"path": "M0 0"})],
    "turned by 33 degrees": [polygon(image_rotation=33)],
    "image that is not there": [polygon(to_name="photo")],
}


def _upload(client, project_id, seed):
    file = io.BytesIO()
    Image.fromarray(make_image(seed, size_hw=(100, 200)).image_hwc).save(file, "PNG")
    return client.upload_image(project_id, f"{seed}.png", file.getvalue())


def _work_off(services, *, until):
    """Do the events that arrive until the condition holds."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for job in services.store.jobs.due():
            if job.kind is JobKind.EVENT:
                assert work_on(job.job_id, services) is JobStatus.DONE, services.store.jobs.get(job.job_id)
        if until():
            return
        time.sleep(0.1)
    raise AssertionError(services.store.jobs.find(kind=JobKind.EVENT, limit=5))


@pytest.fixture
def project(services, server_url, make_project):
    made = make_project("damage", CONFIG)
    connect_project(made.id, server_url, services)
    return made


def _annotate(services, project_id, results):
    """Make a task for each result, annotate it, take it in; return task -> its annotation."""
    client, store = services.client, services.store
    uris = [_upload(client, project_id, seed) for seed in range(4)]
    tasks = [{"data": {"image": uris[number % 4]}} for number in range(len(results))]
    made = {
        task_id: int(client.create_annotation(task_id, {"result": result, "lead_time": 1.0})["id"])
        for task_id, result in zip(client.import_tasks(project_id, tasks), results, strict=True)
    }
    _work_off(services, until=lambda: len(store.annotations.known(project_id)) == len(results))
    return made


def _taken_in(services, project_id):
    splits = ("train", "holdout")
    return [one for split in splits for one in services.store.corrections.of(project_id, split=split)]


def test_half_of_the_annotations_unreadable_is_set_aside_and_reported(services, server_url, project):
    damaged_forms = [form for form in DAMAGED.values() for _ in range(2)]
    made = _annotate(services, project.id, [form for one in damaged_forms for form in (one, [polygon()])])
    damaged = set(list(made)[::2])
    corrections = _taken_in(services, project.id)
    assert {one.task_id for one in corrections} == made.keys() - damaged
    assert (len(made), len(damaged), len(corrections)) == (40, 20, 20)
    assert all(one.segments for one in corrections)
    assert services.store.annotations.count_set_aside(project.id) == 20
    assert services.store.jobs.find(statuses=[JobStatus.DEAD]) == ()

    lines = list(set_aside_lines(project.id, services.store.annotations))
    assert "20 annotations cannot be read" in lines[0]
    named = [f"annotation {made[task_id]} of task {task_id}: " for task_id in damaged]
    findings = [one for one in examine(services, project.id) if one.check == "set aside"]
    assert "20 set aside" in findings[0].got
    page = httpx.get(server_url, trust_env=False).raise_for_status().text
    assert f"20: see maskloop doctor {project.id}" in page
    for task_id, name in zip(damaged, named, strict=True):
        assert any(name in line and ": expected " in line for line in lines)
        assert any(name.startswith(one.place) and ": expected " in one.got for one in findings)
        assert re.search(f"<td>{task_id}</td><td>{made[task_id]}</td><td>[^<]*expected", page)


def test_annotations_that_become_readable_are_taken_in_by_themselves(services, project):
    client, store = services.client, services.store
    made = _annotate(services, project.id, list(DAMAGED.values()))
    assert store.annotations.count_set_aside(project.id) == len(made)
    *drawn_again, config_helps = made
    for task_id in drawn_again:
        client.update_annotation(made[task_id], result=[polygon()])
    _work_off(services, until=lambda: store.annotations.count_set_aside(project.id) == 1)
    client.update_project(project.id, label_config=WIDER)
    _work_off(services, until=lambda: store.annotations.count_set_aside(project.id) == 0)
    corrections = _taken_in(services, project.id)
    assert {one.task_id for one in corrections} == made.keys()
    assert all([segment.label for segment in one.segments] == ["disc"] for one in corrections)
    assert {one.view for one in corrections if one.task_id == config_helps} == {"photo"}
    assert store.jobs.find(statuses=[JobStatus.DEAD]) == ()
