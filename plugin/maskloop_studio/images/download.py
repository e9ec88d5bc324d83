"""Download image files over HTTP: the token, redirects, bounds on bytes and seconds, further tries.

Label Studio's token goes to Label Studio's own image paths only, never along a redirect elsewhere. All other
addresses must be public, at each redirect anew.
"""

from __future__ import annotations

import threading
import urllib.request
import zlib
from dataclasses import dataclass, field, replace
from typing import Any

import httpcore
import httpx
import tenacity

from maskloop.errors import StudioError
from maskloop.settings import Settings
from maskloop_studio.images.address_guard import (
    check_public,
    host_addresses,
    is_public,
    literal_address,
)
from maskloop_studio.images.deadline import FetchLimit
from maskloop_studio.images.image_errors import (
    SHOWN_CHARS,
    image_error,
    status_error,
    too_large_error,
    transfer_error,
)
from maskloop_studio.images.network import MAX_HELPERS, BoundedTransport, fetching, in_helper
from maskloop_studio.images.studio_paths import is_image_path, relative_path
from maskloop_studio.labelstudio.address import DEFAULT_PORTS, check_address
from maskloop_studio.labelstudio.auth import StudioAuth
from maskloop_studio.labelstudio.certificates import tls_context
from maskloop_studio.labelstudio.transport import retry_after_s

__all__ = ["ImageDownloader"]

MAX_REDIRECTS = 3
CHUNK_BYTES = 64 * 2**10
FIRST_PAUSE_S = 0.2  # about, before the second try; longer each time
MAX_PAUSE_S = 2.0
TRY_SHARE = 0.5  # of the time that is left, for a try that is not the last


@dataclass(frozen=True, kw_only=True)
class _Answer:
    """What one request got: a body, the target of a redirect, or a status that is no success."""

    status: int
    body: bytes | None = None
    location: str | None = None
    retry_after_s: float | None = None

    @property
    def may_pass(self) -> bool:
        return self.status in (408, 429) or self.status >= 500


@dataclass(frozen=True, kw_only=True)
class _Target:
    """Where and how one URL is requested."""

    url: str
    is_studio: bool  # one of Label Studio's image paths: with the token, its address is not checked
    proxy: str | None
    headers: dict[str, str] = field(default_factory=dict)
    tls_names: dict[str, str] = field(default_factory=dict)


class _StopWhenOver(tenacity.stop.stop_base):
    def __init__(self, limit: FetchLimit) -> None:
        self._limit = limit

    def __call__(self, retry_state: tenacity.RetryCallState) -> bool:
        return self._limit.is_over


class ImageDownloader:
    """Connections to Label Studio and to other hosts; may be shared by threads."""

    def __init__(self, settings: Settings, *, allow_private: bool) -> None:
        """Args:
            settings: Label Studio's address and token, bounds on bytes, seconds and tries, authorities.
            allow_private: fetch from loopback and private networks too; Label Studio's images always are.

        Raises:
            ConfigurationError: Label Studio's address or token, or a file of certificates, cannot be used.
        """
        self._settings = settings
        self._allow_private = allow_private
        self._base = check_address(settings.label_studio_url) if settings.label_studio_url else None
        key = settings.label_studio_api_key
        self._auth = StudioAuth(self._base, key.get_secret_value()) if self._base and key else None
        self._tls = tls_context(settings.ca_bundle)
        self._clients: dict[tuple[str | None, bool], httpx.Client] = {}
        self._lock = threading.Lock()
        self._helpers = threading.BoundedSemaphore(MAX_HELPERS)

    def close(self) -> None:
        """Close the connections that are kept open."""
        with self._lock:
            clients, self._clients = list(self._clients.values()), {}
        for client in clients:
            client.close()

    def studio_path(self, url: str) -> str | None:
        """Return the path of a URL below Label Studio's address, None for other addresses."""
        return relative_path(url, self._base) if self._base is not None else None

    def download(self, url: str, limit: FetchLimit) -> bytes:
        """Return the content at an http(s) URL, along at most three redirects.

        Raises:
            ImageError: it cannot or must not be fetched within the bounds.
        """
        for _ in range(MAX_REDIRECTS + 1):
            try:
                answer = self._request(url, limit)
                target = self._redirect(url, answer)
            except StudioError as exc:  # from the exchange of a personal access token
                raise image_error(url, expected=exc.expected, got=exc.got, remedy=exc.remedy) from exc
            except httpx.HTTPError as exc:
                raise transfer_error(url, exc, limit, self._settings.image_timeout_s) from exc
            except zlib.error as exc:
                raise image_error(
                    url,
                    expected="content as its Content-Encoding announces",
                    got=str(exc),
                    remedy="correct the host",
                ) from exc
            except (httpx.InvalidURL, UnicodeError, ValueError) as exc:
                raise image_error(
                    url, expected="a URL", got=str(exc)[:SHOWN_CHARS], remedy="correct the task"
                ) from exc
            if answer.body is not None:
                return answer.body
            if target is None:
                raise status_error(url, answer.status, own=self._is_image_path(url))
            url = target
        raise image_error(
            url,
            expected=f"at most {MAX_REDIRECTS} redirects",
            got="more",
            remedy="use the image's final address",
        )

    def _request(self, url: str, limit: FetchLimit) -> _Answer:
        """Request a URL, again after failures that may pass, never after a refusal."""
        tries = self._settings.image_retries + 1

        def attempt() -> _Answer:
            is_last = retrying.statistics["attempt_number"] == tries
            return self._send(url, limit if is_last else limit.share(TRY_SHARE))

        retrying = tenacity.Retrying(
            stop=tenacity.stop_any(
                tenacity.stop_after_attempt(tries),
                tenacity.stop_before_delay(limit.left_s(self._settings.image_timeout_s)),
                _StopWhenOver(limit),
            ),
            wait=_pause_s,
            retry=tenacity.retry_if_exception_type(httpx.TransportError)
            | tenacity.retry_if_result(lambda answer: answer.may_pass),
            retry_error_callback=lambda state: state.outcome.result() if state.outcome else None,
            sleep=limit.sleep,
        )
        answer: _Answer = retrying(attempt)
        return answer

    def _send(self, url: str, limit: FetchLimit) -> _Answer:
        target = self._target(url, limit)
        client = self._client(target.proxy, public_only=not target.is_studio and not self._allow_private)
        headers = {"Accept-Encoding": "identity"} | target.headers
        options: dict[str, Any] = {"headers": headers, "timeout": limit.left_s()}
        if target.is_studio:
            options["auth"] = self._auth
        with (
            fetching(limit, tls_names=target.tls_names),
            client.stream("GET", target.url, **options) as response,
        ):
            if response.has_redirect_location:
                return _Answer(status=response.status_code, location=response.headers["location"])
            if not response.is_success:
                return _Answer(status=response.status_code, retry_after_s=retry_after_s(response))
            if response.headers.get("content-type", "").startswith("text/html"):
                raise image_error(
                    url,
                    expected="an image",
                    got="a web page",
                    remedy="use the address of the image file itself",
                )
            return _Answer(status=response.status_code, body=self._read(response, url))

    def _target(self, url: str, limit: FetchLimit) -> _Target:
        parsed = httpx.URL(url)
        target = _Target(url=url, is_studio=self._is_image_path(url), proxy=_proxy_of(parsed, url))
        if target.proxy is None or target.is_studio or self._allow_private:
            return target
        # The proxy gets the address that was checked: its own look-up of the name might find another one.
        port = parsed.port or DEFAULT_PORTS[parsed.scheme]
        addresses = self._addresses(parsed.host, port, limit)
        check_public(parsed.host, addresses)
        return replace(
            target,
            url=str(parsed.copy_with(host=addresses[0])),
            headers={"Host": parsed.netloc.decode("ascii")},
            tls_names={addresses[0]: parsed.host},
        )

    def _addresses(self, host: str, port: int, limit: FetchLimit) -> list[str]:
        try:
            found: list[str] = in_helper(lambda: host_addresses(host, port), limit, self._helpers)
        except httpcore.ConnectTimeout as exc:
            raise httpx.ConnectTimeout(str(exc)) from exc
        except (httpcore.ConnectError, OSError) as exc:
            raise httpx.ConnectError(str(exc)) from exc
        return found

    def _is_image_path(self, url: str) -> bool:
        path = self.studio_path(url)
        return path is not None and is_image_path(path)

    def _redirect(self, url: str, answer: _Answer) -> str | None:
        if answer.location is None:
            return None
        target = str(httpx.URL(url).join(answer.location))
        if httpx.URL(target).scheme not in DEFAULT_PORTS:
            raise image_error(
                url,
                expected="a redirect to http(s)",
                got="another scheme",
                remedy="use the image's final address",
            )
        if self._is_image_path(url) and "/user/login" in httpx.URL(target).path:
            raise status_error(url, 401, own=True)
        return target

    def _read(self, response: httpx.Response, url: str) -> bytes:
        limit = self._settings.max_image_bytes
        announced = response.headers.get("content-length", "")
        if announced.isdecimal() and int(announced[:20]) > limit:
            raise too_large_error(url, f"{announced[:20]} bytes", limit)
        decoder, body = _decoder(response, url), bytearray()
        for chunk in response.iter_raw(CHUNK_BYTES):
            # Decoded no further than to the bound: a small body may stand for a huge one.
            body += chunk if decoder is None else decoder.decompress(chunk, limit + 1 - len(body))
            if len(body) > limit:
                raise too_large_error(url, "more", limit)
        return bytes(body)

    def _client(self, proxy: str | None, *, public_only: bool) -> httpx.Client:
        with self._lock:
            client = self._clients.get((proxy, public_only))
            if client is None:
                transport = BoundedTransport(tls=self._tls, public_only=public_only, proxy=proxy)
                client = httpx.Client(transport=transport, trust_env=False, follow_redirects=False)
                self._clients[proxy, public_only] = client
            return client


def _pause_s(state: tenacity.RetryCallState) -> float:
    # Many images fail together: without chance all of them would be requested again together.
    pause_s = tenacity.wait_random_exponential(multiplier=FIRST_PAUSE_S, max=MAX_PAUSE_S)(state)
    if state.outcome is None or state.outcome.failed:
        return pause_s
    demanded_s: float | None = state.outcome.result().retry_after_s
    return pause_s if demanded_s is None else demanded_s


def _decoder(response: httpx.Response, url: str) -> Any:
    """Return what undoes the response's Content-Encoding, None where there is none."""
    encoding = response.headers.get("content-encoding", "").strip().lower()
    if encoding in ("", "identity"):
        return None
    if encoding in ("gzip", "x-gzip", "deflate"):
        return zlib.decompressobj(zlib.MAX_WBITS + 32)  # the header shows which
    raise image_error(
        url,
        expected="an image without Content-Encoding, or with gzip or deflate",
        got=f"Content-Encoding {encoding[:20]!r}",
        remedy="let the host send images as they are",
    )


def _proxy_of(parsed: httpx.URL, url: str) -> str | None:
    """Return the proxy that the environment names for a URL, None for a direct connection."""
    proxies = urllib.request.getproxies()
    proxy = proxies.get(parsed.scheme) or proxies.get("all")
    literal = literal_address(parsed.host)
    is_private = literal is not None and not is_public(str(literal))
    if not proxy or is_private or urllib.request.proxy_bypass(parsed.host):
        return None
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    if not proxy.startswith(("http://", "https://")):
        raise image_error(
            url,
            expected="an HTTP proxy",
            got=f"a proxy of scheme {proxy.partition('://')[0][:20]!r}",
            remedy="set HTTP_PROXY and HTTPS_PROXY to http://..., or name the host in NO_PROXY",
        )
    return proxy
