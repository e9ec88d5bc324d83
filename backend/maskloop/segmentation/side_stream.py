"""Post-processing on a CUDA stream of its own, beside the forward pass of the next batch."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import torch

__all__ = ["on_side_stream", "record_event"]

URGENT = -1  # CUDA stream priority: before the kernels of the next batch
_local = threading.local()


def record_event(device: torch.device) -> torch.cuda.Event | None:
    """Return a CUDA event after all work that this thread has queued on a device; None for a CPU."""
    if device.type != "cuda":
        return None
    event = torch.cuda.Event()  # type: ignore[no-untyped-call]
    event.record(torch.cuda.current_stream(device))
    return event


@contextlib.contextmanager
def on_side_stream(device: torch.device, event: torch.cuda.Event | None) -> Iterator[None]:
    """Run this thread's work on a CUDA stream of its own, after the event but not after later work.

    The stream is synchronised at the end, so that the memory it read may be used again.
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
