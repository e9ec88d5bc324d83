"""Checks of one project: is it joined to us, does Label Studio reach us, does what it has fit the model."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from datetime import timedelta
from urllib.parse import urlsplit

from maskloop.errors import LabelConfigError
from maskloop.store.job_types import JobKind, JobStatus
from maskloop.store.sessions import now
from maskloop_studio.doctor.findings import Check, Finding, Patient, good, hint, trouble
from maskloop_studio.formats.label_config import map_labels, parse_label_config
from maskloop_studio.labelstudio.error_map import LOCAL_BACKEND_REMEDY
from maskloop_studio.labelstudio.models import StudioBackend
from maskloop_studio.labelstudio.webhooks import is_ours, webhook_headers
from maskloop_studio.projects.connect import BACKEND_TITLE

__all__ = ["PROJECT_CHECKS"]

CONNECTED = ("CO", "TR", "PR")  # Label Studio's words for a backend that answered
LATE_SYNCS = 3
SHOWN_ERROR = 200


def check_project(patient: Patient) -> Iterator[Finding]:
    """Label Studio has it, and it is connected."""
    project = patient.project
    yield good(f"project {project.id}", f"{project.title}, {project.task_count} tasks")
    if project.id in patient.services.store.projects.ids():
        yield good("our note of it", "connected")
    else:
        yield trouble(
            f"project {project.id}",
            expected="that maskloop knows it",
            got="that it does not",
            remedy=f"run `maskloop connect {project.id}`",
        )


def check_backend(patient: Patient) -> Iterator[Finding]:
    """One backend, ours, that Label Studio reaches."""
    backends = patient.backends
    ours = [
        backend for backend in backends if backend.title == BACKEND_TITLE or _has_our_hook(backend, patient)
    ]
    if not ours:
        yield trouble(
            "labeling backends",
            expected="maskloop's",
            got=", ".join(backend.url for backend in backends) or "none",
            remedy=f"run `maskloop connect {patient.number}`",
        )
    for backend in ours:
        if backend.state in CONNECTED:
            yield good(f"backend {backend.url}", "Label Studio reaches it")
        else:
            yield trouble(
                f"backend {backend.url}",
                expected="that Label Studio reaches it",
                got=f"state {backend.state or 'unknown'}",
                remedy=_reach_remedy(backend.url),
            )
    if len(backends) > 1:
        yield hint(
            "labeling backends",
            expected="maskloop's alone",
            got=", ".join(f"{backend.title} ({backend.url})" for backend in backends),
            remedy="remove those that nobody needs: each is called for every task that is opened",
        )


def check_webhook(patient: Patient) -> Iterator[Finding]:
    """Label Studio tells us of all events, with our secret."""
    headers = webhook_headers(patient.services.settings, patient.services.store)
    wanted = {f"{backend.url.rstrip('/')}/webhook" for backend in patient.backends}
    ours = [hook for hook in patient.webhooks if is_ours(hook, headers)]
    remedy = f"run `maskloop connect {patient.number}` again"
    if not ours:
        got = "one without our secret" if any(hook["url"] in wanted for hook in patient.webhooks) else "none"
        yield trouble("webhook", expected="one with our secret", got=got, remedy=remedy)
    for hook in ours:
        faults = [
            *([] if hook.get("is_active") else ["switched off"]),
            *([] if hook.get("send_for_all_actions") else ["told of some events only"]),
            *([] if hook.get("send_payload") else ["without payload"]),
            *([] if hook["url"] in wanted else ["at an address without a backend"]),
        ]
        place = f"webhook {hook['url']}"
        if faults:
            yield trouble(place, expected="active, told of all events", got=", ".join(faults), remedy=remedy)
        else:
            yield good(place, "active, told of all events")


def check_labels(patient: Patient) -> Iterator[Finding]:
    """The label config can be drawn with, and the model knows its labels."""
    from maskloop.learning.registry import CHAMPION
    from maskloop_studio.projects.training import model_name

    config = parse_label_config(patient.project.label_config)
    registry, name = patient.services.registry, model_name(patient.number)
    number = registry.alias(name, CHAMPION)
    if number is None:
        yield hint(
            f"model of project {patient.number}",
            expected="a version that serves",
            got="none",
            remedy=f"run `maskloop connect {patient.number}`, or `maskloop prelabel {patient.number}`",
        )
        return
    champion = registry.get(name, number)
    try:
        missing = map_labels(config, champion.labels).unmatched_labels
    except LabelConfigError:
        missing = config.all_labels
    if missing:
        yield hint(
            "label config",
            expected=f"labels that {champion.tag} knows",
            got=f"also {', '.join(missing)}",
            remedy="correct images with them: the next training learns them; or use `predicted_values`",
        )
    else:
        yield good("label config", f"{champion.tag} knows all {len(config.all_labels)} labels")


def check_sync(patient: Patient) -> Iterator[Finding]:
    """Label Studio's state was compared with ours lately."""
    minutes = patient.services.settings.sync_minutes
    done = patient.services.store.jobs.find(
        statuses=[JobStatus.DONE], kind=JobKind.SYNC, project_id=patient.number, limit=1
    )
    ended = done[0].finished_at if done else None
    if ended is not None and now() - ended < timedelta(minutes=LATE_SYNCS * minutes):
        yield good("comparison with Label Studio", f"last ended {ended:%Y-%m-%d %H:%M} UTC")
    else:
        yield hint(
            "comparison with Label Studio",
            expected=f"one every {minutes} minutes",
            got="none yet" if ended is None else f"the last ended {ended:%Y-%m-%d %H:%M} UTC",
            remedy=f"run `maskloop scheduler`, or `maskloop sync {patient.number}` now",
        )


def check_jobs(patient: Patient) -> Iterator[Finding]:
    """Nothing was given up."""
    dead = patient.services.store.jobs.find(statuses=[JobStatus.DEAD], project_id=patient.number)
    if not dead:
        yield good("jobs", "none was given up")
        return
    yield trouble(
        "jobs",
        expected="none that was given up",
        got=f"{len(dead)}, the last {dead[-1].name}: {(dead[-1].error or '')[:SHOWN_ERROR]}",
        remedy=f"mend the cause, then `maskloop jobs retry --all --project {patient.number}`",
    )


def check_images(patient: Patient) -> Iterator[Finding]:
    """An image of a task can be had and read."""
    from maskloop.segmentation.image import decode_image

    field = parse_label_config(patient.project.label_config).image_field
    client, settings = patient.services.client, patient.services.settings
    task = next(client.iter_tasks(patient.number), None)
    if task is None:
        yield hint("tasks", expected="some", got="none", remedy="import images into the project")
        return
    uri = task.data.get(field)
    if not isinstance(uri, str):
        yield trouble(
            f"task {task.id}",
            expected=f"the address of an image under {field!r}",
            got=type(uri).__name__,
            remedy="check `value` of <Image> in the label config against the task's data",
        )
        return
    image = decode_image(
        patient.services.fetcher.fetch(uri, task_id=task.id), max_pixels=settings.max_image_pixels
    )
    height, width = image.shape[:2]
    yield good(f"image of task {task.id}", f"{width}x{height}")


def _has_our_hook(backend: StudioBackend, patient: Patient) -> bool:
    headers = webhook_headers(patient.services.settings, patient.services.store)
    address = f"{backend.url.rstrip('/')}/webhook"
    return any(hook["url"].rstrip("/") == address and is_ours(hook, headers) for hook in patient.webhooks)


def _reach_remedy(url: str) -> str:
    start = "start it (maskloop up), at an address under which Label Studio's machine reaches it"
    return f"{start}; {LOCAL_BACKEND_REMEDY}" if _is_private(urlsplit(url).hostname or "") else start


def _is_private(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return "." not in host or host.endswith((".local", ".internal"))


PROJECT_CHECKS: tuple[Check, ...] = (
    check_project,
    check_backend,
    check_webhook,
    check_labels,
    check_sync,
    check_jobs,
    check_images,
)
