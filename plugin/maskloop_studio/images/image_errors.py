"""Why an image cannot be fetched, and what to do about it; no message holds a secret."""

from __future__ import annotations

import re

import httpx

from maskloop.errors import ImageError
from maskloop_studio.images.deadline import FetchLimit

__all__ = ["image_error", "status_error", "too_large_error", "transfer_error"]

SHOWN_CHARS = 120


def image_error(uri: str, *, expected: str, got: str, remedy: str) -> ImageError:
    """Return the error for an image; its address is shown without query and without password."""
    # Signed addresses carry their secret in the query.
    shown = uri.partition("?")[0] + ("?..." if "?" in uri else "")
    shown = re.sub(r"//[^/@]*@", "//", shown, count=1)
    return ImageError(f"image {shown[:SHOWN_CHARS]}", expected=expected, got=got, remedy=remedy)


def transfer_error(url: str, exc: httpx.HTTPError, limit: FetchLimit, timeout_s: float) -> ImageError:
    """Return the error for a request that got no whole answer.

    Args:
        url: of the image.
        exc: what the last try ended with.
        limit: of the whole fetch.
        timeout_s: the time that the settings allow.
    """
    if limit.is_cancelled:
        return image_error(
            url, expected="the image", got="a fetch that was abandoned", remedy="request it again"
        )
    if isinstance(exc, httpx.TimeoutException):
        return image_error(
            url,
            expected=f"the image within {timeout_s:g} s",
            got="a timeout",
            remedy="check the host, or raise MASKLOOP_IMAGE_TIMEOUT_S",
        )
    if "CERTIFICATE_VERIFY_FAILED" in str(exc):
        return image_error(
            url,
            expected="a certificate of a known authority",
            got=str(exc)[:SHOWN_CHARS],
            remedy="let MASKLOOP_CA_BUNDLE (or SSL_CERT_FILE) name the PEM file of its authority",
        )
    if isinstance(exc, httpx.ProxyError):
        return image_error(
            url,
            expected="a connection through the proxy",
            got=str(exc)[:SHOWN_CHARS],
            remedy="let the proxy pass public addresses, name the host in NO_PROXY, or set "
            "MASKLOOP_ALLOW_PRIVATE_IMAGES=true so that the proxy gets names",
        )
    return image_error(
        url,
        expected="an answer",
        got=type(exc).__name__,
        remedy="check that the host is up and reachable from here",
    )


def status_error(url: str, status: int, *, own: bool) -> ImageError:
    """Return the error for a refusal; `own`: of Label Studio itself."""
    remedy = "check the address in the task"
    if own and status in (401, 403):
        remedy = "set LABEL_STUDIO_API_KEY to a valid token of an account that may see the project"
    elif own and "/data/local-files" in url:
        remedy = (
            "start Label Studio with LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true and add the folder as a "
            "local storage of the project"
        )
    elif status == 429:
        remedy = "the host limits requests: try again later"
    elif status >= 500:
        remedy = "look at the log of the host, and try again later"
    return image_error(url, expected="the image", got=f"status {status}", remedy=remedy)


def too_large_error(url: str, got: str, limit: int) -> ImageError:
    """Return the error for a file that is longer than allowed."""
    return image_error(
        url,
        expected=f"at most {limit} bytes",
        got=got,
        remedy="use a smaller file, or raise MASKLOOP_MAX_IMAGE_BYTES",
    )
