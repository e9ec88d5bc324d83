"""How requests to Label Studio are authorized, for its API and for the images that it serves.

A legacy token is sent as it is. A personal access token is a JSON Web Token that Label Studio exchanges for
an access token, which is valid for minutes (`POST /api/token/refresh/`).
"""

from __future__ import annotations

from collections.abc import Generator

import httpx

from maskloop.errors import ConfigurationError, StudioCause, StudioError
from maskloop_studio.labelstudio.address import check_token
from maskloop_studio.labelstudio.error_map import refused_error

__all__ = ["StudioAuth"]

REFRESH_PATH = "/api/token/refresh/"


class StudioAuth(httpx.Auth):
    """One token of one Label Studio; may be shared by threads and clients.

    Threads that find no access token at the same time exchange the token once each: Label Studio allows it,
    and no thread waits for another's request.
    """

    def __init__(self, base_url: str, token: str) -> None:
        """Args:
            base_url: Label Studio's address, with the sub-path that it is served under.
            token: a legacy token or a personal access token.

        Raises:
            ConfigurationError: no HTTP header can carry the token.
        """
        self._refresh_url = base_url.rstrip("/") + REFRESH_PATH
        self._token = check_token(token)
        self._is_personal = self._token.startswith("eyJ") and self._token.count(".") == 2
        self._access_token: str | None = None

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response]:
        """Add the header; exchange a personal access token first, and once more where it is refused.

        Raises:
            StudioError: Label Studio does not exchange the token.
        """
        if not self._is_personal:
            request.headers["Authorization"] = f"Token {self._token}"
            yield request
            return
        access_token, is_fresh = self._access_token, False
        if access_token is None:
            access_token, is_fresh = (yield from self._exchange(request)), True
        request.headers["Authorization"] = f"Bearer {access_token}"
        response = yield request
        if response.status_code == 401 and not is_fresh:
            access_token = yield from self._exchange(request)
            request.headers["Authorization"] = f"Bearer {access_token}"
            yield request

    def _exchange(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, str]:
        # The extensions hold the time that is left for the request.
        response = yield httpx.Request(
            "POST", self._refresh_url, json={"refresh": self._token}, extensions=dict(request.extensions)
        )
        response.read()
        place = f"Label Studio's exchange of the personal access token, POST {self._refresh_url}"
        if response.is_error:
            raise refused_error(place, response.status_code, response.text)
        try:
            self._access_token = check_token(response.json()["access"])
        except (ValueError, TypeError, LookupError, AttributeError, ConfigurationError) as exc:
            raise StudioError(
                place,
                expected="JSON with `access`",
                got=f"status {response.status_code}, {response.headers.get('content-type')}",
                remedy="check that LABEL_STUDIO_URL is Label Studio's own address, with its sub-path",
                status=response.status_code,
                cause=StudioCause.ADDRESS,
            ) from exc
        return self._access_token
