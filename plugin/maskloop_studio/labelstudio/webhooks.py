"""Our webhooks in Label Studio: one for each project, with our secret, active, and removed on disconnecting.

Label Studio makes `<backend>/webhook` when a backend is added, without headers, and leaves it when the
backend is removed. Only webhooks of the organization receive the deletion of a project, and not every Label
Studio lets the API make them: without one `intake.reconcile` finds deleted projects. Newer versions of Label
Studio switch a webhook off after 50 failed deliveries in a row; switching it on again resets their count.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from maskloop.errors import StudioError
from maskloop.log import log_action
from maskloop_studio.labelstudio.basic_auth import authorization
from maskloop_studio.labelstudio.models import Json, StudioWebhook, to_webhook

if TYPE_CHECKING:
    from maskloop.settings import Settings
    from maskloop.store.database import Store
    from maskloop_studio.labelstudio.client import StudioClient

__all__ = [
    "SECRET_HEADER",
    "drop_webhooks",
    "forget_deletions",
    "is_ours",
    "our_webhooks",
    "reactivate_webhooks",
    "secure_webhook",
    "watch_deletions",
    "webhook_headers",
]

logger = logging.getLogger(__name__)
SECRET_HEADER = "X-Maskloop-Secret"  # noqa: S105 - the name of the header
PROJECT_DELETED = "PROJECT_DELETED"


def webhook_headers(settings: Settings, store: Store) -> dict[str, str]:
    """Return the headers that our webhooks carry."""
    secret = settings.webhook_secret.get_secret_value() if settings.webhook_secret is not None else ""
    return {SECRET_HEADER: secret or store.projects.webhook_secret(), **authorization(settings)}


def is_ours(webhook: Json, headers: Mapping[str, str]) -> bool:
    """Return whether a webhook carries our secret."""
    return (webhook.get("headers") or {}).get(SECRET_HEADER) == headers[SECRET_HEADER]


def secure_webhook(
    project_id: int, backend_url: str, headers: Mapping[str, str], client: StudioClient
) -> int:
    """Keep or make one webhook of a project to our address, with all events and our headers; return its id.

    Further ones to our address are deleted, and those with our secret that point to an earlier address.

    Raises:
        StudioError: Label Studio refused.
    """
    url = _webhook_url(backend_url)
    found = sorted(client.webhooks(project_id), key=lambda webhook: int(webhook["id"]))
    here = [webhook for webhook in found if webhook["url"].rstrip("/") == url]
    stale = [webhook for webhook in found if webhook not in here and is_ours(webhook, headers)]
    for webhook in [*here[1:], *stale]:
        client.delete_webhook(int(webhook["id"]))
    wanted: dict[str, Any] = {"is_active": True, "send_payload": True, "send_for_all_actions": True}
    if not here:
        return client.create_webhook(url=url, project=project_id, headers=dict(headers), **wanted)
    kept = here[0]
    wanted["headers"] = {**_without_old(kept), **headers}
    if any(kept.get(name) != value for name, value in wanted.items()):
        client.update_webhook(int(kept["id"]), **wanted)
    return int(kept["id"])


def our_webhooks(project_id: int, headers: Mapping[str, str], client: StudioClient) -> list[StudioWebhook]:
    """Return the webhooks of a project that carry our secret, with their state and count of failures.

    Raises:
        StudioError: Label Studio cannot be reached or refuses.
    """
    return [to_webhook(raw) for raw in client.webhooks(project_id) if is_ours(raw, headers)]


def reactivate_webhooks(
    project_id: int, headers: Mapping[str, str], client: StudioClient
) -> list[StudioWebhook]:
    """Switch on those webhooks of ours that are off.

    Returns:
        The webhooks as they were before: what happened meanwhile was not sent, and has to be reconciled.

    Raises:
        StudioError: Label Studio cannot be reached or refuses.
    """
    inactive = [hook for hook in our_webhooks(project_id, headers, client) if not hook.is_active]
    for hook in inactive:
        # Label Studio removes the actions of a webhook that is changed without naming them.
        client.update_webhook(hook.id, is_active=True, actions=list(hook.actions))
        log_action(
            logger,
            "webhook_reactivated",
            level=logging.WARNING,
            project_id=project_id,
            webhook_id=hook.id,
            consecutive_failures=hook.consecutive_failures,
        )
    return inactive


def watch_deletions(backend_url: str, headers: Mapping[str, str], client: StudioClient) -> bool:
    """Make a webhook for deleted projects; return False where Label Studio does not allow it.

    Raises:
        StudioError: Label Studio cannot be reached.
    """
    url = _webhook_url(backend_url)
    fields = {"headers": dict(headers), "send_for_all_actions": False, "actions": [PROJECT_DELETED]}
    try:
        found = [webhook for webhook in client.organization_webhooks() if webhook["url"].rstrip("/") == url]
        if not found:
            client.create_webhook(url=url, **fields)
        elif found[0].get("headers") != headers:
            client.update_webhook(int(found[0]["id"]), **fields)
    except StudioError as exc:
        if not _is_refusal(exc):
            raise
        log_action(logger, "deletion_webhook_refused", level=logging.DEBUG, error=exc)
        return False
    return True


def forget_deletions(headers: Mapping[str, str], client: StudioClient) -> int:
    """Remove what `watch_deletions` made; return how many webhooks that were.

    Raises:
        StudioError: Label Studio cannot be reached.
    """
    try:
        return drop_webhooks(client.organization_webhooks(), headers, client)
    except StudioError as exc:
        if not _is_refusal(exc):
            raise
        return 0


def drop_webhooks(webhooks: list[Json], headers: Mapping[str, str], client: StudioClient) -> int:
    """Remove our webhooks from among these; return how many that were."""
    ours = [webhook for webhook in webhooks if is_ours(webhook, headers)]
    for webhook in ours:
        client.delete_webhook(int(webhook["id"]))
    return len(ours)


def _is_refusal(exc: StudioError) -> bool:
    return exc.status is not None and 400 <= exc.status < 500


def _webhook_url(backend_url: str) -> str:
    return backend_url.rstrip("/") + "/webhook"


def _without_old(webhook: Json) -> dict[str, str]:
    # Basic credentials that are no longer set must not be sent any more.
    headers = dict(webhook.get("headers") or {})
    if headers.get("Authorization", "").startswith("Basic "):
        del headers["Authorization"]
    return headers
