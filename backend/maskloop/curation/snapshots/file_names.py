"""Names of image files in exports: from where an image lies, safe on every file system, each once."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

__all__ = ["FileNames"]

SUFFIXES = (
    ".jpg",
    ".jpeg",
    ".png",
    ".webp",
    ".bmp",
    ".gif",
    ".tif",
    ".tiff",
    ".avif",
    ".jp2",
    ".ppm",
    ".pgm",
)
UNSAFE = re.compile(r'[\x00-\x1f\x7f<>:"|?*\\]')
RESERVED = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?\Z")  # Windows
MAX_NAME = 150  # bytes; 255 is the bound of file systems, and suffixes are added
DATA_URI = re.compile(r"data:image/([a-z]+)[;,]")


class FileNames:
    """Gives each image a relative name; two never differ in case or suffix only."""

    def __init__(self) -> None:
        self._taken: set[bytes] = set()  # digests, so that a name costs a few bytes

    def of_uri(self, uri: str, *, item: str) -> str:
        """Return a name for an image at an address: the address's last part where it can be had.

        A file without a known suffix is called `.jpg`: readers look at the content.

        Args:
            uri: an address, or a path in Label Studio.
            item: what the name falls back on.
        """
        data = DATA_URI.match(uri[:40])
        if data:
            return self.take(f"{item}.{data[1].replace('jpeg', 'jpg')}", item=item)
        parts = urlsplit(uri)
        # Label Studio's local files name the file in the query.
        path = parts.query.partition("d=")[2] if parts.path.endswith("/data/local-files/") else parts.path
        return self.take(PurePosixPath(unquote(path)).name or item, item=item)

    def take(self, name: str, *, item: str) -> str:
        """Return a relative name as it is where it is safe and free, else one that is near it.

        Args:
            name: may have folders.
            item: tells two images of one name apart.
        """
        parts = [_safe(part) for part in name.split("/") if part not in ("", ".", "..")] or [_safe(item)]
        path = PurePosixPath(*parts)
        if path.suffix.lower() not in SUFFIXES:
            path = path.with_name(f"{path.name}.jpg")
        if not self._reserve(path):
            digest = hashlib.sha256(item.encode("utf-8", "surrogatepass")).hexdigest()
            path = path.with_name(f"{path.stem}-{digest[:16]}{path.suffix}")
            self._reserve(path)
        return str(path)

    def _reserve(self, path: PurePosixPath) -> bool:
        folded = unicodedata.normalize("NFC", str(path.with_suffix(""))).casefold()
        key = hashlib.blake2b(folded.encode("utf-8", "surrogatepass"), digest_size=12).digest()
        free = key not in self._taken
        self._taken.add(key)
        return free


def _safe(part: str) -> str:
    text = UNSAFE.sub("_", part.encode("utf-8", "replace").decode()).strip(" .") or "_"
    if RESERVED.match(text):
        text = f"_{text}"
    while len(text.encode()) > MAX_NAME:
        stem, dot, suffix = text.rpartition(".")
        text = f"{stem[:-1]}{dot}{suffix}" if dot and len(suffix) < 10 and stem else text[:-1]
    return text
