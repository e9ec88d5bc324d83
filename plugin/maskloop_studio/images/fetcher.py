"""Fetch the image files that tasks point at; addresses come from tasks and are trusted with nothing.

Here an address is read and what was fetched is remembered; `maskloop_studio.images.download` transfers,
`maskloop.segmentation.image` decodes.
"""

from __future__ import annotations

import base64
from collections.abc import Generator, Sequence
from contextlib import closing
from types import TracebackType
from urllib.parse import quote, unquote, unquote_to_bytes

import httpx

from maskloop.errors import ImageError
from maskloop.prefetch import prefetch_map
from maskloop.settings import Settings
from maskloop.store.images import ImageCache
from maskloop_studio.images.address_guard import origin_of
from maskloop_studio.images.download import ImageDownloader
from maskloop_studio.images.image_errors import image_error, too_large_error

__all__ = ["ImageFetcher"]

STORAGE_SCHEMES = ("s3", "s3s", "gs", "azure-blob", "azure_blob")
UPLOAD_PATH = "/data/upload/"


class ImageFetcher:
    """Fetches image files; may be shared by threads."""

    def __init__(
        self, settings: Settings, *, allow_private: bool | None = None, cache: ImageCache | None = None
    ) -> None:
        """Args:
        settings: Label Studio's address and token, bounds on bytes, seconds and tries.
        allow_private: fetch from loopback and private networks too; Label Studio itself is always allowed.
            None leaves it to `settings.allow_private_images`.
        cache: remembers Label Studio's own uploads, whose addresses never come to mean another image.
        """
        self._settings = settings
        self._base = settings.label_studio_url
        self._cache = cache
        if allow_private is None:
            allow_private = settings.allow_private_images
        self._downloader = ImageDownloader(settings, allow_private=allow_private)

    def __enter__(self) -> ImageFetcher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections that are kept open."""
        self._downloader.close()

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
            return self._remembered(uri)
        if scheme in STORAGE_SCHEMES:
            return self._downloader.download(self._resolver_url(uri, task_id))
        if uri.startswith("/") and not uri.startswith("//"):
            return self._remembered(self._studio_url(uri))
        raise image_error(
            uri,
            expected="http(s), data:, /data/... or a storage address that Label Studio resolves",
            got=f"scheme {scheme!r}" if scheme else "no scheme",
            remedy="import the image through Label Studio (upload, local files or cloud storage)",
        )

    def fetch_many(
        self, uris: Sequence[object], *, task_ids: Sequence[int | None] | None = None, max_workers: int = 16
    ) -> list[bytes | ImageError]:
        """Return each image file, or why there is none, in order; fetched concurrently."""
        return list(self.fetch_ahead(uris, task_ids=task_ids, max_workers=max_workers))

    def fetch_ahead(
        self, uris: Sequence[object], *, task_ids: Sequence[int | None] | None = None, max_workers: int = 16
    ) -> Generator[bytes | ImageError]:
        """Yield each image file, or why there is none, in order; the next ones are fetched meanwhile.

        Args:
            uris: what tasks say of their images; anything but a text is an error of its own.
            task_ids: see fetch.
            max_workers: images fetched at once, and at the most held.
        """
        numbers = task_ids if task_ids is not None else [None] * len(uris)
        pairs = list(zip(uris, numbers, strict=True))
        if len(pairs) < 2:
            yield from map(self._fetch_or_error, pairs)
            return
        at_once = min(max_workers, len(pairs))
        with closing(prefetch_map(self._fetch_or_error, pairs, at_once=at_once, name="fetch")) as made:
            yield from made

    def _fetch_or_error(self, pair: tuple[object, int | None]) -> bytes | ImageError:
        uri, task_id = pair
        if not isinstance(uri, str):
            return ImageError(
                f"task {task_id}",
                expected="the address of an image",
                got=type(uri).__name__,
                remedy="check `value` of <Image> in the label config against the task's data",
            )
        try:
            return self.fetch(uri, task_id=task_id)
        except ImageError as exc:
            return exc

    def _remembered(self, url: str) -> bytes:
        if self._cache is None or not self._is_upload(url):
            return self._downloader.download(url)
        data = self._cache.recall(url)
        if data is None or len(data) > self._settings.max_image_bytes:
            data = self._downloader.download(url)
            self._cache.remember(url, data)
        return data

    def _is_upload(self, url: str) -> bool:
        start = self._studio_url(UPLOAD_PATH) if self._base else None
        return start is not None and url.startswith(start) and "/.." not in unquote(url) and "?" not in url

    def _studio_url(self, path: str) -> str:
        if not self._base:
            raise image_error(
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
            raise image_error(
                uri,
                expected="the task whose storage resolves it",
                got="no task",
                remedy="ask for it with its task, or give the image an http(s) URL",
            )
        try:
            encoded = quote(base64.b64encode(uri.encode()).decode(), safe="")
        except UnicodeError as exc:
            raise image_error(
                uri, expected="an address", got="text that is no Unicode", remedy="correct the task"
            ) from exc
        return self._studio_url(f"/tasks/{task_id}/resolve/?fileuri={encoded}")


def _decode_data_uri(uri: str, limit: int) -> bytes:
    header, comma, payload = uri.partition(",")
    if len(payload) * 3 // 4 > limit + 3:
        raise too_large_error(header, f"about {len(payload) * 3 // 4} bytes", limit)
    if not comma or not header.lower().endswith(";base64"):
        raise image_error(
            header,
            expected="data:image/...;base64,...",
            got="another form",
            remedy="encode the image as base64",
        )
    try:
        return base64.b64decode(unquote_to_bytes(payload), validate=True)
    except ValueError as exc:
        raise image_error(
            header, expected="base64", got=str(exc), remedy="encode the image as base64"
        ) from exc
