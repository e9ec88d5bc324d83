"""Requests as bytes, well-formed or not, and what comes back for them."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass

__all__ = ["ANSWER_S", "Answer", "request", "send", "webhook"]

ANSWER_S = 30.0  # an answer later than this, or none at all, is a hang; predictions end after 10 s
PIECE_BYTES = 2**17


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came of one request."""

    status: int | None  # None where no answer came, or the connection closed without one
    seconds: float
    retry_after: bool = False

    @property
    def is_hang(self) -> bool:
        """Whether the sender would still wait."""
        return self.status is None and self.seconds >= ANSWER_S


def request(method: str, path: str, body: bytes = b"", *headers: str) -> bytes:
    """Return a request of HTTP/1.1; `headers` follow the usual ones and may contradict them."""
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", "Connection: close"]
    if body:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, *headers, "", ""]).encode("latin-1", "replace") + body


def webhook(body: bytes, secret: str) -> bytes:
    """Return an event with the secret that `connect` put into Label Studio."""
    return request("POST", "/webhook", body, f"X-Maskloop-Secret: {secret}")


async def send(port: int, content: bytes, *, since: float | None = None) -> Answer:
    """Send bytes over a connection of their own and read the answer.

    Args:
        port: of loopback.
        content: a request.
        since: the moment of `time.perf_counter()` from which it is timed; now where None.
    """
    started = time.perf_counter() if since is None else since
    writer = None
    head = b""
    try:
        async with asyncio.timeout(ANSWER_S):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            # In pieces: asyncio moves all that is left after each one that was sent.
            with suppress(OSError):
                for at in range(0, len(content), PIECE_BYTES):
                    writer.write(content[at : at + PIECE_BYTES])
                    await writer.drain()
            head = await reader.readuntil(b"\r\n\r\n")
            while await reader.read(1 << 16):
                pass
    except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        pass
    finally:
        if writer is not None:
            writer.close()
    seconds = time.perf_counter() - started
    words = head.split(b" ", 2)
    status = int(words[1]) if len(words) == 3 and words[1].isdigit() else None
    if seconds >= ANSWER_S:
        status = None
    return Answer(status=status, seconds=seconds, retry_after=b"\r\nretry-after:" in head.lower())
