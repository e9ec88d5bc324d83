"""Which requests may change something: those with the secret or credentials that `connect` stored."""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from maskloop_studio.errors import ForeignProjectError, UnauthorizedError
from maskloop_studio.labelstudio.basic_auth import BACKEND_USER, expected_credentials
from maskloop_studio.labelstudio.webhooks import SECRET_HEADER
from maskloop_studio.serving.http.login import CredentialCheck

if TYPE_CHECKING:
    from maskloop.settings import Settings
    from maskloop.store.database import Store
    from maskloop_studio.serving.request_threads import RunInThread

__all__ = ["SECRET_HEADER", "SenderGuard"]

FRESH_S = 2.0  # how long an answer of the database is used


class SenderGuard:
    """Checks requests against the secret and the projects in the database; asks the database seldom."""

    def __init__(self, settings: Settings, *, store: Callable[[], Store], run: RunInThread) -> None:
        """Args:
        settings: their secret and login win over those of the database.
        store: the database; opened at the first use.
        run: keeps the event loop free while the database is asked.
        """
        fixed = settings.webhook_secret
        self._fixed = (fixed.get_secret_value().encode() if fixed is not None else None) or None
        login = expected_credentials(settings)
        self._login = None if login is None else CredentialCheck(*login)
        self._store, self._run = store, run
        self._secret, self._secret_at = self._fixed, 0.0
        self._projects: frozenset[int] = frozenset()
        self._projects_at = 0.0
        self._lock = asyncio.Lock()

    async def check_secret(self, given: str | None) -> None:
        """Accept a webhook that carries the secret.

        Args:
            given: the value of the header X-Maskloop-Secret, None where it is missing.

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

    async def check_credentials(self, authorization: str | None, *, place: str) -> None:
        """Accept a request with the credentials that `connect` stored in Label Studio.

        Args:
            authorization: the header Authorization, None where it is missing.
            place: what is asked for, for the error's text.

        Raises:
            UnauthorizedError: there are none, or others.
            StoreError: the database does not answer.
        """
        if not await self.has_credentials(authorization):
            raise UnauthorizedError(
                place,
                expected="the HTTP Basic credentials that `maskloop connect` stored in Label Studio",
                got="none" if authorization is None else "others",
                remedy="run `maskloop connect` for the project again: it stores them on the backend",
            )

    async def has_credentials(self, authorization: str | None) -> bool:
        """Return whether a request comes from Label Studio: it has the credentials that `connect` stored.

        Raises:
            StoreError: the database does not answer.
        """
        header = (authorization or "").encode("latin-1", "replace")
        if self._login is not None:
            return self._login.accepts(header)
        password = CredentialCheck.password_of(header, user=BACKEND_USER)
        return password is not None and await self._is_secret(password)

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
            # Those that waited for the lock use the answer that came meanwhile: a flood asks once at a time.
            if self._projects_at < asked:
                at = time.monotonic()
                self._projects = frozenset(await self._run(lambda: self._store().projects.ids()))
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
                secret = await self._run(lambda: self._store().projects.webhook_secret())
                self._secret, self._secret_at = secret.encode(), time.monotonic()
        return hmac.compare_digest(given, self._secret)
