"""Checks of one project: is it connected, does Label Studio reach us, do its labels fit the model."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterator
from datetime import timedelta
from urllib.parse import urlsplit

from maskloop.errors import LabelConfigError
from maskloop.store.job_types import JobKind, JobStatus
from maskloop.store.sessions import now
from maskloop_studio.doctor.check_context import CheckContext
from maskloop_studio.doctor.check_run import Check
from maskloop_studio.doctor.findings import Finding, good, hint, trouble
from maskloop_studio.formats.label_config import map_labels, parse_label_config
from maskloop_studio.formats.task_data import task_images
from maskloop_studio.labelstudio.client import BASIC_AUTH
from maskloop_studio.labelstudio.error_map import LOCAL_BACKEND_REMEDY
from maskloop_studio.labelstudio.models import StudioBackend, StudioWebhook, to_webhook
from maskloop_studio.labelstudio.webhooks import is_ours, webhook_headers
from maskloop_studio.projects.connection_plan import BACKEND_TITLE

__all__ = ["PROJECT_CHECKS"]

CONNECTED = ("CO", "TR", "PR")  # Label Studio's states of a backend that answered
LATE_SYNCS = 3
SHOWN_ERROR = 300  # characters
SHOWN_SET_ASIDE = 20
SHOWN_IMAGES = 4  # of one task


def check_project(context: CheckContext) -> Iterator[Finding]:
    """Label Studio has it, and it is connected."""
    project = context.project
    yield good(f"project {project.id}", f"{project.title}, {project.task_count} tasks")
    if project.id in context.store.projects.ids():
        yield good("its connection", "connected")
    else:
        yield trouble(
            f"project {project.id}",
            expected="a project that is connected",
            got="one that is not",
            remedy=f"run `maskloop connect {project.id}`",
        )


def check_backend(context: CheckContext) -> Iterator[Finding]:
    """One backend, ours, that Label Studio reaches."""
    backends = context.backends
    ours = [
        backend for backend in backends if backend.title == BACKEND_TITLE or _has_our_hook(backend, context)
    ]
    if not ours:
        yield trouble(
            "labeling backends",
            expected="maskloop's",
            got=", ".join(backend.url for backend in backends) or "none",
            remedy=f"run `maskloop connect {context.number}`",
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
        yield _credentials_finding(backend, context.number)
    if len(backends) > 1:
        yield hint(
            "labeling backends",
            expected="maskloop's alone",
            got=", ".join(f"{backend.title} ({backend.url})" for backend in backends),
            remedy="remove those that are not needed: each is called for every task that is opened",
        )


def _credentials_finding(backend: StudioBackend, project_id: int) -> Finding:
    place = f"credentials of backend {backend.url}"
    if backend.auth_method == BASIC_AUTH:
        return good(place, "Label Studio sends them")
    return trouble(
        place,
        expected="those that `maskloop connect` stores: Start Training and new options need them",
        got="none: the project was connected by an earlier version, or they were removed",
        remedy=f"run `maskloop connect {project_id}` again",
    )


def check_webhook(context: CheckContext) -> Iterator[Finding]:
    """Label Studio sends all events to us, with our secret, and they arrive."""
    headers = webhook_headers(context.settings, context.store)
    wanted = {f"{backend.url.rstrip('/')}/webhook" for backend in context.backends}
    ours = [to_webhook(hook) for hook in context.webhooks if is_ours(hook, headers)]
    if not ours:
        is_foreign = any(hook["url"] in wanted for hook in context.webhooks)
        yield trouble(
            "webhook",
            expected="one with our secret",
            got="one without our secret" if is_foreign else "none",
            remedy=f"run `maskloop connect {context.number}` again",
        )
    for hook in ours:
        yield _webhook_finding(hook, wanted, context.number)


def _webhook_finding(hook: StudioWebhook, wanted: Collection[str], project_id: int) -> Finding:
    failures = hook.consecutive_failures or 0
    faults = {
        f"switched off, after {failures} failures in a row": not hook.is_active,
        "sends some events only": not hook.send_for_all_actions,
        "sends no payload": not hook.send_payload,
        "sends to an address without a backend": hook.url not in wanted,
    }
    place = f"webhook {hook.url}"
    if any(faults.values()):
        return trouble(
            place,
            expected="active, for all events",
            got="; ".join(text for text, is_so in faults.items() if is_so),
            remedy=f"run `maskloop connect {project_id}` again; `maskloop sync {project_id}` then takes in "
            "what was missed",
        )
    if failures:
        return hint(
            place,
            expected="that every event arrives",
            got=f"{failures} failures in a row; newer versions of Label Studio switch it off after 50",
            remedy="see that `maskloop serve` runs at this address; the scheduler takes in what was missed",
        )
    return good(place, "active, for all events")


def check_away(context: CheckContext) -> Iterator[Finding]:
    """Label Studio had the project at the last comparisons."""
    absence = context.store.projects.absences().get(context.number)
    if absence is None:
        yield good("comparisons", "none found that Label Studio lacks the project")
    else:
        yield hint(
            f"project {context.number}",
            expected="that Label Studio has it",
            got=f"status 404 at {absence.checks} checks since {absence.since:%Y-%m-%d %H:%M} UTC",
            remedy="its annotations stay; it comes back by itself once Label Studio has it again",
        )


def check_set_aside(context: CheckContext) -> Iterator[Finding]:
    """Every annotation can be read."""
    count = context.store.annotations.count_set_aside(context.number)
    place = f"annotations of project {context.number}"
    if not count:
        yield good(place, "none is set aside")
        return
    examples = context.store.annotations.set_aside(context.number, limit=SHOWN_SET_ASIDE)
    yield trouble(
        place,
        expected="that each can be read",
        got=f"{count} set aside: neither learnt from nor judged by",
        remedy="correct them in Label Studio; they are taken in again by themselves once they can be read",
    )
    for one in examples:
        yield hint(
            f"annotation {one.annotation_id} of task {one.task_id}",
            expected="an annotation that can be read",
            got=one.reason[:SHOWN_ERROR],
            remedy="correct it in Label Studio and save it again",
        )
    if count > len(examples):
        yield hint(
            place,
            expected="that each can be read",
            got=f"{count - len(examples)} more that are set aside",
            remedy="`maskloop jobs list` names 20, and more as these are corrected",
        )


def check_labels(context: CheckContext) -> Iterator[Finding]:
    """The label config can be drawn with, and the model knows its labels."""
    from maskloop.learning.registry import CHAMPION
    from maskloop_studio.projects.training import model_name

    config = parse_label_config(context.project.label_config)
    registry, name = context.registry, model_name(context.number)
    number = registry.alias(name, CHAMPION)
    if number is None:
        yield hint(
            f"model of project {context.number}",
            expected="a version that serves",
            got="none",
            remedy=f"run `maskloop connect {context.number}`, or `maskloop prelabel {context.number}`",
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


def check_sync(context: CheckContext) -> Iterator[Finding]:
    """The project was compared with Label Studio lately."""
    minutes = context.settings.sync_minutes
    done = context.store.jobs.find(
        statuses=[JobStatus.DONE], kind=JobKind.SYNC, project_id=context.number, limit=1
    )
    ended = done[0].finished_at if done else None
    if ended is not None and now() - ended < timedelta(minutes=LATE_SYNCS * minutes):
        yield good("comparison with Label Studio", f"last ended {ended:%Y-%m-%d %H:%M} UTC")
    else:
        yield hint(
            "comparison with Label Studio",
            expected=f"one every {minutes} minutes",
            got="none yet" if ended is None else f"the last ended {ended:%Y-%m-%d %H:%M} UTC",
            remedy=f"run `maskloop scheduler`, or `maskloop sync {context.number}` now",
        )


def check_jobs(context: CheckContext) -> Iterator[Finding]:
    """No job has failed for good."""
    dead = context.store.jobs.find(statuses=[JobStatus.DEAD], project_id=context.number)
    if not dead:
        yield good("jobs", "none has failed for good")
        return
    yield trouble(
        "jobs",
        expected="none that has failed for good",
        got=f"{len(dead)}, the last {dead[-1].name}: {(dead[-1].error or '')[:SHOWN_ERROR]}",
        remedy=f"remove the cause, then `maskloop jobs retry --all --project {context.number}`",
    )


def check_images(context: CheckContext) -> Iterator[Finding]:
    """The images of a task can be fetched and read."""
    from maskloop.segmentation.image import decode_image

    client, settings = context.client, context.settings
    task = next(client.iter_tasks(context.number), None)
    if task is None:
        yield hint("tasks", expected="some", got="none", remedy="import images into the project")
        return
    config = parse_label_config(context.project.label_config)
    for image in task_images(config, task.data, place=f"task {task.id}")[:SHOWN_IMAGES]:
        data = context.fetcher.fetch(image.address, task_id=task.id)
        height, width = decode_image(data, max_pixels=settings.max_image_pixels).shape[:2]
        page = "" if image.item_index is None else f", page {image.item_index + 1}"
        yield good(f"<Image name={image.to_name!r}>{page} of task {task.id}", f"{width}x{height}")


def _has_our_hook(backend: StudioBackend, context: CheckContext) -> bool:
    headers = webhook_headers(context.settings, context.store)
    address = f"{backend.url.rstrip('/')}/webhook"
    return any(hook["url"].rstrip("/") == address and is_ours(hook, headers) for hook in context.webhooks)


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
    check_away,
    check_set_aside,
    check_labels,
    check_sync,
    check_jobs,
    check_images,
)
