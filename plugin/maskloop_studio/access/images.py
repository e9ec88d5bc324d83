"""Fetch the image files that tasks point at; addresses come from tasks and are trusted with nothing.

Label Studio's token goes to Label Studio's own origin only, never along a redirect elsewhere; other hosts
must have public addresses; bytes and seconds are bounded. Decoding is `maskloop.segmentation.image`'s.
"""

from __future__ import annotations

import base64
import binascii
import functools
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from urllib.parse import quote, unquote_to_bytes

import httpx

from maskloop.errors import ImageError
from maskloop.settings import Settings
from maskloop_studio.access.origin import StudioAuth, origin_of, pin_public

__all__ = ["ImageFetcher"]

MAX_REDIRECTS = 3
CHUNK_BYTES = 64 * 2**10
STORAGE_SCHEMES = ("s3", "s3s", "gs", "azure-blob", "azure_blob")
SHOWN_CHARS = 120


class ImageFetcher:
    """Fetches image files; may be shared by threads."""

    def __init__(self, settings: Settings, *, allow_private: bool = False) -> None:
        """Args:
        settings: Label Studio's address and token, bounds on bytes and seconds.
        allow_private: fetch from loopback and private networks too; Label Studio itself is always allowed.
        """
        self._settings = settings
        self._allow_private = allow_private
        self._base = settings.label_studio_url

    def __enter__(self) -> ImageFetcher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections that are kept open."""
        for name in ("_client", "_pinned_client"):
            client = self.__dict__.pop(name, None)
            if client is not None:
                client.close()

    def fetch(self, uri: str, *, task_id: int | None = None) -> bytes:
        """Return an image file, at most `max_image_bytes` long.

        Args:
            uri: an http(s) URL, a path that Label Studio serves (`/data/...`), a `data:` URI, or an address
                in a cloud storage that Label Studio resolves (`s3://`, `gs://`, `azure-blob://`).
            task_id: whose image it is; needed for cloud storages.

        Raises:
            ImageError: it cannot or must not be fetched, or is too large.
        """
        uri = uri.strip()
        scheme = uri.partition(":")[0].lower() if ":" in uri[:32] else ""
        if scheme == "data":
            return _decode_data_uri(uri, self._settings.max_image_bytes)
        if scheme in ("http", "https"):
            return self._download(uri)
        if scheme in STORAGE_SCHEMES:
            return self._download(self._resolver_url(uri, task_id))
        if uri.startswith("/") and not uri.startswith("//"):
            return self._download(self._studio_url(uri))
        raise _error(
            uri,
            expected="http(s), data:, /data/... or a storage address that Label Studio resolves",
            got=f"scheme {scheme!r}" if scheme else "no scheme",
            remedy="import the image through Label Studio (upload, local files or cloud storage)",
        )

    def fetch_many(
        self, uris: Sequence[str], *, task_ids: Sequence[int | None] | None = None, max_workers: int = 8
    ) -> list[bytes | ImageError]:
        """Return each image file, or why there is none, in order; fetched concurrently."""
        numbers = task_ids if task_ids is not None else [None] * len(uris)
        pairs = list(zip(uris, numbers, strict=True))
        if len(pairs) < 2:
            return [self._fetch_or_error(pair) for pair in pairs]
        with ThreadPoolExecutor(min(max_workers, len(pairs)), thread_name_prefix="fetch") as pool:
            return list(pool.map(self._fetch_or_error, pairs))

    def _fetch_or_error(self, pair: tuple[str, int | None]) -> bytes | ImageError:
        try:
            return self.fetch(pair[0], task_id=pair[1])
        except ImageError as exc:
            return exc

    @functools.cached_property
    def _client(self) -> httpx.Client:
        return httpx.Client(follow_redirects=False)

    @functools.cached_property
    def _pinned_client(self) -> httpx.Client:
        return httpx.Client(follow_redirects=False, trust_env=False)

    @functools.cached_property
    def _auth(self) -> StudioAuth:
        key = self._settings.label_studio_api_key
        return StudioAuth(self._base or "", key.get_secret_value() if key else None, self._client)

    def _studio_url(self, path: str) -> str:
        if not self._base:
            raise _error(
                path,
                expected="the address of the Label Studio that serves it",
                got="no LABEL_STUDIO_URL",
                remedy="set LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY",
            )
        url = httpx.URL(self._base)
        prefix = url.path.rstrip("/")
        inside = prefix and (path == prefix or path.startswith(prefix + "/"))
        return f"{origin_of(self._base)}{'' if inside else prefix}{path}"

    def _resolver_url(self, uri: str, task_id: int | None) -> str:
        if task_id is None:
            raise _error(
                uri,
                expected="the task whose storage resolves it",
                got="no task",
                remedy="ask for it with its task, or give the image an http(s) URL",
            )
        encoded = quote(base64.b64encode(uri.encode()).decode(), safe="")
        return self._studio_url(f"/tasks/{task_id}/resolve/?fileuri={encoded}")

    def _download(self, url: str) -> bytes:
        deadline = time.monotonic() + self._settings.image_timeout_s
        for _ in range(MAX_REDIRECTS + 1):
            try:
                answer = self._get(url, deadline)
            except httpx.HTTPError as exc:
                raise _transfer_error(url, exc, self._settings.image_timeout_s) from exc
            except (httpx.InvalidURL, UnicodeError, ValueError) as exc:
                raise _error(
                    url, expected="a URL", got=str(exc)[:SHOWN_CHARS], remedy="correct the task"
                ) from exc
            if isinstance(answer, bytes):
                return answer
            url = answer
        raise _error(
            url,
            expected=f"at most {MAX_REDIRECTS} redirects",
            got="more",
            remedy="use the image's final address",
        )

    def _get(self, url: str, deadline: float) -> bytes | str:
        """Return the bytes, or the address that a redirect names."""
        own = self._base is not None and origin_of(url) == origin_of(self._base)
        if own:
            answer = self._send(self._client, url, {"headers": self._auth.headers()}, deadline)
            if answer == 401 and self._auth.renew():
                answer = self._send(self._client, url, {"headers": self._auth.headers()}, deadline)
        else:
            pinned = pin_public(url, allow_private=self._allow_private)
            client = self._client if pinned.proxied else self._pinned_client
            answer = self._send(client, pinned.url, pinned.options, deadline)
        if isinstance(answer, int):
            raise _status_error(url, answer, own=own)
        if isinstance(answer, bytes):
            return answer
        target = str(httpx.URL(url).join(answer))
        if httpx.URL(target).scheme not in ("http", "https"):
            raise _error(
                url,
                expected="a redirect to http(s)",
                got="another scheme",
                remedy="use the image's final address",
            )
        if own and "/user/login" in httpx.URL(target).path:
            raise _status_error(url, 401, own=True)
        return target

    def _send(
        self, client: httpx.Client, url: str, options: dict[str, object], deadline: float
    ) -> bytes | str | int:
        """Return the body, the target of a redirect, or the status of a refusal."""
        left = max(deadline - time.monotonic(), 0.001)
        with client.stream("GET", url, timeout=left, **options) as response:  # type: ignore[arg-type]
            if response.has_redirect_location:
                return response.headers["location"]
            if not response.is_success:
                return response.status_code
            if response.headers.get("content-type", "").startswith("text/html"):
                raise _error(
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
            raise _too_large(url, f"{announced} bytes", limit)
        body = bytearray()
        for chunk in response.iter_bytes(CHUNK_BYTES):
            body += chunk
            if len(body) > limit:
                raise _too_large(url, "more", limit)
            if time.monotonic() > deadline:
                raise httpx.ReadTimeout("the whole download took too long")
        return bytes(body)


def _decode_data_uri(uri: str, limit: int) -> bytes:
    header, comma, payload = uri.partition(",")
    if len(payload) * 3 // 4 > limit + 3:
        raise _too_large(header, f"about {len(payload) * 3 // 4} bytes", limit)
    if not comma or not header.lower().endswith(";base64"):
        raise _error(
            header,
            expected="data:image/...;base64,...",
            got="another form",
            remedy="encode the image as base64",
        )
    try:
        return base64.b64decode(unquote_to_bytes(payload), validate=True)
    except binascii.Error as exc:
        raise _error(header, expected="base64", got=str(exc), remedy="encode the image as base64") from exc


def _transfer_error(url: str, exc: httpx.HTTPError, timeout_s: float) -> ImageError:
    if isinstance(exc, httpx.TimeoutException):
        return _error(
            url,
            expected=f"the image within {timeout_s:g} s",
            got="a timeout",
            remedy="check the host, or raise MASKLOOP_IMAGE_TIMEOUT_S",
        )
    return _error(
        url,
        expected="an answer",
        got=type(exc).__name__,
        remedy="check that the host is up and reachable from here",
    )


def _status_error(url: str, status: int, *, own: bool) -> ImageError:
    remedy = "check the address in the task"
    if own and status in (401, 403):
        remedy = "set LABEL_STUDIO_API_KEY to a valid token of an account that may see the project"
    elif own and "/data/local-files" in url:
        remedy = (
            "start Label Studio with LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true and add the folder as a "
            "local storage of the project"
        )
    return _error(url, expected="the image", got=f"status {status}", remedy=remedy)


def _too_large(url: str, got: str, limit: int) -> ImageError:
    return _error(
        url,
        expected=f"at most {limit} bytes",
        got=got,
        remedy="use a smaller file, or raise MASKLOOP_MAX_IMAGE_BYTES",
    )


def _error(uri: str, *, expected: str, got: str, remedy: str) -> ImageError:
    # Signed addresses carry their secret in the query.
    shown = uri.partition("?")[0] + ("?..." if "?" in uri else "")
    return ImageError(f"image {shown[:SHOWN_CHARS]}", expected=expected, got=got, remedy=remedy)
