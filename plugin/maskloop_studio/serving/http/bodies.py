"""Request bodies: bounded in size, in time, and all together; read whole before a route begins."""

from __future__ import annotations

import asyncio
import contextlib
import mmap
from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from maskloop_studio.errors import (
    BadRequestError,
    OverloadedError,
    RefusedError,
    TooLargeError,
    TooSlowError,
)
from maskloop_studio.serving.http.answers import error_response

__all__ = ["MAX_BODY_BYTES", "BodyGuard", "BodyLimits"]

MAX_BODY_BYTES = 32 * 2**20  # a /predict of ten thousand tasks is about 5 MB, a huge annotation 20 MB
MAPPED_FROM_BYTES = 2**20


@dataclass(frozen=True, kw_only=True)
class BodyLimits:
    """How much of a request body is taken."""

    body_bytes: int = MAX_BODY_BYTES
    total_bytes: int = 256 * 2**20  # of all requests that are read or worked on at once
    small_bytes: int = 2**20  # so much is taken of a request even when large ones fill most of the total
    timeout_s: float = 20.0  # for the whole body; Label Studio itself gives up on a webhook after 1 s
    drain_s: float = 2.0  # how long the rest of a refused body is read, so that its sender sees the answer


class BodyGuard:
    """Refuses bodies over a limit, also those that lie about their length, before they are held in memory."""

    def __init__(self, app: ASGIApp, *, limits: BodyLimits | None = None) -> None:
        self._app = app
        self._limits = limits or BodyLimits()
        self.held_bytes = 0  # of all requests in flight

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with its body, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = _Body(self)
        try:
            _check_framing(scope, self._limits.body_bytes)
            async with asyncio.timeout(self._limits.timeout_s):
                message = await body.read(receive)
        except RefusedError as error:
            body.release()
            await self._refuse(error, scope, receive, send)
            return
        except TimeoutError:
            body.release()
            await self._refuse(self._too_slow(), scope, receive, send)
            return
        try:
            if message["type"] == "http.request":  # otherwise the client is gone
                await self._app(scope, _replay(message, receive), send)
        finally:
            body.release()

    @property
    def most_bytes(self) -> int:
        """The limit of one body."""
        return self._limits.body_bytes

    def hold(self, size: int, added: int) -> None:
        """Count bytes that one request has, and all have together.

        Raises:
            TooLargeError: that is too much for one request.
            OverloadedError: that is too much for all.
        """
        limits = self._limits
        if size > limits.body_bytes:
            raise _too_large(limits.body_bytes)
        share = 1.0 if size <= limits.small_bytes else 0.75
        if self.held_bytes + added > share * limits.total_bytes:
            raise OverloadedError(
                "request body",
                expected=f"at most {limits.total_bytes} bytes in flight at once",
                got="more",
                remedy="send it again in a moment",
            )
        self.held_bytes += added

    def _too_slow(self) -> TooSlowError:
        return TooSlowError(
            "request body",
            expected=f"all of it within {self._limits.timeout_s:g} s",
            got="less",
            remedy="send as many bytes as Content-Length says, and faster",
        )

    async def _refuse(self, error: RefusedError, scope: Scope, receive: Receive, send: Send) -> None:
        # Closing with unread input would reset the connection, and the sender would never see the answer:
        # so the answer goes out first, then the rest is read and thrown away, then the connection closes.
        async def send_open(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"].append((b"connection", b"close"))
                await send(message)
            else:
                await send({**message, "more_body": True})

        await error_response(error)(scope, receive, send_open)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._limits.drain_s):
                await _drain(receive)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


class _Body:
    """The bytes of one request that are held."""

    def __init__(self, guard: BodyGuard) -> None:
        self._guard = guard
        self._size = 0

    async def read(self, receive: Receive) -> Message:
        """Return the whole body as one message, or the message that its sender is gone."""
        # Grown in place: a list of pieces would leave the heap full of holes. Large ones outside the heap,
        # which would move them each time that they grow; pages that are not written to take no memory.
        content: bytearray | mmap.mmap = bytearray()
        while True:
            message = await receive()
            if message["type"] != "http.request":
                return message
            chunk = message.get("body", b"")
            start, end = self._size, self._size + len(chunk)
            self._guard.hold(end, len(chunk))
            self._size = end
            if end > MAPPED_FROM_BYTES and isinstance(content, bytearray):
                small, content = content, mmap.mmap(-1, self._guard.most_bytes)
                content[:start] = small
            content[start:end] = chunk
            if not message.get("more_body", False):
                return {"type": "http.request", "body": bytes(content[:end]), "more_body": False}

    def release(self) -> None:
        """Give back what was counted."""
        self._guard.held_bytes -= self._size
        self._size = 0


def _check_framing(scope: Scope, limit: int) -> None:
    names = [name for name, _ in scope["headers"]]
    if b"transfer-encoding" in names and b"content-length" in names:
        raise BadRequestError(
            "request headers",
            expected="Content-Length or Transfer-Encoding",
            got="both",
            remedy="send one: two readers could disagree about where the request ends",
        )
    declared = dict(scope["headers"]).get(b"content-length", b"0")
    if not declared.isdigit():
        raise BadRequestError(
            "request header Content-Length",
            expected="a number",
            got="something else",
            remedy="send the number of bytes",
        )
    if len(declared) > 18 or int(declared) > limit:
        raise _too_large(limit)


def _too_large(limit: int) -> TooLargeError:
    return TooLargeError(
        "request body", expected=f"at most {limit} bytes", got="more", remedy="send fewer tasks at once"
    )


def _replay(message: Message, receive: Receive) -> Receive:
    messages = iter([message])

    async def replay() -> Message:
        return next(messages, None) or await receive()

    return replay


async def _drain(receive: Receive) -> None:
    while True:
        message = await receive()
        if message["type"] != "http.request" or not message.get("more_body", False):
            return
