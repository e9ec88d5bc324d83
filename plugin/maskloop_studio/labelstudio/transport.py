"""Requests to Label Studio: one connection pool, the token, further tries; errors are those of `error_map`.

httpx is used directly, below label-studio-sdk's generated methods: their exchange of personal access tokens
drops the sub-path of the address, and their models walk through every number of a brush region.
"""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from time import sleep
from typing import Any, TypeVar

import httpx
import tenacity

from maskloop.errors import ConfigurationError, StudioCause, StudioError
from maskloop_studio.labelstudio.address import check_address
from maskloop_studio.labelstudio.auth import StudioAuth
from maskloop_studio.labelstudio.certificates import tls_context
from maskloop_studio.labelstudio.error_map import ADDRESS_REMEDY, refused_error, studio_errors

__all__ = ["CONNECT_TIMEOUT_S", "TIMEOUT_S", "StudioTransport", "retry_after_s"]

TIMEOUT_S = 30.0
CONNECT_TIMEOUT_S = 150.0  # adding a backend makes Label Studio call it (health, setup) before it answers
WHOLE_S = 300.0  # for one request from its start to the last byte of its answer, each try
MAX_ANSWER_BYTES = 256 * 2**20  # decompressed; a page of a hundred tasks with huge masks is tens of megabytes
DECODED_HEADERS = frozenset({"content-encoding", "content-length", "transfer-encoding"})
TRIES = 3
MAX_RETRY_AFTER_S = 30.0  # a longer wait that Label Studio demands is an error
PASSING_STATUSES = frozenset({408, 429, 500, 502, 503, 504})

Answer = TypeVar("Answer")


def _itself(answer: Any) -> Any:
    return answer


class StudioTransport:
    """One Label Studio with one token; may be shared by threads."""

    def __init__(
        self, url: str, api_key: str, *, timeout_s: float = TIMEOUT_S, ca_bundle: Path | None = None
    ) -> None:
        """Args:
            url: Label Studio's address, with the sub-path that it is served under.
            api_key: a legacy token or a personal access token.
            timeout_s: for each connect, write and read of a request.
            ca_bundle: further certificate authorities.

        Raises:
            ConfigurationError: the address or the token cannot be used.
        """
        self.url = check_address(url)
        self._auth = StudioAuth(self.url, api_key)
        self._timeout_s = timeout_s
        self._ca_bundle = ca_bundle

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"

    def close(self) -> None:
        """Close the connections that are kept open."""
        client = self.__dict__.pop("_http", None)
        if client is not None:
            client.close()

    @functools.cached_property
    def _http(self) -> httpx.Client:
        try:
            return httpx.Client(auth=self._auth, timeout=self._timeout_s, verify=tls_context(self._ca_bundle))
        except (ImportError, ValueError, httpx.InvalidURL) as exc:
            raise ConfigurationError(
                "setting HTTP_PROXY, HTTPS_PROXY or ALL_PROXY",
                expected="the address of an HTTP proxy",
                got=f"another ({exc})",
                remedy="correct it, or name Label Studio's host in NO_PROXY",
            ) from exc

    def _find(
        self, path: str, *, params: Mapping[str, Any] | None = None, read: Callable[[Any], Answer]
    ) -> Answer | None:
        """Return what `read` makes of a GET's answer, or None where Label Studio answers 404."""
        return self._request(
            "GET",
            path,
            params=params,
            missing_ok=True,
            read=lambda response: None if response.status_code == 404 else read(response.json()),
        )

    def _json(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        params: Mapping[str, Any] | None = None,
        timeout_s: float | None = None,
        read: Callable[[Any], Answer] = _itself,
    ) -> Answer:
        return self._request(
            method, path, body=body, params=params, timeout_s=timeout_s, read=lambda raw: read(raw.json())
        )

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
        read: Callable[[httpx.Response], Answer] = _itself,
    ) -> Answer:
        """Return what `read` makes of the answer.

        Args:
            method: GET and others; only a GET is tried again after an error that may have come from its work.
            path: below Label Studio's address.
            body: sent as JSON.
            params: the query.
            files: sent as a form.
            timeout_s: in place of the usual one.
            missing_ok: a 404 of Label Studio itself is an answer as well.
            read: what it raises becomes a StudioError like what the request raises.

        Raises:
            StudioError: no answer, a refusal, or an answer of another form.
        """
        with studio_errors(f"Label Studio {self.url}, {method} /{path.partition('?')[0]}") as place:
            response = self._send(
                place,
                method,
                f"{self.url}/{path}",
                params=dict(params) if params else None,
                content=json.dumps(body, separators=(",", ":")).encode() if body is not None else None,
                headers={"Content-Type": "application/json"} if body is not None else None,
                files=dict(files) if files else None,
                timeout=timeout_s or self._timeout_s,
            )
            _check(response, place, missing_ok=missing_ok)
            return read(response)

    def _send(self, place: str, method: str, url: str, **rest: Any) -> httpx.Response:
        retrying = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(TRIES),
            wait=_wait_s,
            retry=functools.partial(_may_pass, method),
            retry_error_callback=_last_outcome,
            sleep=sleep,
        )
        return retrying(self._whole_answer, place, method, url, **rest)

    def _whole_answer(self, place: str, method: str, url: str, **rest: Any) -> httpx.Response:
        """Return an answer that is whole, at most MAX_ANSWER_BYTES long, and there within WHOLE_S.

        httpx's own limits are for each read: a byte a second keeps them for ever.
        """
        deadline = time.monotonic() + WHOLE_S
        content = bytearray()
        with self._http.stream(method, url, **rest) as response:
            for piece in response.iter_bytes():
                content += piece
                if len(content) > MAX_ANSWER_BYTES:
                    raise _endless(place, f"at most {MAX_ANSWER_BYTES >> 20} MiB", "more")
                if time.monotonic() > deadline:
                    raise _endless(place, f"all of it within {WHOLE_S:g} s", f"{len(content)} bytes by then")
        headers = [
            (name, value) for name, value in response.headers.multi_items() if name not in DECODED_HEADERS
        ]
        return httpx.Response(
            response.status_code, headers=headers, content=bytes(content), request=response.request
        )


def _endless(place: str, expected: str, got: str) -> StudioError:
    return StudioError(
        place,
        expected=f"an answer, {expected}",
        got=got,
        remedy="check that LABEL_STUDIO_URL is Label Studio's own address, and that the network is not "
        "overloaded",
        cause=StudioCause.ANSWER,
    )


def retry_after_s(response: httpx.Response, *, now: datetime | None = None) -> float | None:
    """Return for how many seconds an answer's Retry-After demands to wait; None where it has none.

    Source: RFC 9110, 10.2.3.
    """
    text = response.headers.get("retry-after", "").strip()
    if text.isdecimal():
        return float(text[:9])
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max((moment - (now or datetime.now(UTC))).total_seconds(), 0.0)


def _may_pass(method: str, state: tenacity.RetryCallState) -> bool:
    outcome = state.outcome
    assert outcome is not None
    if outcome.failed:
        passing = (httpx.NetworkError, httpx.RemoteProtocolError)
        return method == "GET" and isinstance(outcome.exception(), passing)
    response: httpx.Response = outcome.result()
    if response.status_code not in PASSING_STATUSES or (retry_after_s(response) or 0) > MAX_RETRY_AFTER_S:
        return False
    # Other methods may have done their work before the error; one that exceeds the limit was not begun.
    return method == "GET" or response.status_code == 429


def _wait_s(state: tenacity.RetryCallState) -> float:
    backoff_s = tenacity.wait_random_exponential(multiplier=0.5, max=5)(state)
    if state.outcome is None or state.outcome.failed:
        return backoff_s
    demanded_s = retry_after_s(state.outcome.result())
    return backoff_s if demanded_s is None else demanded_s


def _last_outcome(state: tenacity.RetryCallState) -> httpx.Response:
    assert state.outcome is not None
    response: httpx.Response = state.outcome.result()  # raises what the last try raised
    return response


def _check(response: httpx.Response, place: str, *, missing_ok: bool) -> None:
    if missing_ok and _says_missing(response):
        return
    if response.is_error:
        raise refused_error(place, response.status_code, response.text)
    kind = response.headers.get("content-type", "json")
    got = f"status {response.status_code}, {kind}"
    if response.has_redirect_location:
        got = f"a redirect to {response.headers['location'].partition('?')[0][:200]}"
    elif "json" in kind:
        return
    raise StudioError(
        place,
        expected="JSON",
        got=got,
        remedy=ADDRESS_REMEDY,
        status=response.status_code,
        cause=StudioCause.ADDRESS,
    )


def _says_missing(response: httpx.Response) -> bool:
    # A 404 of a proxy, while Label Studio is away, is no sign of a deletion.
    try:
        return response.status_code == 404 and "detail" in response.json()
    except (ValueError, TypeError):
        return False
