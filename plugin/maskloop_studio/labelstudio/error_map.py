"""Every failure of a request to Label Studio -> a StudioError with its remedy: the one place for it."""

from __future__ import annotations

import contextlib
import json
import re
import ssl
from collections.abc import Iterator
from typing import Any

import httpx
import pydantic

from maskloop.errors import MaskloopError, StudioCause, StudioError

__all__ = ["ADDRESS_REMEDY", "LOCAL_BACKEND_REMEDY", "refused_error", "studio_errors", "to_studio_error"]

MAX_DETAIL_CHARS = 300
SECRET_PATTERN = re.compile(r"(?:(?:Token|Bearer)\s+\S{16,}|eyJ[\w-]+\.[\w-]+\.[\w-]+|\b[0-9a-f]{40}\b)")
LOCAL_BACKEND_REMEDY = (
    "Label Studio does not call addresses of private networks by default: start it with "
    "ML_BLOCK_LOCAL_IP=false and SSRF_PROTECTION_ENABLED=false "
    "(or allow the backend's network), then connect again"
)
ADDRESS_REMEDY = (
    "set LABEL_STUDIO_URL to the address of Label Studio itself, with the sub-path that it is served under"
)
CERTIFICATE_REMEDY = (
    "let MASKLOOP_CA_BUNDLE (or SSL_CERT_FILE) name the PEM file of the authority that signed it, or renew it"
)
# What reading an answer raises where it has another form than Label Studio 1.23 gives.
FORM_ERRORS = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError)


@contextlib.contextmanager
def studio_errors(place: str) -> Iterator[str]:
    """Turn what a request, or the reading of its answer, raises into a StudioError.

    Args:
        place: which request: it starts the error's text.

    Raises:
        StudioError: in place of an exception of httpx, ssl, json, pydantic, or of reading.
        MaskloopError: as it was raised.
    """
    try:
        yield place
    except MaskloopError:
        raise
    except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, httpx.CookieConflict) as exc:
        raise to_studio_error(place, exc) from exc
    except (OSError, pydantic.ValidationError, *FORM_ERRORS) as exc:
        raise to_studio_error(place, exc) from exc


def to_studio_error(place: str, exc: Exception) -> StudioError:
    """Return the error for a request that failed, or whose answer cannot be read.

    Args:
        place: which request.
        exc: an exception of httpx, ssl, json or pydantic, or one that reading an answer raised.
    """
    name, text = type(exc).__name__, _without_secrets(str(exc))[:MAX_DETAIL_CHARS]
    if isinstance(exc, httpx.HTTPStatusError):
        return refused_error(place, exc.response.status_code, exc.response.text)
    if isinstance(exc, httpx.TimeoutException):
        return StudioError(
            place,
            expected="an answer",
            got="a timeout",
            remedy="check that Label Studio is up and not overloaded, then try again",
            cause=StudioCause.TIMEOUT,
        )
    if isinstance(exc, ssl.SSLCertVerificationError) or "CERTIFICATE_VERIFY_FAILED" in text:
        return StudioError(
            place,
            expected="a certificate of a known authority",
            got=text,
            remedy=CERTIFICATE_REMEDY,
            cause=StudioCause.CERTIFICATE,
        )
    if isinstance(exc, httpx.ConnectError):
        return StudioError(
            place,
            expected="an answer",
            got=f"no connection ({text})",
            remedy="start Label Studio, or correct LABEL_STUDIO_URL",
            cause=StudioCause.UNREACHABLE,
        )
    if isinstance(exc, httpx.ProxyError):
        return StudioError(
            place,
            expected="an answer",
            got=f"a refusal of the proxy ({text})",
            remedy="correct HTTPS_PROXY / HTTP_PROXY, or name Label Studio's host in NO_PROXY",
            cause=StudioCause.UNREACHABLE,
        )
    if isinstance(exc, httpx.InvalidURL | httpx.UnsupportedProtocol | httpx.TooManyRedirects):
        return StudioError(
            place,
            expected="an address that can be requested",
            got=f"{name} ({text})",
            remedy=ADDRESS_REMEDY,
            cause=StudioCause.ADDRESS,
        )
    if isinstance(exc, httpx.TransportError | OSError):
        return StudioError(
            place,
            expected="an answer",
            got=f"{name} ({text})",
            remedy="check LABEL_STUDIO_URL and the network between here and Label Studio",
            cause=StudioCause.UNREACHABLE,
        )
    return StudioError(
        place,
        expected="an answer of the form that Label Studio 1.23 gives",
        got=f"another ({name}: {_first_problem(exc, text)})",
        remedy="check that LABEL_STUDIO_URL is Label Studio itself; update Label Studio or maskloop",
        cause=StudioCause.ANSWER,
    )


def refused_error(place: str, status: int, body: object) -> StudioError:
    """Return the error for an answer that is a refusal.

    Args:
        place: which request.
        status: the HTTP status.
        body: the answer, JSON text or already read.
    """
    detail = _without_secrets(_detail(body))
    got = f"status {status}" + (f" ({detail[:MAX_DETAIL_CHARS]})" if detail else "")
    return StudioError(
        place,
        expected="success",
        got=got,
        remedy=_remedy(status, detail),
        status=status,
        cause=_cause(status, detail),
    )


def _cause(status: int, detail: str) -> StudioCause:
    if status == 404:
        # A 404 without Label Studio's own words comes from a proxy, or from another path of the host.
        return StudioCause.MISSING if detail else StudioCause.ADDRESS
    known = {401: StudioCause.TOKEN, 403: StudioCause.FORBIDDEN, 429: StudioCause.RATE_LIMIT}
    return known.get(status, StudioCause.SERVER if status >= 500 else StudioCause.REFUSED)


def _remedy(status: int, detail: str) -> str:
    lowered = detail.lower()
    if "private network address" in lowered or "reserved network address" in lowered:
        return LOCAL_BACKEND_REMEDY
    if status == 401:
        return (
            "set LABEL_STUDIO_API_KEY to a valid token (Account & Settings); legacy tokens work only "
            "where the organization allows them, personal access tokens everywhere"
        )
    if status == 403:
        return "use the token of an account that may see and change this project"
    if status == 404:
        return (
            "check the number, that the token's account may see it, and that LABEL_STUDIO_URL is "
            "Label Studio's own address"
        )
    if "health check failed" in lowered:
        return (
            "start the backend (maskloop up) and use an address under which Label Studio's machine reaches it"
        )
    if "model version doesn't exist" in lowered:
        return (
            "push a prediction of that version first: Label Studio accepts only versions that it has stored"
        )
    if status == 429:
        return "wait, then try again; or raise the limit of requests in front of Label Studio"
    if status >= 500:
        return "try again; if it stays, see Label Studio's own log"
    return "correct what Label Studio names"


def _detail(body: object) -> str:
    if isinstance(body, str):
        try:
            body = json.loads(body)
        except ValueError:
            return "" if "<html" in str(body)[:500].lower() else str(body)
    if not isinstance(body, dict):
        return str(body) if body else ""
    parts = [str(body.get("detail") or "")]
    validation: Any = body.get("validation_errors")
    if isinstance(validation, dict):
        parts += [f"{name}: {_flat(problem)}" for name, problem in validation.items()]
    return "; ".join(part for part in parts if part) or str(body)


def _flat(problem: object) -> str:
    return " ".join(str(part) for part in problem) if isinstance(problem, list) else str(problem)


def _first_problem(exc: Exception, text: str) -> str:
    if isinstance(exc, pydantic.ValidationError):
        first = exc.errors(include_url=False, include_input=False)[0]
        return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
    return text


def _without_secrets(text: str) -> str:
    return SECRET_PATTERN.sub("[secret]", text)
