"""Download image files over HTTP: the token, redirects, bounds on bytes and seconds, further tries.

Label Studio's token goes to Label Studio's own origin only, never along a redirect elsewhere; other hosts
must have public addresses, each hop is checked anew.
"""

from __future__ import annotations

import functools
import random
import threading
import time

import httpx

from maskloop.settings import Settings
from maskloop_studio.images.address_guard import StudioAuth, origin_of, pin_public
from maskloop_studio.images.image_errors import (
    SHOWN_CHARS,
    image_error,
    status_error,
    too_large_error,
    transfer_error,
)

__all__ = ["ImageDownloader"]

MAX_REDIRECTS = 3
CHUNK_BYTES = 64 * 2**10
MAX_CONNECTIONS = 64
FIRST_PAUSE_S = 0.2  # before the second try; doubled each time


class ImageDownloader:
    """Connections to Label Studio and to other hosts; may be shared by threads."""

    def __init__(self, settings: Settings, *, allow_private: bool) -> None:
        """Args:
        settings: Label Studio's address and token, bounds on bytes, seconds and tries.
        allow_private: ask loopback and private networks too; Label Studio itself is always asked.
        """
        self._settings = settings
        self._allow_private = allow_private
        self._base = settings.label_studio_url
        self._lock = threading.RLock()

    def close(self) -> None:
        """Close the connections that are kept open."""
        with self._lock:
            for name in ("_client", "_pinned_client", "_auth"):
                client = self.__dict__.pop(name, None)
                if isinstance(client, httpx.Client):
                    client.close()

    def is_own(self, url: str) -> bool:
        """Tell whether a URL has Label Studio's own origin."""
        return self._base is not None and origin_of(url) == origin_of(self._base)

    def download(self, url: str) -> bytes:
        """Return what an http(s) URL holds, along at most three redirects.

        Raises:
            ImageError: it cannot or must not be fetched within the bounds.
        """
        deadline = time.monotonic() + self._settings.image_timeout_s
        for _ in range(MAX_REDIRECTS + 1):
            try:
                answer = self._get_patiently(url, deadline)
            except httpx.HTTPError as exc:
                raise transfer_error(url, exc, self._settings.image_timeout_s) from exc
            except (httpx.InvalidURL, UnicodeError, ValueError) as exc:
                raise image_error(
                    url, expected="a URL", got=str(exc)[:SHOWN_CHARS], remedy="correct the task"
                ) from exc
            if isinstance(answer, bytes):
                return answer
            url = answer
        raise image_error(
            url,
            expected=f"at most {MAX_REDIRECTS} redirects",
            got="more",
            remedy="use the image's final address",
        )

    def _get_patiently(self, url: str, deadline: float) -> bytes | str:
        """Return the bytes or a redirect's target; ask again after what may pass, never after a refusal."""
        failure: httpx.TransportError | int = 0
        for tried in range(self._settings.image_retries + 1):
            last = tried == self._settings.image_retries
            left = max(deadline - time.monotonic(), 0.001)
            try:
                answer = self._get(url, deadline, tried=tried, patience_s=left if last else left / 2)
            except httpx.TransportError as exc:
                failure = exc
            else:
                if not isinstance(answer, int):
                    return self._checked(url, answer)
                if answer < 500:
                    raise status_error(url, answer, own=self.is_own(url))
                failure = answer
            # Many images fail together: without chance they would all come again together.
            pause_s = FIRST_PAUSE_S * 2**tried * random.uniform(0.5, 1.5)
            if last or time.monotonic() + pause_s >= deadline:
                break
            time.sleep(pause_s)
        if isinstance(failure, int):
            raise status_error(url, failure, own=self.is_own(url))
        raise failure

    def _get(self, url: str, deadline: float, *, tried: int, patience_s: float) -> bytes | str | int:
        """Return the body, the target of a redirect, or the status of a refusal."""
        if self.is_own(url):
            with self._lock:
                client, auth = self._client, self._auth
            answer = self._send(client, url, {"headers": auth.headers()}, deadline, patience_s)
            if answer == 401 and auth.renew():
                answer = self._send(client, url, {"headers": auth.headers()}, deadline, patience_s)
            return answer
        pinned = pin_public(url, allow_private=self._allow_private, turn=tried)
        with self._lock:
            client = self._client if pinned.proxied else self._pinned_client
        return self._send(client, pinned.url, pinned.options, deadline, patience_s)

    def _checked(self, url: str, answer: bytes | str) -> bytes | str:
        if isinstance(answer, bytes):
            return answer
        target = str(httpx.URL(url).join(answer))
        if httpx.URL(target).scheme not in ("http", "https"):
            raise image_error(
                url,
                expected="a redirect to http(s)",
                got="another scheme",
                remedy="use the image's final address",
            )
        if self.is_own(url) and "/user/login" in httpx.URL(target).path:
            raise status_error(url, 401, own=True)
        return target

    def _send(
        self,
        client: httpx.Client,
        url: str,
        options: dict[str, object],
        deadline: float,
        patience_s: float,
    ) -> bytes | str | int:
        with client.stream("GET", url, timeout=patience_s, **options) as response:  # type: ignore[arg-type]
            if response.has_redirect_location:
                return response.headers["location"]
            if not response.is_success:
                return response.status_code
            if response.headers.get("content-type", "").startswith("text/html"):
                raise image_error(
                    url,
                    expected="an image",
                    got="a web page",
                    remedy="use the address of the image file itself",
                )
            return self._read(response, url, deadline)

    def _read(self, response: httpx.Response, url: str, deadline: float) -> bytes:
        limit = self._settings.max_image_bytes
        announced = response.headers.get("content-length", "")
        if announced.isdigit() and int(announced) > limit:
            raise too_large_error(url, f"{announced} bytes", limit)
        body = bytearray()
        for chunk in response.iter_bytes(CHUNK_BYTES):
            body += chunk
            if len(body) > limit:
                raise too_large_error(url, "more", limit)
            if time.monotonic() > deadline:
                raise httpx.ReadTimeout("the whole download took too long")
        return bytes(body)

    @functools.cached_property
    def _client(self) -> httpx.Client:
        return httpx.Client(follow_redirects=False, limits=_LIMITS)

    @functools.cached_property
    def _pinned_client(self) -> httpx.Client:
        return httpx.Client(follow_redirects=False, trust_env=False, limits=_LIMITS)

    @functools.cached_property
    def _auth(self) -> StudioAuth:
        key = self._settings.label_studio_api_key
        return StudioAuth(self._base or "", key.get_secret_value() if key else None, self._client)


_LIMITS = httpx.Limits(max_connections=MAX_CONNECTIONS, max_keepalive_connections=MAX_CONNECTIONS)
