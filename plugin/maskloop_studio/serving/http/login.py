"""HTTP Basic credentials (RFC 7617): on every route where the settings ask for a login."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac

from starlette.types import ASGIApp, Receive, Scope, Send

from maskloop_studio.errors import UnauthorizedError
from maskloop_studio.serving.http.answers import error_response

__all__ = ["CredentialCheck", "LoginMiddleware"]


class CredentialCheck:
    """Compares an Authorization header with one user and password, in constant time."""

    def __init__(self, user: str, password: str) -> None:
        pair = f"{user}:{password}"
        # Label Studio's HTTP client sends Latin-1 where it can, browsers send UTF-8.
        forms = {pair.encode(), pair.encode("latin-1", "ignore")}
        self._digests = tuple(hashlib.sha256(form).digest() for form in forms)

    def accepts(self, header: bytes) -> bool:
        """Return whether the header carries the credentials."""
        pair = _decoded(header)
        if pair is None:
            return False
        given = hashlib.sha256(pair).digest()
        # Digests have one length, and all forms are compared: the time it takes is always the same.
        return any([hmac.compare_digest(given, digest) for digest in self._digests])

    @staticmethod
    def password_of(header: bytes, *, user: str) -> bytes | None:
        """Return the password that the header carries for a user, None where it carries none."""
        pair = _decoded(header)
        given, colon, password = (pair or b"").partition(b":")
        return password if colon and given == user.encode() else None


class LoginMiddleware:
    """Refuses every request without the credentials before anything of it is read."""

    def __init__(self, app: ASGIApp, *, user: str, password: str) -> None:
        self._app = app
        self._check = CredentialCheck(user, password)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on a request that has the credentials."""
        if scope["type"] != "http" or self._check.accepts(dict(scope["headers"]).get(b"authorization", b"")):
            await self._app(scope, receive, send)
            return
        error = UnauthorizedError(
            "HTTP Basic credentials",
            expected="the user and password of MASKLOOP_BASIC_AUTH_USER and MASKLOOP_BASIC_AUTH_PASSWORD",
            got="none or others",
            remedy="set them on the backend in Label Studio, or run `maskloop connect` again",
        )
        await error_response(error)(scope, receive, send)


def _decoded(header: bytes) -> bytes | None:
    scheme, _, token = header.partition(b" ")
    if scheme.lower() != b"basic":
        return None
    try:
        return base64.b64decode(token.strip(), validate=True)
    except binascii.Error:
        return None
