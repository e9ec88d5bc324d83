"""The kind of a file by its first bytes, so that what is not decoded is refused by its name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

__all__ = ["OTHER_KINDS", "kind_of_file"]

TO_PNG = "convert it to PNG or JPEG"
# kind -> what to do about it
OTHER_KINDS: Mapping[str, str] = MappingProxyType(
    {
        "SVG": "it has no pixels: render it to PNG at the size it is to be annotated in",
        "HEIC": f"browsers do not show it either: {TO_PNG}",
        "AVIF": f"this Pillow is built without AVIF: upgrade it, or {TO_PNG.replace('it', 'the file')}",
        "JPEG 2000": TO_PNG,
        "JPEG XL": TO_PNG,
        "PSD": TO_PNG,
        "OpenEXR": TO_PNG,
        "DICOM": "export its frames as PNG",
        "PDF": "render its pages to PNG",
        "a web page": "the address leads to a page, such as a login, not to the image: open it in a browser",
        "an XML document": "the address leads to a message and not to the image: open it in a browser",
        "JSON": "the address leads to a message and not to the image: open it in a browser",
        "a video": "extract its frames as images",
        "a ZIP archive": "unpack it and upload the images",
        "gzip data": "unpack it and upload the image",
    }
)
SIGNATURES: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\x89PNG\r\n\x1a\n", "PNG"),
    (0, b"\xff\xd8\xff", "JPEG"),
    (8, b"WEBP", "WEBP"),
    (0, b"GIF8", "GIF"),
    (0, b"II*\x00", "TIFF"),
    (0, b"MM\x00*", "TIFF"),
    (0, b"\x00\x00\x00\x0cjP  ", "JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
    (0, b"\x00\x00\x00\x0cJXL ", "JPEG XL"),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"8BPS", "PSD"),
    (0, b"\x76\x2f\x31\x01", "OpenEXR"),
    (128, b"DICM", "DICOM"),
    (0, b"%PDF", "PDF"),
    (0, b"PK\x03\x04", "a ZIP archive"),
    (0, b"\x1f\x8b", "gzip data"),
    (0, b"\x1aE\xdf\xa3", "a video"),
)
AVIF_BRANDS = (b"avif", b"avis")
HEIC_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")
LOOKED_AT_BYTES = 4096
MARKUP = re.compile(rb"<(!doctype\s+)?(svg|html)\b", re.IGNORECASE)


def kind_of_file(data: bytes) -> str | None:
    """Return what kind of file it is: a name of Pillow's for images, one of OTHER_KINDS, or None."""
    for offset, signature, kind in SIGNATURES:
        if data.startswith(signature, offset):
            return kind
    if data[4:8] == b"ftyp":
        return _container_kind(data)
    start = data[:LOOKED_AT_BYTES].lstrip(b"\xef\xbb\xbf \t\r\n")
    if start.startswith(b"<"):
        found = MARKUP.search(start)
        if found is None:
            return "an XML document"
        return "SVG" if found.group(2).lower() == b"svg" else "a web page"
    return "JSON" if start.startswith((b"{", b"[")) else None


def _container_kind(data: bytes) -> str:
    size = int.from_bytes(data[:4], "big")
    brands = data[8 : min(max(size, 16), LOOKED_AT_BYTES)]
    if any(brand in brands for brand in AVIF_BRANDS):
        return "AVIF"
    return "HEIC" if any(brand in brands for brand in HEIC_BRANDS) else "a video"
