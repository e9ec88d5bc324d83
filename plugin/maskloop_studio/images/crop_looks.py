"""Looking at a part of an image at a higher resolution, in the background, for clicks that may follow."""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from maskloop.errors import MaskloopError
from maskloop.log import log_action
from maskloop.segmentation.image import EncodedImage
from maskloop.types import PredictionFailure, SegmentationTask
from maskloop_studio.images.time_limit import TimeLimit

if TYPE_CHECKING:
    from maskloop.interactive.feature_cache import FeatureCache, FeatureKey
    from maskloop.memory_budget import MemoryBudget
    from maskloop.segmentation.checkpoint import Checkpoint
    from maskloop.segmentation.engine import Engine
    from maskloop.segmentation.predict import RawOutput
    from maskloop.types import ImageResult
    from maskloop_studio.images.fetcher import ImageFetcher

__all__ = ["CropLooks", "CropState", "LookedImage", "content_of"]

logger = logging.getLogger(__name__)
MOST_PENDING = 4  # crops of all images together
FETCH_S = 60.0  # for the image file of a crop
# What became of a wish: begun now; its image's crop before is not done yet; too many, or no memory for it.
CropState: TypeAlias = Literal["begun", "pending", "busy"]


@dataclass(frozen=True, kw_only=True)
class LookedImage:
    """Which image is looked at, by which model."""

    address: str  # as the task gives it
    task_id: int | None
    task: SegmentationTask
    source: str  # the checkpoint, as for load_checkpoint


def content_of(data: bytes) -> str:
    """Return the name of an image file's content."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


class _Crop:
    """One crop that is being made."""

    def __init__(self, image: LookedImage, key: FeatureKey) -> None:
        self.image, self.key = image, key
        self.started = time.monotonic()
        self.held_bytes = 0  # of its image's file
        self.is_over = False
        self.predicted: Future[list[ImageResult]] | None = None


class CropLooks:
    """Makes features of crops, at most one of an image at a time; whatever is urgent goes first."""

    def __init__(
        self,
        *,
        fetcher: ImageFetcher,
        engine: Engine,
        cache: FeatureCache,
        max_pixels: int,
        files: MemoryBudget,
        max_file_bytes: int,
        on_change: Callable[[LookedImage], None],
    ) -> None:
        """Args:
        fetcher: where images come from.
        engine: the process's one.
        cache: keeps the features, with those of whole images.
        max_pixels: of one image.
        files: for image files in hand; a crop never waits for room in it.
        max_file_bytes: of one image file.
        on_change: called with an image whose content is no longer what was looked at.
        """
        self._fetcher, self._engine, self._cache = fetcher, engine, cache
        self._max_pixels, self._files, self._max_file_bytes = max_pixels, files, max_file_bytes
        self._on_change = on_change
        self._lock = threading.Lock()
        self._pending: dict[FeatureKey, _Crop] = {}  # by the key of the whole image

    def begin(self, image: LookedImage, key: FeatureKey) -> CropState:
        """Look at a part of an image in the background.

        Args:
            image: which one.
            key: its model and content, and the window; the features are kept under it.
        """
        crop, most = _Crop(image, key), min(self._max_file_bytes, self._files.total_bytes)
        with self._lock:
            if key.whole in self._pending:
                return "pending"
            if len(self._pending) >= MOST_PENDING or not self._files.try_acquire(most):
                return "busy"
            crop.held_bytes = most
            self._pending[key.whole] = crop
        threading.Thread(target=self._look, args=(crop,), name="crop", daemon=True).start()
        return "begun"

    def drop_model(self, source: str) -> None:
        """Give up the crops of a model; none of them is kept."""
        self._drop(lambda key: key.source == source)

    def drop_image(self, content: str) -> None:
        """Give up the crop of an image."""
        self._drop(lambda key: key.content == content)

    def _drop(self, is_meant: Callable[[FeatureKey], bool]) -> None:
        with self._lock:
            dropped = [self._pending.pop(key) for key in list(self._pending) if is_meant(key)]
        for crop in dropped:  # beyond the lock: cancelling calls `_end`
            if crop.predicted is not None:
                crop.predicted.cancel()

    def _look(self, crop: _Crop) -> None:
        try:
            data = self._fetch(crop)
            if content_of(data) != crop.key.content:
                self._end(crop, "content changed")
                self._on_change(crop.image)
                return
            if not self._is_wanted(crop):
                self._end(crop, "not wanted any more")
                return
            crop.predicted = self._engine.submit(
                [EncodedImage(data=data, max_pixels=self._max_pixels, window=crop.key.window)],
                source=crop.key.source,
                task=crop.image.task,
                use_output=lambda checkpoint, raw: self._keep(crop, checkpoint, raw),
            )
            crop.predicted.add_done_callback(lambda predicted: self._take(crop, predicted))
        except Exception as exc:  # nobody waits for it: the next click is answered without
            self._end(crop, exc)

    def _fetch(self, crop: _Crop) -> bytes:
        limit = TimeLimit(FETCH_S)
        (data,) = self._fetcher.fetch_many(
            [crop.image.address], task_ids=[crop.image.task_id], limit=limit.fetches.child()
        )
        if isinstance(data, MaskloopError):
            raise data
        self._release(crop, keep=len(data))
        return data

    def _take(self, crop: _Crop, predicted: Future[list[ImageResult]]) -> None:
        """Note what became of the forward pass; features of a good one come a moment later."""
        self._release(crop)
        if predicted.cancelled():
            self._end(crop, "not wanted any more")
        elif (error := predicted.exception()) is not None:
            self._end(crop, error)
        elif isinstance(result := predicted.result()[0], PredictionFailure):
            self._end(crop, result.error)

    def _keep(self, crop: _Crop, checkpoint: Checkpoint, raw: RawOutput) -> None:
        from maskloop.interactive.image_features import image_features

        try:
            features = image_features(checkpoint, raw)
            with self._lock:  # a model or an image that is dropped now drops these features as well
                if self._pending.get(crop.key.whole) is crop:
                    self._cache.put(crop.key, checkpoint, features)
        except BaseException as exc:
            self._end(crop, exc)
            raise
        self._end(crop, None)

    def _is_wanted(self, crop: _Crop) -> bool:
        with self._lock:
            return self._pending.get(crop.key.whole) is crop

    def _release(self, crop: _Crop, *, keep: int = 0) -> None:
        with self._lock:
            given_back = max(0, crop.held_bytes - keep)
            crop.held_bytes -= given_back
        self._files.release(given_back)

    def _end(self, crop: _Crop, trouble: BaseException | str | None) -> None:
        self._release(crop)
        with self._lock:
            was_over, crop.is_over = crop.is_over, True
            if self._pending.get(crop.key.whole) is crop:
                del self._pending[crop.key.whole]
        if was_over:
            return
        window = crop.key.window
        log_action(
            logger,
            "crop_not_looked_at" if trouble else "crop_looked_at",
            level=logging.WARNING if isinstance(trouble, BaseException) else logging.INFO,
            task_id=crop.image.task_id,
            window=None if window is None else f"{window.left},{window.top},{window.right},{window.bottom}",
            duration_s=time.monotonic() - crop.started,
            reason=trouble or "none",
        )
