"""`data:` URIs -> bytes, as browsers read them (WHATWG Fetch, "data: URL processor"; RFC 2397)."""

from __future__ import annotations

import base64
import re
from urllib.parse import unquote_to_bytes

from maskloop_studio.images.image_errors import image_error, too_large_error

__all__ = ["decode_data_uri"]

IGNORED = re.compile(r"[\t\n\r]")  # in every URL
BASE64_MARK = re.compile(r";\s*base64\s*$", re.IGNORECASE)
WHITESPACE = b" \t\n\r\x0c"
ENCODED_CHARS_PER_BYTE = 4  # base64 whose every character is percent-encoded


def decode_data_uri(uri: str, *, max_bytes: int) -> bytes:
    """Return the content of a `data:` URI, in base64 or percent-encoded.

    Args:
        uri: starts with `data:`. Blanks and line breaks in base64 do not count; its padding may be missing.
        max_bytes: of the content; checked before it is decoded.

    Raises:
        ImageError: it is too large or not decodable.
    """
    header, comma, payload = uri.partition(",")
    if not comma:
        raise image_error(
            header,
            expected="data:image/...;base64,...",
            got="no comma",
            remedy="put a comma between the media type and the data",
        )
    if len(payload) > max_bytes * ENCODED_CHARS_PER_BYTE + 1024:
        raise too_large_error(header, f"{len(payload)} characters", max_bytes)
    payload = IGNORED.sub("", payload).partition("#")[0]
    try:
        content = unquote_to_bytes(payload)
    except UnicodeError as exc:
        raise _undecodable(header, exc) from exc
    if not BASE64_MARK.search(header):
        return _within(content, len(content), header, max_bytes)
    text = content.translate(None, WHITESPACE)
    text = text.rstrip(b"=") if len(text) % 4 == 0 else text
    _within(b"", len(text) * 3 // 4, header, max_bytes)
    try:
        return base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
    except ValueError as exc:
        raise _undecodable(header, exc) from exc


def _within(content: bytes, size: int, header: str, max_bytes: int) -> bytes:
    if size > max_bytes:
        raise too_large_error(header, f"{size} bytes", max_bytes)
    return content


def _undecodable(header: str, exc: ValueError) -> Exception:
    return image_error(header, expected="base64", got=str(exc)[:120], remedy="encode the image as base64")
