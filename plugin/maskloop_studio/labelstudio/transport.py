"""Requests to Label Studio: connection, tokens (both kinds, refreshed) and retries by the SDK, errors by us.

The narrow `base_client` of the SDK is imported, and only on first use: its front door costs a second more.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import httpx

from maskloop.errors import StudioError
from maskloop_studio.labelstudio.errors import refused_error, unreachable_error
from maskloop_studio.labelstudio.models import Json

if TYPE_CHECKING:
    from label_studio_sdk.base_client import LabelStudioBase

__all__ = ["CONNECT_TIMEOUT_S", "TIMEOUT_S", "StudioTransport"]

TIMEOUT_S = 30.0
CONNECT_TIMEOUT_S = 150.0  # adding a backend makes Label Studio call it (health, setup) before it answers


class StudioTransport:
    """One Label Studio with one token; may be shared by threads."""

    def __init__(self, url: str, api_key: str, *, timeout_s: float = TIMEOUT_S) -> None:
        self.url = url.rstrip("/")
        self._api_key = api_key
        self._timeout_s = timeout_s

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"

    def close(self) -> None:
        """Close the connections that are kept open."""
        sdk = self.__dict__.pop("_sdk", None)
        if sdk is not None:
            sdk._client_wrapper.httpx_client.httpx_client.close()

    @functools.cached_property
    def _sdk(self) -> LabelStudioBase:
        from label_studio_sdk.base_client import LabelStudioBase

        return LabelStudioBase(base_url=self.url, api_key=self._api_key, timeout=self._timeout_s)

    def _json_or_none(self, path: str, *, params: Mapping[str, Any] | None = None) -> Json | None:
        response = self._request("GET", path, params=params, missing_ok=True)
        return None if response.status_code == 404 else dict(response.json())

    def _json(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        params: Mapping[str, Any] | None = None,
        timeout_s: float | None = None,
    ) -> Any:
        return self._request(method, path, body=body, params=params, timeout_s=timeout_s).json()

    def _request(
        self,
        method: str,
        path: str,
        *,
        body: object = None,
        params: Mapping[str, Any] | None = None,
        files: Mapping[str, Any] | None = None,
        timeout_s: float | None = None,
        missing_ok: bool = False,
    ) -> httpx.Response:
        from label_studio_sdk.core.api_error import ApiError

        place = f"Label Studio {self.url}, {method} /{path.partition('?')[0]}"
        try:
            # Below the generated methods, for the server's JSON as it is and to spare the pass that walks
            # through every number of a brush region.
            response = self._sdk._client_wrapper.httpx_client.request(
                path,
                method=method,
                params=dict(params) if params else None,
                content=json.dumps(body, separators=(",", ":")).encode() if body is not None else None,
                headers={"Content-Type": "application/json"} if body is not None else None,
                files=dict(files) if files else None,
                request_options={
                    "timeout": timeout_s or self._timeout_s,  # type: ignore[typeddict-unknown-key,unused-ignore]
                    # A POST answered with an error may have been done: asking again could do it twice.
                    "max_retries": 2 if method == "GET" else 0,
                },
            )
        except ApiError as exc:  # from the refresh of a personal access token
            raise refused_error(place, exc.status_code or 401, exc.body) from exc
        except httpx.HTTPError as exc:
            raise unreachable_error(place, exc) from exc
        if response.is_error and not (missing_ok and _says_missing(response)):
            raise refused_error(place, response.status_code, response.text)
        if "json" not in response.headers.get("content-type", "json"):
            raise StudioError(
                place,
                expected="JSON",
                got=f"status {response.status_code}, {response.headers.get('content-type')}",
                remedy="check that LABEL_STUDIO_URL is the address of Label Studio itself, without a path",
            )
        return response


def _says_missing(response: httpx.Response) -> bool:
    # A 404 of a proxy, while Label Studio is away, does not say that anything was deleted.
    try:
        return response.status_code == 404 and "detail" in response.json()
    except (ValueError, TypeError):
        return False
