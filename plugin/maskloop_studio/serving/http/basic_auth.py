"""HTTP Basic credentials on every route, where the settings ask for them (RFC 7617)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac

from starlette.types import ASGIApp, Receive, Scope, Send

from maskloop_studio.errors import UnauthorizedError
from maskloop_studio.serving.http.answers import error_response

__all__ = ["BasicAuth"]


class BasicAuth:
    """Refuses every request without the right credentials before anything of it is read."""

    def __init__(self, app: ASGIApp, *, user: str, password: str) -> None:
        self._app = app
        pair = f"{user}:{password}"
        # Label Studio's HTTP client sends Latin-1 where it can, browsers send UTF-8.
        forms = {pair.encode(), pair.encode("latin-1", "ignore")}
        self._digests = tuple(hashlib.sha256(form).digest() for form in forms)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on a request that has the credentials."""
        if scope["type"] != "http" or self._is_right(dict(scope["headers"]).get(b"authorization", b"")):
            await self._app(scope, receive, send)
            return
        error = UnauthorizedError(
            "HTTP Basic credentials",
            expected="the user and password of MASKLOOP_BASIC_AUTH_USER and MASKLOOP_BASIC_AUTH_PASSWORD",
            got="none or others",
            remedy="set them on the backend in Label Studio, or run `maskloop connect` again",
        )
        await error_response(error)(scope, receive, send)

    def _is_right(self, header: bytes) -> bool:
        scheme, _, token = header.partition(b" ")
        if scheme.lower() != b"basic":
            return False
        try:
            given = hashlib.sha256(base64.b64decode(token.strip(), validate=True)).digest()
        except binascii.Error:
            return False
        # Digests have one length, and all forms are compared: how long it takes tells nothing.
        return any([hmac.compare_digest(given, digest) for digest in self._digests])
