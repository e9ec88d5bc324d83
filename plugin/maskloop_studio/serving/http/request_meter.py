"""How many requests, how long they took; cheap enough to count every one."""

from __future__ import annotations

import time
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["RequestMeter"]

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0, 100.0)


class RequestMeter:
    """Counts and times every request, by route; plain ASGI, since a wrapped response would cost more."""

    def __init__(self, app: ASGIApp, *, routes: Iterable[str], registry: CollectorRegistry) -> None:
        self._app = app
        self._requests = Counter("maskloop_requests", "Requests", ["route", "status"], registry=registry)
        seconds = Histogram(
            "maskloop_request_seconds", "Time to answer", ["route"], buckets=SECONDS, registry=registry
        )
        # Paths that are not served share one label: a sender must not be able to make more of them.
        self._other = seconds.labels("other")
        self._seconds = {route: seconds.labels(route) for route in routes}
        self._counters: dict[tuple[str, int], Counter] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on and note what became of it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 499  # nginx's word for a sender who left before the answer

        async def note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        started = time.perf_counter()
        try:
            await self._app(scope, receive, note)
        except Exception:
            status = 500
            raise
        finally:
            path = scope["path"]
            self._seconds.get(path, self._other).observe(time.perf_counter() - started)
            self._counter(path if path in self._seconds else "other", status).inc()

    def _counter(self, route: str, status: int) -> Counter:
        key = (route, status)
        if key not in self._counters:
            self._counters[key] = self._requests.labels(route, str(status))
        return self._counters[key]
