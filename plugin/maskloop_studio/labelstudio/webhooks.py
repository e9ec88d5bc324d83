"""The webhooks of ours in Label Studio: with our secret, one of each, and none left where we are no longer.

Label Studio makes `<backend>/webhook` when a backend is added, without headers, and leaves it when the
backend goes. Deleting a project is told to webhooks of the organization only, which not every Label Studio
lets the API make: without one the comparison with Label Studio (`sync.py`) notices.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from maskloop.errors import StudioError
from maskloop.log import log_action
from maskloop_studio.labelstudio.basic_auth import authorization
from maskloop_studio.labelstudio.models import Json

if TYPE_CHECKING:
    from maskloop.settings import Settings
    from maskloop.store.database import Store
    from maskloop_studio.labelstudio.client import StudioClient

__all__ = [
    "SECRET_HEADER",
    "drop_webhooks",
    "forget_deletions",
    "is_ours",
    "secure_webhook",
    "watch_deletions",
    "webhook_headers",
]

logger = logging.getLogger(__name__)
SECRET_HEADER = "X-Maskloop-Secret"  # noqa: S105 - its name, not the secret
PROJECT_DELETED = "PROJECT_DELETED"


def webhook_headers(settings: Settings, store: Store) -> dict[str, str]:
    """Return what our webhooks carry."""
    said = settings.webhook_secret.get_secret_value() if settings.webhook_secret is not None else ""
    return {SECRET_HEADER: said or store.projects.webhook_secret(), **authorization(settings)}


def is_ours(webhook: Json, headers: Mapping[str, str]) -> bool:
    """Return whether a webhook carries our secret."""
    return (webhook.get("headers") or {}).get(SECRET_HEADER) == headers[SECRET_HEADER]


def secure_webhook(
    project_id: int, backend_url: str, headers: Mapping[str, str], client: StudioClient
) -> int:
    """Leave one webhook of a project that reaches us, with all events and our headers; return its id.

    Doubled ones go, and those with our secret that point where we were before.

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


def watch_deletions(backend_url: str, headers: Mapping[str, str], client: StudioClient) -> bool:
    """Have deleted projects told to us; return False where Label Studio does not let us.

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
        log_action(logger, "deletions not told", level=logging.DEBUG, error=exc)
        return False
    return True


def forget_deletions(headers: Mapping[str, str], client: StudioClient) -> int:
    """Remove what `watch_deletions` made; return how many there were.

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
    """Remove those of the webhooks that are ours; return how many there were."""
    ours = [webhook for webhook in webhooks if is_ours(webhook, headers)]
    for webhook in ours:
        client.delete_webhook(int(webhook["id"]))
    return len(ours)


def _is_refusal(exc: StudioError) -> bool:
    return exc.status is not None and 400 <= exc.status < 500


def _webhook_url(backend_url: str) -> str:
    return backend_url.rstrip("/") + "/webhook"


def _without_old(webhook: Json) -> dict[str, str]:
    # Basic credentials that are no longer set must not travel on.
    headers = dict(webhook.get("headers") or {})
    if headers.get("Authorization", "").startswith("Basic "):
        del headers["Authorization"]
    return headers
