"""Errors -> answers: which status each kind has, and a text that says why."""

from __future__ import annotations

from starlette.responses import JSONResponse, Response

from maskloop.errors import CodecError, LabelConfigError, MaskloopError, QueueError, StoreError
from maskloop_studio.errors import RefusedError

__all__ = ["error_response", "status_of"]


def status_of(error: MaskloopError) -> int:
    """Return the HTTP status that tells whose fault an error is."""
    if isinstance(error, RefusedError):
        return error.status
    if isinstance(error, (CodecError, LabelConfigError)):
        return 422
    if isinstance(error, (StoreError, QueueError)):
        return 503
    return 500


def error_response(error: MaskloopError) -> Response:
    """Return the answer that tells what went wrong and why."""
    status = status_of(error)
    headers = {"WWW-Authenticate": 'Basic realm="maskloop", charset="UTF-8"'} if status == 401 else {}
    if status in (408, 503):
        headers["Retry-After"] = "5"
    return JSONResponse({"error": str(error)}, status_code=status, headers=headers)
