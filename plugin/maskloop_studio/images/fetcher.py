"""Fetch the image files that tasks point at; addresses come from tasks and are not trusted.

Here an address is read and fetched files are remembered; `maskloop_studio.images.download` transfers,
`maskloop.segmentation.image` decodes.
"""

from __future__ import annotations

import base64
from collections.abc import Generator, Sequence
from contextlib import closing
from types import TracebackType
from urllib.parse import quote

import httpx

from maskloop.errors import ImageError
from maskloop.hit_counter import HitCounter
from maskloop.prefetch import prefetch_map
from maskloop.settings import Settings
from maskloop.store.images import ImageCache
from maskloop_studio.images.data_uri import decode_data_uri
from maskloop_studio.images.deadline import FetchLimit
from maskloop_studio.images.download import ImageDownloader
from maskloop_studio.images.image_errors import image_error
from maskloop_studio.images.studio_paths import is_image_path, is_upload
from maskloop_studio.labelstudio.address import check_address, origin_of

__all__ = ["ImageFetcher"]

STORAGE_SCHEMES = ("s3", "s3s", "gs", "azure-blob", "azure_blob")


class ImageFetcher:
    """Fetches image files; may be shared by threads."""

    def __init__(
        self, settings: Settings, *, allow_private: bool | None = None, cache: ImageCache | None = None
    ) -> None:
        """Args:
        settings: Label Studio's address and token, bounds on bytes, seconds and tries.
        allow_private: fetch from loopback and private networks too; Label Studio itself is always allowed.
            None leaves it to `settings.allow_private_images`.
        cache: remembers Label Studio's own uploads, since the content at their addresses never changes.

        Raises:
            ConfigurationError: Label Studio's address or token, or a file of certificates, cannot be used.
        """
        self._settings = settings
        self._base = check_address(settings.label_studio_url) if settings.label_studio_url else None
        self._cache = cache
        self.lookups = HitCounter()  # of uploads in the cache
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

    def fetch(self, uri: str, *, task_id: int | None = None, limit: FetchLimit | None = None) -> bytes:
        """Return an image file, at most `max_image_bytes` long.

        Args:
            uri: an http(s) URL, an image path of Label Studio (`/data/upload/...`, `/data/local-files/?d=`),
                a `data:` URI, or an address in a cloud storage that Label Studio resolves (`s3://`, `gs://`,
                `azure-blob://`).
            task_id: whose image it is; needed for cloud storages.
            limit: ends the fetch earlier than after `image_timeout_s`, or within a second once cancelled.

        Raises:
            ImageError: it cannot or must not be fetched, or is too large.
        """
        limit = (limit or FetchLimit()).within(self._settings.image_timeout_s)
        uri = uri.strip()
        scheme = uri.partition(":")[0].lower() if ":" in uri[:32] else ""
        if scheme == "data":
            return decode_data_uri(uri, max_bytes=self._settings.max_image_bytes)
        if scheme in ("http", "https"):
            return self._remembered(uri, limit)
        if scheme in STORAGE_SCHEMES:
            return self._downloader.download(self._resolver_url(uri, task_id), limit)
        if uri.startswith("/") and not uri.startswith("//"):
            return self._remembered(self._image_url(uri), limit)
        raise image_error(
            uri,
            expected="http(s), data:, /data/... or a storage address that Label Studio resolves",
            got=f"scheme {scheme!r}" if scheme else "no scheme",
            remedy="import the image through Label Studio (upload, local files or cloud storage)",
        )

    def fetch_many(
        self,
        uris: Sequence[object],
        *,
        task_ids: Sequence[int | None] | None = None,
        max_workers: int = 16,
        limit: FetchLimit | None = None,
    ) -> list[bytes | ImageError]:
        """Return each image file, or why there is none, in order; fetched concurrently."""
        return list(self.fetch_ahead(uris, task_ids=task_ids, max_workers=max_workers, limit=limit))

    def fetch_ahead(
        self,
        uris: Sequence[object],
        *,
        task_ids: Sequence[int | None] | None = None,
        max_workers: int = 16,
        limit: FetchLimit | None = None,
    ) -> Generator[bytes | ImageError]:
        """Yield each image file, or why there is none, in order; the next ones are fetched meanwhile.

        Closing the generator abandons the fetches that are under way: it waits for them a second at most.

        Args:
            uris: the addresses in tasks; anything but a text is an error of its own.
            task_ids: see fetch.
            max_workers: images fetched at once, and at the most held.
            limit: of all fetches together.
        """
        own = (limit or FetchLimit()).child()
        numbers = task_ids if task_ids is not None else [None] * len(uris)
        pairs = list(zip(uris, numbers, strict=True))

        def fetch(pair: tuple[object, int | None]) -> bytes | ImageError:
            return self._fetch_or_error(*pair, own)

        if len(pairs) < 2:
            yield from map(fetch, pairs)
            return
        at_once = min(max_workers, len(pairs))
        with closing(prefetch_map(fetch, pairs, at_once=at_once, name="fetch")) as made:
            try:
                # Not `yield from`: it would close `made`, which waits for its threads, before the cancelling.
                for data in made:  # noqa: UP028
                    yield data
            finally:
                own.cancelled.set()

    def _fetch_or_error(self, uri: object, task_id: int | None, limit: FetchLimit) -> bytes | ImageError:
        if not isinstance(uri, str):
            return ImageError(
                f"task {task_id}",
                expected="the address of an image",
                got=type(uri).__name__,
                remedy="check `value` of <Image> in the label config against the task's data",
            )
        try:
            return self.fetch(uri, task_id=task_id, limit=limit)
        except ImageError as exc:
            return exc

    def _remembered(self, url: str, limit: FetchLimit) -> bytes:
        if self._cache is None or not self._is_upload(url):
            return self._downloader.download(url, limit)
        data = self._cache.recall(url)
        self.lookups.note(data is not None)
        if data is None or len(data) > self._settings.max_image_bytes:
            data = self._downloader.download(url, limit)
            self._cache.remember(url, data)
        return data

    def _is_upload(self, url: str) -> bool:
        path = self._downloader.studio_path(url)
        return path is not None and is_upload(path) and "?" not in url and "#" not in url

    def _image_url(self, path: str) -> str:
        url = self._studio_url(path)
        below = self._downloader.studio_path(url)
        if below is None or not is_image_path(below):
            raise image_error(
                path,
                expected="a path at which Label Studio serves images, such as /data/upload/... or "
                "/data/local-files/?d=...",
                got="another path",
                remedy="correct the address in the task, or give the image an http(s) URL",
            )
        return url

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
                remedy="name its task, or give the image an http(s) URL",
            )
        try:
            encoded = quote(base64.b64encode(uri.encode()).decode(), safe="")
        except UnicodeError as exc:
            raise image_error(
                uri, expected="an address", got="a text that is not Unicode", remedy="correct the task"
            ) from exc
        return self._studio_url(f"/tasks/{task_id}/resolve/?fileuri={encoded}")
