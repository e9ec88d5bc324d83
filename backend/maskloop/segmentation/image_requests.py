"""What an engine keeps of a request: its images, one by one on their way through the model."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TypeAlias

import torch

from maskloop.segmentation.checkpoint import Checkpoint
from maskloop.segmentation.image import EncodedImage
from maskloop.segmentation.postprocess import Thresholds
from maskloop.segmentation.predict import PreparedViews, RawOutput
from maskloop.types import ImageResult, RgbImage, SegmentationTask

__all__ = ["ImageRequest", "ImageSource", "OutputUse", "ReadyImage", "RunningBatch"]

# An image, or what decodes it when its turn comes.
ImageSource: TypeAlias = RgbImage | EncodedImage | Callable[[], RgbImage]
OutputUse: TypeAlias = Callable[[Checkpoint, RawOutput], None]  # of an image's forward pass


@dataclass(kw_only=True, eq=False)
class ImageRequest:
    """Images that one caller asked for at once."""

    source: str
    checkpoint: Checkpoint
    images: list[ImageSource | None]  # None once it is resized
    task: SegmentationTask
    thresholds: Thresholds
    for_selection: bool
    use_output: OutputUse | None
    is_urgent: bool
    future: Future[list[ImageResult]] = field(default_factory=Future)
    results: dict[int, ImageResult] = field(default_factory=dict)
    started: bool = False  # its first image was taken: it can no longer be cancelled
    dropped: bool = False  # it was cancelled before

    def fits(self, other: ImageRequest) -> bool:
        """Return whether two requests may share a forward pass."""
        # what is urgent does not take along what can wait
        mine = (self.task, self.for_selection, self.is_urgent)
        theirs = (other.task, other.for_selection, other.is_urgent)
        return self.checkpoint is other.checkpoint and mine == theirs


@dataclass(kw_only=True, eq=False)
class ReadyImage:
    """One image of a request, ready for the model."""

    request: ImageRequest
    index: int
    views: PreparedViews
    sizes_hw: tuple[tuple[int, int], ...]  # of its forward passes


@dataclass(kw_only=True, eq=False)
class RunningBatch:
    """Images of one forward pass whose results are not complete yet."""

    left: int
    event: torch.cuda.Event | None  # when they have been through it
