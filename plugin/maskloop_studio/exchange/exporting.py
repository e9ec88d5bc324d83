"""What exports need of Label Studio: its own format, and images that this machine does not have."""

from __future__ import annotations

from typing import TYPE_CHECKING

from maskloop.errors import ConfigurationError, ImageError
from maskloop_studio.exchange.studio_json import StudioFormat

if TYPE_CHECKING:
    from maskloop.curation.exports.format import ExportFormat
    from maskloop.curation.exports.image_files import FetchImage
    from maskloop.curation.snapshots.rows import ImageRow
    from maskloop.curation.snapshots.snapshot_folder import Snapshot
    from maskloop_studio.services import Services

__all__ = ["fetch_from", "find_format"]


def find_format(name: str, snapshot: Snapshot) -> ExportFormat:
    """Return a format by its name.

    Raises:
        ConfigurationError: there is none of this name.
    """
    from maskloop.curation.exports.formats import FORMATS

    if name == StudioFormat.name:
        return StudioFormat(snapshot.manifest)
    if name not in FORMATS:
        raise ConfigurationError(
            "export, --format",
            expected=", ".join((*FORMATS, StudioFormat.name)),
            got=name[:100],
            remedy="see docs/curation.md for what each one is for",
        )
    return FORMATS[name]


def fetch_from(services: Services) -> FetchImage:
    """Return what brings an image into the cache from where its task points."""

    def fetch(image: ImageRow) -> None:
        place = f"{image.item}, image {image.image_uri[:200] or image.file_name}"
        if image.task_id is None or not image.image_uri:
            raise ImageError(
                place,
                expected="the image in the image cache of this machine",
                got="none",
                remedy="make the snapshot again from its folder",
            )
        data = services.fetcher.fetch(image.image_uri, task_id=image.task_id)
        if services.image_cache.put(data) != image.image_key:
            raise ImageError(
                place,
                expected=f"the image that was annotated (SHA-256 {image.image_key})",
                got="another image at the same address",
                remedy="annotate the task again, or copy the old image into MASKLOOP_HOME/images",
            )

    return fetch
