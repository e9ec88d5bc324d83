"""Who may see the pages and who may act on them; headers that keep foreign code out.

Without a login the pages are for this machine only, and nothing can be changed on them. An action needs the
login and a token that only a page of ours can hold: browsers send HTTP Basic credentials by themselves, also
with a form of a foreign page (cross-site request forgery).

Source:
    OWASP, "Cross-Site Request Forgery Prevention Cheat Sheet": signed double-submit cookie, Fetch Metadata.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Mapping
from urllib.parse import parse_qsl

from fastapi import Request, Response

from maskloop_studio.errors import ForbiddenError, TooLargeError
from maskloop_studio.serving.http.host_check import is_loopback

__all__ = ["COOKIE", "HEADERS", "PageGuard", "read_form"]

COOKIE = "maskloop_form"
MAX_FORM_BYTES = 16 * 1024
MAX_FIELDS = 32
HEADERS = {
    # Scripts, styles, images and requests of this server only; nothing inline, no eval, no frame around it.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class PageGuard:
    """Decides for each request."""

    def __init__(self, credentials: tuple[str, str] | None) -> None:
        """Args:
        credentials: the login that the server asks every request for; None without one.
        """
        self.user = None if credentials is None else credentials[0]
        pair = "" if credentials is None else ":".join(credentials)
        # Derived from the login, so that all processes agree and a new password ends old forms.
        self._key = hashlib.sha256(b"maskloop dashboard forms\0" + pair.encode()).digest()

    @property
    def can_act(self) -> bool:
        """Whether there is a login, which actions need."""
        return self.user is not None

    def check_reader(self, request: Request) -> None:
        """Check that a request may see pages.

        Raises:
            ForbiddenError: it comes from another machine, and there is no login; or from another site's page.
        """
        # A picture can cost a prediction: no foreign page may embed it.
        is_foreign = request.headers.get("sec-fetch-site") == "cross-site"
        if is_foreign and request.headers.get("sec-fetch-mode") != "navigate":
            raise ForbiddenError(
                "dashboard",
                expected="a request of this server's own pages",
                got="one of another site",
                remedy="open the page itself",
            )
        if self.can_act or (request.client is not None and is_loopback(request.client.host)):
            return
        raise ForbiddenError(
            "dashboard",
            expected="a login, for readers on other machines",
            got="none is set up",
            remedy="set MASKLOOP_BASIC_AUTH_USER and MASKLOOP_BASIC_AUTH_PASSWORD, or open the page on the "
            "machine that maskloop runs on",
        )

    def check_action(self, request: Request, form: Mapping[str, str]) -> str:
        """Return the user who may carry out an action.

        Raises:
            ForbiddenError: there is no login, or the form is none of our own pages'.
        """
        if self.user is None:
            raise ForbiddenError(
                "dashboard, action",
                expected="a login",
                got="none is set up: pages are read-only",
                remedy="set MASKLOOP_BASIC_AUTH_USER and MASKLOOP_BASIC_AUTH_PASSWORD",
            )
        cookie = request.cookies.get(COOKIE, "")
        origin_site = request.headers.get("sec-fetch-site", "same-origin")
        given = form.get("token", "").encode()
        is_own = bool(cookie) and hmac.compare_digest(given, self.token(cookie).encode())
        if not is_own or origin_site not in ("same-origin", "none"):
            raise ForbiddenError(
                "dashboard, action",
                expected="a form of a page that this server has made for this browser",
                got="another",
                remedy="reload the page and try again; cookies of this server must be allowed",
            )
        return self.user

    def token(self, cookie: str) -> str:
        """Return the token of the forms of the browser with this cookie."""
        return hmac.new(self._key, cookie.encode(), hashlib.sha256).hexdigest()

    def cookie_of(self, request: Request) -> str:
        """Return the browser's cookie, or a new one."""
        known = request.cookies.get(COOKIE, "")
        return known if 20 <= len(known) <= 100 else secrets.token_urlsafe(32)

    def set_cookie(self, request: Request, response: Response, cookie: str) -> None:
        """Give the cookie to the browser, which sends it back only with requests of our own pages."""
        if self.can_act and request.cookies.get(COOKIE) != cookie:
            response.set_cookie(
                COOKIE,
                cookie,
                path=f"{request.scope.get('root_path', '')}/dashboard",
                secure=request.url.scheme == "https",
                httponly=True,
                samesite="strict",
            )


async def read_form(request: Request) -> dict[str, str]:
    """Return the fields of a form (`application/x-www-form-urlencoded`), the last of each name.

    Raises:
        TooLargeError: it is longer than any form of ours.
    """
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > MAX_FORM_BYTES:
            raise _too_large(f"at most {MAX_FORM_BYTES} bytes")
        parts.append(part)
    text = b"".join(parts).decode("utf-8", "replace")
    try:
        return dict(parse_qsl(text, keep_blank_values=True, max_num_fields=MAX_FIELDS))
    except ValueError as exc:
        raise _too_large(f"at most {MAX_FIELDS} fields") from exc


def _too_large(expected: str) -> TooLargeError:
    return TooLargeError(
        "dashboard, form", expected=expected, got="more", remedy="send the form of the page as it is"
    )
