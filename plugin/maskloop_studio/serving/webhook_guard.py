"""Who may send events: whoever knows the webhook's secret, and only of projects that are connected."""

from __future__ import annotations

import asyncio
import hmac
import time
from typing import TYPE_CHECKING

from starlette.concurrency import run_in_threadpool

from maskloop_studio.errors import ForeignProjectError, UnauthorizedError
from maskloop_studio.labelstudio.webhooks import SECRET_HEADER

if TYPE_CHECKING:
    from maskloop_studio.services import Services

__all__ = ["SECRET_HEADER", "WebhookGuard"]

FRESH_S = 2.0  # how long what the database said is believed


class WebhookGuard:
    """Checks events against the secret and the projects in the database; asks it seldom."""

    def __init__(self, services: Services) -> None:
        said = services.settings.webhook_secret
        self._fixed = (said.get_secret_value().encode() if said is not None else None) or None
        self._services = services
        self._secret, self._secret_at = self._fixed, 0.0
        self._projects: frozenset[int] = frozenset()
        self._projects_at = 0.0
        self._lock = asyncio.Lock()

    async def check_secret(self, given: str | None) -> None:
        """Accept whoever knows the secret.

        Args:
            given: what the header X-Maskloop-Secret says, None where it is missing.

        Raises:
            UnauthorizedError: there is none, or another.
            StoreError: the database does not answer.
        """
        if given is not None and await self._is_secret(given.encode("latin-1", "replace")):
            return
        raise UnauthorizedError(
            "webhook",
            expected=f"the secret in the header {SECRET_HEADER}",
            got="none" if given is None else "another",
            remedy="run `maskloop connect` again: it sets the header on the webhook in Label Studio",
        )

    async def check_project(self, project_id: int) -> None:
        """Accept events of connected projects.

        Raises:
            ForeignProjectError: the project is not connected.
            StoreError: the database does not answer.
        """
        asked = time.monotonic()
        if project_id in self._projects and asked - self._projects_at < FRESH_S:
            return
        async with self._lock:
            # Whoever waited for the lock takes the answer that came meanwhile: a flood asks once at a time.
            if self._projects_at < asked:
                at = time.monotonic()
                self._projects = frozenset(await run_in_threadpool(self._services.store.projects.ids))
                self._projects_at = at
        if project_id not in self._projects:
            raise ForeignProjectError(
                "webhook",
                expected="an event of a connected project",
                got="one of another project",
                remedy="run `maskloop connect` for it, or take this address out of the webhook",
            )

    async def _is_secret(self, given: bytes) -> bool:
        if self._secret is not None and hmac.compare_digest(given, self._secret):
            return True
        if self._fixed is not None:
            return False
        async with self._lock:
            # It may have been made anew; asked seldom, so that guessing costs the database nothing.
            if self._secret is None or time.monotonic() - self._secret_at > FRESH_S:
                secret = await run_in_threadpool(self._services.store.projects.webhook_secret)
                self._secret, self._secret_at = secret.encode(), time.monotonic()
        return hmac.compare_digest(given, self._secret)
