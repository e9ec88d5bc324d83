"""Label Studio's address and token as settings give them: checked before the first request."""

from __future__ import annotations

import re

import httpx

from maskloop.errors import ConfigurationError

__all__ = ["DEFAULT_PORTS", "check_address", "check_token", "origin_of"]

HOST_PATTERN = re.compile(r"[A-Za-z0-9._-]+|[0-9A-Fa-f:.]+")  # a name, after IDNA, or IPv6
MAX_PORT = 65535
DEFAULT_PORTS = {"http": 80, "https": 443}


def check_address(url: str) -> str:
    """Return the address of a Label Studio, without a slash at its end.

    A scheme is never guessed: with a wrong guess the token would travel unencrypted.

    Raises:
        ConfigurationError: it has no scheme or host, or carries credentials, a query or a fragment.
    """
    text = url.strip()
    shown = repr(text.rpartition("@")[2][:200])
    if "://" not in text:
        raise _address_error(
            f"{shown}, without a scheme", f"write http://{text.lstrip('/')[:200]} (or https://)"
        )
    try:
        parsed = httpx.URL(text)
    except (httpx.InvalidURL, UnicodeError) as exc:
        raise _address_error(shown, f"correct it: {exc}") from exc
    if parsed.scheme not in DEFAULT_PORTS:
        raise _address_error(f"scheme {parsed.scheme!r}", "use http:// or https://")
    if not parsed.host:
        raise _address_error(f"{shown}, without a host", "name the host of Label Studio")
    if not HOST_PATTERN.fullmatch(parsed.raw_host.decode("ascii")) or (parsed.port or 0) > MAX_PORT:
        raise _address_error(shown, "correct the host and the port")
    if parsed.userinfo:
        raise _address_error(
            "an address with user and password", "remove them: the token is sent in their place"
        )
    if parsed.query or parsed.fragment:
        raise _address_error(
            "an address with a query or fragment", "use the address that Label Studio's start page has"
        )
    return text.rstrip("/")


def check_token(token: str) -> str:
    """Return a token without the blanks and line breaks around it.

    Raises:
        ConfigurationError: it is empty, or has characters that no HTTP header can carry.
    """
    text = token.strip()
    if not text:
        raise _token_error("an empty text")
    if not text.isascii() or not text.isprintable() or " " in text:
        raise _token_error("one with a blank, a line break or a character outside of ASCII")
    return text


def origin_of(url: str) -> str:
    """Return scheme, host and port of an http(s) URL in one spelling; an empty text where it has none."""
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, UnicodeError):
        return ""
    if not parsed.host or parsed.scheme not in DEFAULT_PORTS:
        return ""
    host = f"[{parsed.host}]" if ":" in parsed.host else parsed.host.lower()
    return f"{parsed.scheme}://{host}:{parsed.port or DEFAULT_PORTS[parsed.scheme]}"


def _address_error(got: str, remedy: str) -> ConfigurationError:
    return ConfigurationError(
        "setting LABEL_STUDIO_URL", expected="an address such as http://host:8080", got=got, remedy=remedy
    )


def _token_error(got: str) -> ConfigurationError:
    return ConfigurationError(
        "setting LABEL_STUDIO_API_KEY",
        expected="a token",
        got=got,
        remedy="copy it again from Account & Settings in Label Studio, without quotes or a word before it",
    )
