"""Connections that say nothing, or nonsense: they are closed, and leave room for others."""

from __future__ import annotations

import asyncio
import json
from collections import OrderedDict
from typing import Any, ClassVar

from uvicorn.protocols.http.h11_impl import H11Protocol

__all__ = ["GuardedConnection"]

HEAD_TIMEOUT_S = 10.0  # for the line and headers of a request
LINGER_S = 2.0  # how long the rest of a refused request is read, so that its sender sees the answer
MAX_HALF_OPEN = 256  # of a process: below the 1024 files that a process may usually open


class GuardedConnection(H11Protocol):
    """uvicorn's HTTP/1.1, with a time limit for request heads and a limit for connections without one."""

    half_open: ClassVar[OrderedDict[int, GuardedConnection]] = OrderedDict()  # oldest first

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._timer: asyncio.TimerHandle | None = None
        self._lingering = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request."""
        super().connection_made(transport)
        self._wait(HEAD_TIMEOUT_S)

    def data_received(self, data: bytes) -> None:
        """Take bytes; once they make a request, its body has limits of its own."""
        if self._lingering:
            return
        super().data_received(data)
        if self._lingering or self.transport.is_closing():
            return
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_waiting()
        elif self._timer is None:
            self._wait(HEAD_TIMEOUT_S)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._stop_waiting()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Say what was wrong with what is no HTTP; `msg` is uvicorn's own word for it."""
        if self.cycle is not None and self.cycle.response_started and not self.cycle.response_complete:
            self.transport.close()  # the answer to an earlier request is half sent
            return
        text = (
            "request: expected HTTP/1.1 with one Content-Length or chunks, and 16 KiB of headers at most, "
            "got something else; see /docs for what is served"
        )
        body = json.dumps({"error": text}).encode()
        self.transport.write(
            b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\nconnection: close\r\n"
            b"content-length: %d\r\n\r\n%s" % (len(body), body)
        )
        self._linger()

    def _linger(self) -> None:
        # Closing with unread input would reset the connection before the answer is read.
        self._lingering = True
        if self.cycle is not None:
            # Its own answer could no longer be sent: to the application its client is gone.
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.transport.resume_reading()
        self._wait(LINGER_S)

    def _wait(self, seconds: float) -> None:
        self._stop_waiting()
        self._timer = self.loop.call_later(seconds, self._give_up)
        self.half_open[id(self)] = self
        if len(self.half_open) > MAX_HALF_OPEN:
            next(iter(self.half_open.values()))._give_up()

    def _stop_waiting(self) -> None:
        self.half_open.pop(id(self), None)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_up(self) -> None:
        self._stop_waiting()
        self.transport.abort()
