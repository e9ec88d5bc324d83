"""Who may be asked for an image and who gets the token: origins, addresses, Label Studio's authorization."""

from __future__ import annotations

import ipaddress
import socket
import threading
import urllib.request
from dataclasses import dataclass, field

import httpx

from maskloop.errors import ImageError

__all__ = ["PinnedUrl", "StudioAuth", "origin_of", "pin_public"]

DEFAULT_PORTS = {"http": 80, "https": 443}
REFRESH_TIMEOUT_S = 10.0


@dataclass(frozen=True, kw_only=True)
class PinnedUrl:
    """A URL whose host was looked up and found allowed."""

    url: str  # with the address in place of the host's name, unless a proxy looks it up
    options: dict[str, object] = field(default_factory=dict)  # what httpx needs to keep the name
    proxied: bool = False


class StudioAuth:
    """The authorization header for Label Studio: a legacy token as it is, a personal one exchanged first."""

    def __init__(self, base_url: str, key: str | None, client: httpx.Client) -> None:
        self._base_url = base_url
        self._key = key
        self._client = client
        self._access: str | None = None
        self._lock = threading.Lock()

    @property
    def _personal(self) -> bool:
        return self._key is not None and self._key.startswith("eyJ") and self._key.count(".") == 2

    def headers(self) -> dict[str, str]:
        """Return the header, or nothing without a token.

        Raises:
            ImageError: Label Studio does not exchange the personal access token.
        """
        if self._key is None:
            return {}
        if not self._personal:
            return {"Authorization": f"Token {self._key}"}
        with self._lock:
            if self._access is None:
                self._access = self._exchange()
            return {"Authorization": f"Bearer {self._access}"}

    def renew(self) -> bool:
        """Forget the exchanged token, which lives for minutes; say whether asking again makes sense."""
        with self._lock:
            had, self._access = self._access is not None, None
        return had

    def _exchange(self) -> str:
        url = f"{self._base_url}/api/token/refresh/"
        try:
            response = self._client.post(url, json={"refresh": self._key}, timeout=REFRESH_TIMEOUT_S)
            response.raise_for_status()
            return str(response.json()["access"])
        except (httpx.HTTPError, ValueError, KeyError) as exc:
            got = (
                f"status {exc.response.status_code}"
                if isinstance(exc, httpx.HTTPStatusError)
                else type(exc).__name__
            )
            # `from None`: httpx's error holds the request, and with it the token.
            raise ImageError(
                f"Label Studio {self._base_url}",
                expected="an access token for LABEL_STUDIO_API_KEY",
                got=got,
                remedy="make a new personal access token under Account & Settings",
            ) from None


def origin_of(url: str) -> str:
    """Return scheme, host and port of a URL, spelled one way; the empty text where there is no host."""
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        return ""
    if not parsed.host or parsed.scheme not in DEFAULT_PORTS:
        return ""
    host = f"[{parsed.host}]" if ":" in parsed.host else parsed.host.lower()
    return f"{parsed.scheme}://{host}:{parsed.port or DEFAULT_PORTS[parsed.scheme]}"


def pin_public(url: str, *, allow_private: bool, turn: int = 0) -> PinnedUrl:
    """Return a URL that goes to an address which was checked, so that a second look-up cannot change it.

    Args:
        url: http(s).
        allow_private: take loopback and private networks too.
        turn: which try this is; where a host has several addresses, each try takes the next.

    Raises:
        ImageError: the host is unknown, or one of its addresses is not public.
    """
    parsed = httpx.URL(url)
    port = parsed.port or DEFAULT_PORTS[parsed.scheme]
    proxies = urllib.request.getproxies()
    if (
        parsed.scheme in proxies
        and not urllib.request.proxy_bypass(parsed.host)
        and not _is_address(parsed.host)
    ):
        return PinnedUrl(url=url, proxied=True)
    try:
        found = socket.getaddrinfo(parsed.host, port, type=socket.SOCK_STREAM)
    except OSError as exc:
        raise _refused(
            parsed.host, "a host that is known here", "an unknown host", "correct the task"
        ) from exc
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    if not allow_private:
        for address in addresses:
            if not _is_public(address):
                raise _refused(
                    parsed.host,
                    "Label Studio itself or a public address",
                    address,
                    "serve the image through Label Studio; if it is LABEL_STUDIO_URL's host, spell it so",
                )
    return PinnedUrl(
        url=str(parsed.copy_with(host=addresses[turn % len(addresses)])),
        options={
            "headers": {"Host": parsed.netloc.decode("ascii")},
            "extensions": {"sni_hostname": parsed.host},
        },
    )


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _is_public(address: str) -> bool:
    parsed = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(parsed, ipaddress.IPv6Address):
        # Addresses that carry an IPv4 address are as private as that one.
        inner = parsed.ipv4_mapped or parsed.sixtofour or (parsed.teredo[1] if parsed.teredo else None)
        if inner is not None:
            parsed = inner
    return parsed.is_global and not parsed.is_multicast


def _refused(host: str, expected: str, got: str, remedy: str) -> ImageError:
    return ImageError(f"image host {host}", expected=expected, got=got, remedy=remedy)
