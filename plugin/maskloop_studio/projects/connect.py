"""Connect a Label Studio project: check it, register model, backend and webhook; and disconnect it again."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from maskloop.errors import LabelConfigError
from maskloop.log import log_action
from maskloop.store.jobs import JobKind
from maskloop_studio.dispatch import request
from maskloop_studio.formats.label_config import map_labels, parse_label_config
from maskloop_studio.labelstudio.basic_auth import backend_credentials
from maskloop_studio.labelstudio.webhooks import (
    drop_webhooks,
    forget_deletions,
    is_ours,
    secure_webhook,
    watch_deletions,
    webhook_headers,
)
from maskloop_studio.projects.task_order import remove_order, set_up_order
from maskloop_studio.projects.training import ensure_champion

if TYPE_CHECKING:
    from collections.abc import Mapping

    from maskloop_studio.labelstudio.client import StudioBackend, StudioClient
    from maskloop_studio.services import Services

__all__ = ["Connection", "Disconnection", "connect_project", "disconnect_project"]

logger = logging.getLogger(__name__)
BACKEND_TITLE = "maskloop"


@dataclass(frozen=True, kw_only=True)
class Connection:
    """What connecting came to."""

    project_id: int
    title: str  # the project's
    model_version: str  # what annotators see predictions of
    matched: tuple[str, ...]  # labels that the model draws already
    unmatched: tuple[str, ...]  # labels it has to learn
    # Label Studio sends an event when the project is deleted; else the next comparison finds it.
    deletion_told: bool


@dataclass(frozen=True, kw_only=True)
class Disconnection:
    """What disconnecting removed from Label Studio."""

    project_id: int
    backends: int
    webhooks: int
    tabs: int  # of the Data Manager


def connect_project(
    project_id: int, backend_url: str, services: Services, *, new_labels: bool = False
) -> Connection:
    """Connect a project; doing it again changes nothing but what has to be repaired.

    Args:
        project_id: Label Studio's number.
        backend_url: where Label Studio reaches maskloop's server.
        services: what to work with.
        new_labels: accept a label config none of whose labels the model knows yet.

    Raises:
        LabelConfigError: no image, nothing to draw with, or no label that the model knows.
        StudioError: Label Studio refused.
    """
    client = services.client
    project = client.project(project_id)
    config = parse_label_config(project.label_config)
    champion = ensure_champion(project_id, registry=services.registry, settings=services.settings)
    try:
        unmatched = map_labels(config, champion.labels).unmatched_labels
    except LabelConfigError:
        if not new_labels:
            raise
        unmatched = config.all_labels
    services.store.projects.save(project_id, project.label_config)
    headers = webhook_headers(services.settings, services.store)
    _drop_old_backends(project_id, backend_url, headers, client)
    credentials = backend_credentials(services.settings, services.store)
    client.connect_backend(project_id, url=backend_url, title=BACKEND_TITLE, credentials=credentials)
    secure_webhook(project_id, backend_url, headers, client)
    deletion_told = watch_deletions(backend_url, headers, client)
    # `model_version` follows with the first predictions: Label Studio takes no version without predictions.
    set_up_order(project_id, client, tabs=services.settings.order_tabs)
    request(JobKind.PRELABEL, project_id, "connected", store=services.store, queue=services.queue)
    log_action(
        logger, "project_connected", project_id=project_id, model_version=champion.tag, backend=backend_url
    )
    return Connection(
        project_id=project_id,
        title=project.title,
        model_version=champion.tag,
        matched=tuple(label for label in config.all_labels if label not in unmatched),
        unmatched=unmatched,
        deletion_told=deletion_told,
    )


def disconnect_project(project_id: int, services: Services) -> Disconnection:
    """Take maskloop out of a project: backend, webhooks, our tabs, and our note that it is connected.

    Stored predictions and annotations stay. Doing it again changes nothing.

    Raises:
        StudioError: Label Studio refused.
    """
    client = services.client
    headers = webhook_headers(services.settings, services.store)
    backends = webhooks = tabs = 0
    if client.find_project(project_id) is not None:
        ours = _our_backends(project_id, headers, client, title=BACKEND_TITLE)
        before = len(client.webhooks(project_id))
        for backend in ours:
            client.delete_backend(project_id, backend.id)
        backends = len(ours)
        drop_webhooks(client.webhooks(project_id), headers, client)
        webhooks = before - len(client.webhooks(project_id))
        tabs = remove_order(project_id, client)
    services.store.projects.remove(project_id)
    if not services.store.projects.ids():
        webhooks += forget_deletions(headers, client)
    log_action(logger, "project_disconnected", project_id=project_id, backends=backends, webhooks=webhooks)
    return Disconnection(project_id=project_id, backends=backends, webhooks=webhooks, tabs=tabs)


def _our_backends(
    project_id: int, headers: Mapping[str, str], client: StudioClient, *, title: str | None = None
) -> list[StudioBackend]:
    addresses = {hook["url"].rstrip("/") for hook in client.webhooks(project_id) if is_ours(hook, headers)}
    return [
        backend
        for backend in client.backends(project_id)
        if f"{backend.url.rstrip('/')}/webhook" in addresses or backend.title == title
    ]


def _drop_old_backends(
    project_id: int, backend_url: str, headers: Mapping[str, str], client: StudioClient
) -> None:
    # Nothing answers at an earlier address: Label Studio would wait for it with every event.
    for backend in _our_backends(project_id, headers, client):
        if backend.url.rstrip("/") != backend_url.rstrip("/"):
            client.delete_backend(project_id, backend.id)
