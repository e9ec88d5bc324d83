"""Errors -> answers: which status each kind has, and a text that says why."""

from __future__ import annotations

import json

from starlette.responses import JSONResponse, Response

from maskloop.errors import CodecError, LabelConfigError, MaskloopError, QueueError, StoreError
from maskloop_studio.errors import RefusedError
from maskloop_studio.labelstudio.protocol import PredictResponse

__all__ = ["answer_json", "error_response", "status_of"]


def answer_json(response: PredictResponse) -> bytes:
    """Return what `model_dump_json` returns, written task by task: other threads run in between."""
    version = json.dumps(response.model_version, ensure_ascii=False)
    entries = (
        "[" + ",".join(one.model_dump_json() for one in entry) + "]"
        if isinstance(entry, list)
        else entry.model_dump_json()
        for entry in response.results
    )
    note = json.dumps(response.note, ensure_ascii=False)
    return f'{{"results":[{",".join(entries)}],"model_version":{version},"note":{note}}}'.encode()


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
