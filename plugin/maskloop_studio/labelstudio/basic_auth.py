"""HTTP Basic credentials: those that every request must carry, and those that Label Studio sends to us."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

from maskloop.errors import ConfigurationError
from maskloop.settings import Settings

if TYPE_CHECKING:
    from maskloop.store.database import Store

__all__ = ["BACKEND_USER", "authorization", "backend_credentials", "expected_credentials"]

BACKEND_USER = "maskloop"  # of the credentials that `connect` stores where the settings ask for no login


def backend_credentials(settings: Settings, store: Store) -> tuple[str, str]:
    """Return the user and password that `connect` stores in Label Studio, which sends them with each call.

    They prove that options and trainings come from Label Studio: the login of the settings, else the secret
    of the webhooks as the password.

    Raises:
        ConfigurationError: as `expected_credentials`.
    """
    login = expected_credentials(settings)
    if login is not None:
        return login
    fixed = settings.webhook_secret.get_secret_value() if settings.webhook_secret is not None else ""
    return BACKEND_USER, fixed or store.projects.webhook_secret()


def expected_credentials(settings: Settings) -> tuple[str, str] | None:
    """Return user and password that every request must carry, or None where none are asked for.

    Raises:
        ConfigurationError: one of the two is set without the other, or the user has a colon.
    """
    user, password = settings.basic_auth_user, settings.basic_auth_password
    secret = password.get_secret_value() if password is not None else ""
    if not user and not secret:
        return None
    if not user or not secret:
        missing = "MASKLOOP_BASIC_AUTH_PASSWORD" if user else "MASKLOOP_BASIC_AUTH_USER"
        raise ConfigurationError(
            "HTTP Basic credentials",
            expected="user and password",
            got="one of the two",
            remedy=f"set {missing} too, or neither",
        )
    if ":" in user:
        raise ConfigurationError(
            "setting MASKLOOP_BASIC_AUTH_USER",
            expected="a name without a colon",
            got="one with a colon",
            remedy="choose another name: HTTP Basic cannot carry this one",
        )
    return user, secret


def authorization(settings: Settings) -> dict[str, str]:
    """Return the header that carries the credentials (RFC 7617); none where none are asked for.

    Raises:
        ConfigurationError: as `expected_credentials`.
    """
    credentials = expected_credentials(settings)
    if credentials is None:
        return {}
    return {"Authorization": f"Basic {base64.b64encode(':'.join(credentials).encode()).decode('ascii')}"}
