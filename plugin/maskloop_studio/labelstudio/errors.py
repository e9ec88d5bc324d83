"""What a refusal of Label Studio means and what to do about it."""

from __future__ import annotations

import json
import re
from typing import Any

import httpx

from maskloop.errors import StudioError

__all__ = ["refused_error", "unreachable_error"]

MAX_DETAIL_CHARS = 300
SECRET_PATTERN = re.compile(r"(?:(?:Token|Bearer)\s+\S{16,}|eyJ[\w-]+\.[\w-]+\.[\w-]+|\b[0-9a-f]{40}\b)")
LOCAL_BACKEND_REMEDY = (
    "Label Studio does not call addresses of private networks by default: start it with "
    "ML_BLOCK_LOCAL_IP=false and SSRF_PROTECTION_ENABLED=false "
    "(or allow the backend's network), then connect again"
)


def unreachable_error(place: str, exc: httpx.HTTPError) -> StudioError:
    """Return the error for a request that got no answer."""
    if isinstance(exc, httpx.TimeoutException):
        got, remedy = "a timeout", "check that Label Studio is up and not overloaded, then try again"
    elif isinstance(exc, httpx.ConnectError):
        got = f"no connection ({_without_secrets(str(exc))})"
        remedy = "start Label Studio, or correct LABEL_STUDIO_URL"
    else:
        got = f"{type(exc).__name__} ({_without_secrets(str(exc))})"
        remedy = "check LABEL_STUDIO_URL and the network between here and Label Studio"
    return StudioError(place, expected="an answer", got=got, remedy=remedy)


def refused_error(place: str, status: int, body: object) -> StudioError:
    """Return the error for an answer that says no.

    Args:
        place: which request.
        status: the HTTP status.
        body: the answer, JSON text or already read.
    """
    detail = _without_secrets(_detail(body))
    got = f"status {status}" + (f" ({detail[:MAX_DETAIL_CHARS]})" if detail else "")
    error = StudioError(place, expected="success", got=got, remedy=_remedy(status, detail))
    error.status = status
    return error


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
        return "push a prediction of that version first: Label Studio takes no version that it has not seen"
    if status == 429 or status >= 500:
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


def _without_secrets(text: str) -> str:
    return SECRET_PATTERN.sub("[secret]", text)
