"""Connections for images: addresses are checked where the connection is made, and every wait has an end.

httpx's own timeouts bound single operations: a host that sends a byte a second keeps them for ever. Here each
read, connect and TLS handshake ends with the fetch's limit, and soon after the fetch is abandoned.
"""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, InvalidStateError, wait
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import httpcore
import httpx

from maskloop_studio.images.address_guard import check_public, host_addresses
from maskloop_studio.images.deadline import SLICE_S, FetchLimit

__all__ = ["MAX_HELPERS", "BoundedTransport", "fetching", "in_helper"]

MAX_HELPERS = 64  # threads a transport that look up names and connect; those that hang outlive their fetch
MAX_KEPT_CONNECTIONS = 64


@dataclass(frozen=True, kw_only=True)
class _Fetch:
    """The fetch of this thread."""

    limit: FetchLimit = field(default_factory=FetchLimit)
    tls_names: Mapping[str, str] = field(
        default_factory=dict
    )  # address in the URL -> name on the certificate


_current: ContextVar[_Fetch | None] = ContextVar("maskloop_fetch", default=None)


@contextmanager
def fetching(limit: FetchLimit, *, tls_names: Mapping[str, str] | None = None) -> Iterator[None]:
    """Bound the requests that this thread sends through a BoundedTransport.

    Args:
        limit: when they have to be over.
        tls_names: for URLs with an address as their host: the name that the certificate has to have.
    """
    token = _current.set(_Fetch(limit=limit, tls_names=tls_names or {}))
    try:
        yield
    finally:
        _current.reset(token)


class BoundedTransport(httpx.HTTPTransport):
    """Sends requests within the limit of `fetching`; responses have to be read in the same thread."""

    def __init__(self, *, tls: ssl.SSLContext, public_only: bool, proxy: str | None = None) -> None:
        """Args:
            tls: how certificates are checked.
            public_only: connect to public addresses only. Behind a proxy the caller checks them.
            proxy: the address of an HTTP proxy.

        Raises:
            ValueError: the proxy's address is no http(s) URL.
        """
        super().__init__(verify=tls, trust_env=False)
        backend = _BoundedBackend(public_only=public_only and proxy is None)
        if proxy is None:
            self._pool = httpcore.ConnectionPool(
                ssl_context=tls,
                max_connections=None,  # the threads that fetch are bounded, and nothing waits for a place
                max_keepalive_connections=MAX_KEPT_CONNECTIONS,
                keepalive_expiry=5.0,
                network_backend=backend,
            )
            return
        at = httpx.Proxy(proxy)
        if at.url.scheme not in ("http", "https"):
            raise ValueError(f"scheme {at.url.scheme!r}")
        self._pool = httpcore.HTTPProxy(
            proxy_url=httpcore.URL(
                scheme=at.url.raw_scheme, host=at.url.raw_host, port=at.url.port, target=at.url.raw_path
            ),
            proxy_auth=at.raw_auth,
            proxy_headers=at.headers.raw,
            proxy_ssl_context=tls if at.url.scheme == "https" else None,
            ssl_context=tls,
            max_connections=None,
            # A connection is known by its address: two names on one address must not share it.
            max_keepalive_connections=0,
            network_backend=backend,
        )


class _BoundedBackend(httpcore.NetworkBackend):
    def __init__(self, *, public_only: bool) -> None:
        self._public_only = public_only
        self._helpers = threading.BoundedSemaphore(MAX_HELPERS)
        self._backend = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        limit = _fetch().limit
        return _BoundedStream(
            in_helper(lambda: self._connect(host, port, limit), limit, self._helpers), self._helpers
        )

    def _connect(self, host: str, port: int, limit: FetchLimit) -> httpcore.NetworkStream:
        try:
            addresses = host_addresses(host, port)
        except OSError as exc:
            raise httpcore.ConnectError(str(exc)) from exc
        if self._public_only:
            check_public(host, addresses)
        for left in range(len(addresses), 1, -1):
            try:
                return self._backend.connect_tcp(addresses[-left], port, limit.left_s() / left)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue
        return self._backend.connect_tcp(addresses[-1], port, limit.left_s())


class _BoundedStream(httpcore.NetworkStream):
    def __init__(self, stream: httpcore.NetworkStream, helpers: threading.BoundedSemaphore) -> None:
        self._stream = stream
        self._helpers = helpers

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        limit = _fetch().limit
        if timeout is not None:
            limit = limit.within(timeout)
        while not limit.is_over:
            try:
                return self._stream.read(max_bytes, limit.left_s(SLICE_S))
            except httpcore.ReadTimeout:
                continue
        raise httpcore.ReadTimeout("the fetch is over")

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, _fetch().limit.left_s(timeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        fetch = _fetch()
        name = fetch.tls_names.get(server_hostname or "", server_hostname)

        def handshake() -> httpcore.NetworkStream:
            return self._stream.start_tls(ssl_context, name, fetch.limit.left_s(timeout))

        return _BoundedStream(in_helper(handshake, fetch.limit, self._helpers), self._helpers)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def _fetch() -> _Fetch:
    return _current.get() or _Fetch()


def in_helper(work: Callable[[], Any], limit: FetchLimit, helpers: threading.BoundedSemaphore) -> Any:
    """Return what `work` returns, run in a thread of its own, so that this thread can leave at the limit.

    A result that comes after that is closed where it is a stream.

    Args:
        work: ends by itself at some time.
        limit: when this thread leaves.
        helpers: how many threads of this kind there may be.

    Raises:
        httpcore.ConnectTimeout: the limit came first.
        BaseException: what `work` raises.
    """
    while not helpers.acquire(timeout=limit.left_s(SLICE_S)):
        if limit.is_over:
            raise httpcore.ConnectTimeout("the fetch is over")
    future: Future[Any] = Future()

    def run() -> None:
        try:
            _run_into(future, work)
        finally:
            helpers.release()

    try:
        threading.Thread(target=run, name="fetch-connect", daemon=True).start()
    except RuntimeError as exc:
        helpers.release()
        raise httpcore.ConnectError(str(exc)) from exc
    while not wait([future], timeout=limit.left_s(SLICE_S)).done:
        if limit.is_over and future.cancel():
            raise httpcore.ConnectTimeout("the fetch is over")
    return future.result()


def _run_into(future: Future[Any], work: Callable[[], Any]) -> None:
    try:
        made = work()
    except BaseException as exc:
        with suppress(InvalidStateError):
            future.set_exception(exc)
        return
    try:
        future.set_result(made)
    except InvalidStateError:
        if isinstance(made, httpcore.NetworkStream):
            made.close()
