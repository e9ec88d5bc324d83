"""Connect a Label Studio project: check it, register model, backend and webhook; and disconnect it again."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from maskloop.log import log_action
from maskloop.store.audit import MASKLOOP, Actor, AuditAction, AuditEntry
from maskloop.store.jobs import JobKind
from maskloop_studio.dispatch import request
from maskloop_studio.labelstudio.basic_auth import backend_credentials
from maskloop_studio.labelstudio.webhooks import (
    drop_webhooks,
    forget_deletions,
    secure_webhook,
    watch_deletions,
    webhook_headers,
)
from maskloop_studio.projects.announcement import withdraw
from maskloop_studio.projects.audit_trail import record
from maskloop_studio.projects.connection_plan import (
    BACKEND_TITLE,
    ConnectionPlan,
    our_backends,
    plan_connection,
)
from maskloop_studio.projects.task_order import remove_order, reset_sampling, set_up_order
from maskloop_studio.projects.training import ensure_champion

if TYPE_CHECKING:
    from collections.abc import Mapping

    from maskloop_studio.labelstudio.client import StudioClient
    from maskloop_studio.services import Services

__all__ = [
    "Connection",
    "Disconnection",
    "carry_out",
    "connect_project",
    "disconnect_project",
]

logger = logging.getLogger(__name__)


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
    sampling_reset: bool  # the task sampling is Label Studio's default again


def connect_project(
    project_id: int, backend_url: str, services: Services, *, new_labels: bool = False
) -> Connection:
    """Plan and connect a project; doing it again changes nothing but what has to be repaired.

    Args:
        project_id: Label Studio's number.
        backend_url: where Label Studio reaches maskloop's server.
        services: what to work with.
        new_labels: accept a label config none of whose labels the model knows yet.

    Raises:
        LabelConfigError: no image, nothing to draw with, or no label that the model knows.
        StudioError: Label Studio refused.
    """
    return carry_out(plan_connection(project_id, backend_url, services, new_labels=new_labels), services)


def carry_out(plan: ConnectionPlan, services: Services, *, actor: Actor = MASKLOOP) -> Connection:
    """Connect a project as planned: model, backend with interactive preannotations, webhook, order of tasks.

    Raises:
        ModelLoadError: the model of the settings cannot be loaded.
        StudioError: Label Studio refused.
    """
    client, project_id, backend_url = services.client, plan.project_id, plan.backend_url
    champion = ensure_champion(project_id, registry=services.registry, settings=services.settings)
    services.store.projects.save(project_id, plan.label_config)
    headers = webhook_headers(services.settings, services.store)
    _drop_old_backends(project_id, backend_url, headers, client)
    client.connect_backend(
        project_id,
        url=backend_url,
        title=BACKEND_TITLE,
        is_interactive=True,
        credentials=backend_credentials(services.settings, services.store),
    )
    secure_webhook(project_id, backend_url, headers, client)
    deletion_told = watch_deletions(backend_url, headers, client)
    # `model_version` follows with the first predictions: Label Studio takes no version without predictions.
    set_up_order(project_id, client, tabs=services.settings.order_tabs)
    _record(project_id, AuditAction.CONNECTED, actor, services, f"{champion.tag} at {backend_url}")
    request(JobKind.PRELABEL, project_id, "connected", store=services.store, queue=services.queue)
    log_action(
        logger, "project_connected", project_id=project_id, model_version=champion.tag, backend=backend_url
    )
    return Connection(
        project_id=project_id,
        title=plan.title,
        model_version=champion.tag,
        matched=plan.matched,
        unmatched=plan.unmatched,
        deletion_told=deletion_told,
    )


def disconnect_project(project_id: int, services: Services, *, actor: Actor = MASKLOOP) -> Disconnection:
    """Take maskloop out of a project: backend, webhooks, our tabs, sampling, our line in its description.

    Interactive preannotations are a property of the backend and go with it. Stored predictions and
    annotations stay. Doing it again changes nothing.

    Raises:
        StudioError: Label Studio refused.
    """
    client = services.client
    headers = webhook_headers(services.settings, services.store)
    backends = webhooks = tabs = 0
    sampling_reset = False
    if client.find_project(project_id) is not None:
        ours = our_backends(project_id, headers, client, title=BACKEND_TITLE)
        before = len(client.webhooks(project_id))
        for backend in ours:
            client.delete_backend(project_id, backend.id)
        backends = len(ours)
        drop_webhooks(client.webhooks(project_id), headers, client)
        webhooks = before - len(client.webhooks(project_id))
        tabs = remove_order(project_id, client)
        withdraw(project_id, client)
        sampling_reset = bool(backends) and reset_sampling(project_id, client)
    services.store.projects.remove(project_id)
    if not services.store.projects.ids():
        webhooks += forget_deletions(headers, client)
    _record(project_id, AuditAction.DISCONNECTED, actor, services, f"{backends} backends removed")
    log_action(logger, "project_disconnected", project_id=project_id, backends=backends, webhooks=webhooks)
    return Disconnection(
        project_id=project_id,
        backends=backends,
        webhooks=webhooks,
        tabs=tabs,
        sampling_reset=sampling_reset,
    )


def _record(project_id: int, action: AuditAction, actor: Actor, services: Services, reason: str) -> None:
    record(AuditEntry(project_id=project_id, action=action, actor=actor, reason=reason), services.store)


def _drop_old_backends(
    project_id: int, backend_url: str, headers: Mapping[str, str], client: StudioClient
) -> None:
    # Nothing answers at an earlier address: Label Studio would wait for it with every event.
    for backend in our_backends(project_id, headers, client):
        if backend.url.rstrip("/") != backend_url.rstrip("/"):
            client.delete_backend(project_id, backend.id)
