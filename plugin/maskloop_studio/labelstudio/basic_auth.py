"""The HTTP Basic credentials of the settings: required of every request to our server, sent by our own."""

from __future__ import annotations

import base64

from maskloop.errors import ConfigurationError
from maskloop.settings import Settings

__all__ = ["authorization", "expected_credentials"]


def expected_credentials(settings: Settings) -> tuple[str, str] | None:
    """Return user and password that every request must carry, or None where none are required.

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
    """Return the header that carries the credentials (RFC 7617); empty where none are required.

    Raises:
        ConfigurationError: as `expected_credentials`.
    """
    credentials = expected_credentials(settings)
    if credentials is None:
        return {}
    return {"Authorization": f"Basic {base64.b64encode(':'.join(credentials).encode()).decode('ascii')}"}
