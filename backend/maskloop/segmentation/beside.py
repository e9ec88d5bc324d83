"""Work on a device beside the forward passes that follow: on CUDA a stream of the thread's own."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import torch

__all__ = ["beside", "mark"]

URGENT = -1  # CUDA: before the kernels of the next batch, which is in no hurry
_local = threading.local()


def mark(device: torch.device) -> torch.cuda.Event | None:
    """Return what comes once a device has done all that this thread asked of it; None for a CPU."""
    if device.type != "cuda":
        return None
    event = torch.cuda.Event()  # type: ignore[no-untyped-call]
    event.record(torch.cuda.current_stream(device))
    return event


@contextlib.contextmanager
def beside(device: torch.device, event: torch.cuda.Event | None) -> Iterator[None]:
    """Let this thread work with what was marked, without waiting for what was asked for later.

    All of its own work is done at the end, so that the memory it read may be used again.
    """
    if event is None:
        yield
        return
    stream = _stream(device)
    with torch.cuda.stream(stream):
        stream.wait_event(event)
        try:
            yield
        finally:
            stream.synchronize()


def _stream(device: torch.device) -> torch.cuda.Stream:
    streams: dict[torch.device, torch.cuda.Stream] = _local.__dict__.setdefault("streams", {})
    if device not in streams:
        streams[device] = torch.cuda.Stream(device, priority=URGENT)  # type: ignore[no-untyped-call]
    return streams[device]
