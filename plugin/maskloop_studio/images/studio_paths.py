"""Which paths of Label Studio serve images: only they are requested with its token.

The rest of its API answers the same token, so a task must not be able to name it in any spelling.
Source: data_import/urls.py, core/urls.py and io_storages/ of Label Studio 1.23.
"""

from __future__ import annotations

import re
from urllib.parse import unquote, urlsplit

import httpx

from maskloop_studio.images.image_errors import image_error
from maskloop_studio.labelstudio.address import origin_of

__all__ = ["UPLOAD_PATH", "check_plain_path", "is_image_path", "is_upload", "relative_path"]

UPLOAD_PATH = "/data/upload/"
IMAGE_PATHS = re.compile(
    r"/data/upload/.+|/data/local-files/?|/storage-data/uploaded/?|/(?:tasks|projects)/\d+/(?:resolve|presign)/?",
    re.ASCII | re.DOTALL,
)
CONTROL = re.compile(r"[\x00-\x1f\x7f]")
MAX_DECODINGS = 5  # a path that is encoded more often than this is refused


def relative_path(url: str, base: str) -> str | None:
    """Return the path of a URL below a Label Studio's address, as it is spelled; None for other addresses.

    Args:
        url: http(s), absolute.
        base: Label Studio's address, with its sub-path.
    """
    if not origin_of(url) or origin_of(url) != origin_of(base):
        return None
    prefix, path = httpx.URL(base).path.rstrip("/"), urlsplit(url).path
    return path.removeprefix(prefix) if path.startswith(f"{prefix}/") else None


def is_image_path(path: str) -> bool:
    """Return whether Label Studio serves task images at a path, below its address and without query.

    Raises:
        ImageError: see `check_plain_path`.
    """
    check_plain_path(path)
    return all(IMAGE_PATHS.fullmatch(spelled) for spelled in _decodings(path))


def is_upload(path: str) -> bool:
    """Return whether a path is that of an uploaded file, whose content never changes."""
    return path.startswith(UPLOAD_PATH) and is_image_path(path)


def check_plain_path(path: str) -> None:
    """Raise ImageError where servers may read a path as another one.

    That is: dot segments, backslashes and control characters, encoded or not, however often.
    """
    for spelled in _decodings(path):
        segments = re.split(r"[/\\]", spelled)
        if "\\" in spelled or CONTROL.search(spelled) or any(_is_dots(segment) for segment in segments):
            raise image_error(
                path,
                expected="a path without `.` and `..` segments, backslashes and control characters",
                got="one with them",
                remedy="correct the address in the task",
            )


def _is_dots(segment: str) -> bool:
    # Some servers cut `;parameters` from a segment before they resolve it.
    return segment.partition(";")[0].strip() in (".", "..")


def _decodings(path: str) -> list[str]:
    found = [path]
    while (decoded := unquote(found[-1])) != found[-1]:
        if len(found) > MAX_DECODINGS:
            raise image_error(
                path,
                expected=f"a path that is percent-encoded at most {MAX_DECODINGS} times",
                got="one that is encoded more often",
                remedy="correct the address in the task",
            )
        found.append(decoded)
    return found
