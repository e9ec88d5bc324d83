"""Which host names the server answers for, and who may reach it without a login.

A page that an annotator opens can point a name of its own at this machine (DNS rebinding) and then read our
answers; it cannot choose the name that the browser sends. Names that are addresses are no danger.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable
from typing import TYPE_CHECKING

from starlette.types import ASGIApp, Receive, Scope, Send

from maskloop.errors import ConfigurationError
from maskloop_studio.errors import UnknownHostError
from maskloop_studio.labelstudio.basic_auth import expected_credentials
from maskloop_studio.serving.http.answers import error_response

if TYPE_CHECKING:
    from maskloop.settings import Settings

__all__ = ["HostCheck", "allowed_hosts", "check_exposure", "is_loopback"]

ANY_HOST = "*"


def is_loopback(host: str) -> bool:
    """Return whether a host name or address reaches this machine only."""
    name = host.strip("[]").rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def check_exposure(settings: Settings, host: str) -> str:
    """Return in a few words who may use a server that listens on a host.

    Raises:
        ConfigurationError: everybody in the network may, without a login, and no setting says that this is
            wanted; or the settings ask for half of HTTP Basic credentials.
    """
    if expected_credentials(settings) is not None:
        return "with login"
    if is_loopback(host):
        return "this machine only"
    if settings.open:
        return "open to the network, no login"
    raise ConfigurationError(
        "setting MASKLOOP_HOST",
        expected="a login for a server that other machines reach",
        got=f"{host} without one",
        remedy="set MASKLOOP_BASIC_AUTH_USER and MASKLOOP_BASIC_AUTH_PASSWORD and run `maskloop connect` "
        "again, or MASKLOOP_OPEN=true where everybody in the network may use it",
    )


def allowed_hosts(settings: Settings, host: str) -> frozenset[str]:
    """Return the names that requests may name: those of the settings, the bind host, the machine's own."""
    own = (host, socket.gethostname(), socket.getfqdn())
    return frozenset(name.lower().rstrip(".") for name in (*settings.allowed_hosts, *own) if name)


class HostCheck:
    """Refuses requests for other host names; addresses and loopback names are always answered."""

    def __init__(self, app: ASGIApp, *, allowed: Iterable[str]) -> None:
        """Args:
        app: what answers.
        allowed: names in lower case; `*` for any, `*.example.org` for those below one.
        """
        self._app = app
        self._allowed = frozenset(allowed)
        self._suffixes = tuple(name[1:] for name in self._allowed if name.startswith("*."))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on a request for one of the names."""
        if scope["type"] != "http" or self._is_allowed(dict(scope["headers"]).get(b"host", b"")):
            await self._app(scope, receive, send)
            return
        error = UnknownHostError(
            "request header Host",
            expected="an address, a loopback name, MASKLOOP_HOST or a name of MASKLOOP_ALLOWED_HOSTS",
            got="another name",
            remedy="set MASKLOOP_ALLOWED_HOSTS to the name under which Label Studio reaches maskloop",
        )
        await error_response(error)(scope, receive, send)

    def _is_allowed(self, header: bytes) -> bool:
        if ANY_HOST in self._allowed:
            return True
        name = _without_port(header.decode("latin-1").strip().lower()).rstrip(".")
        return (
            name in self._allowed or name.endswith(self._suffixes) or is_loopback(name) or _is_address(name)
        )


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.rpartition(":")[0] if host.count(":") == 1 else host


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True
