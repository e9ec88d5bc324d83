"""Looking at an image once: features for clicks are kept from its prediction, whoever asked for it."""

from __future__ import annotations

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, TypeAlias

from maskloop.errors import MaskloopError
from maskloop.hit_counter import HitCounter
from maskloop.segmentation.image import EncodedImage
from maskloop.types import PredictionFailure
from maskloop_studio.images.crop_looks import CropLooks, CropState, LookedImage, content_of

if TYPE_CHECKING:
    from maskloop.interactive.feature_cache import FeatureCache, FeatureKey
    from maskloop.interactive.image_features import ImageFeatures
    from maskloop.memory_budget import MemoryBudget
    from maskloop.segmentation.checkpoint import Checkpoint
    from maskloop.segmentation.engine import Engine
    from maskloop.segmentation.predict import RawOutput
    from maskloop.segmentation.upsample import Window
    from maskloop_studio.images.fetcher import ImageFetcher
    from maskloop_studio.images.time_limit import TimeLimit

__all__ = ["ImageLooks", "LookedImage", "OutputObserver"]

ADDRESS_S = 300.0  # the content behind an address is looked up again after so long
MAX_ADDRESSES = 10_000
# Keeps a prediction's features (the engine's `use_output`), and is told when it is there or never will be.
OutputObserver: TypeAlias = "tuple[Callable[[Checkpoint, RawOutput], None], Callable[[object], None]]"


class ImageLooks:
    """Features of images, made when they are wanted or when the image is predicted anyway."""

    def __init__(
        self,
        *,
        fetcher: ImageFetcher,
        engine: Engine,
        cache: FeatureCache,
        max_pixels: int,
        files: MemoryBudget,
        max_file_bytes: int,
    ) -> None:
        """Args:
        fetcher: where images come from.
        engine: the process's one.
        cache: keeps the features.
        max_pixels: of one image.
        files: for image files in hand.
        max_file_bytes: of one image file.
        """
        self._fetcher, self._engine, self._cache = fetcher, engine, cache
        self._max_pixels, self._files, self._max_file_bytes = max_pixels, files, max_file_bytes
        self.lookups = HitCounter()  # of images that a click was about
        self._lock = threading.Lock()
        self._pending: dict[FeatureKey, Future[ImageFeatures | None]] = {}
        self._addresses: OrderedDict[str, tuple[str, float]] = OrderedDict()
        self._crops = CropLooks(
            fetcher=fetcher,
            engine=engine,
            cache=cache,
            max_pixels=max_pixels,
            files=files,
            max_file_bytes=max_file_bytes,
            on_change=self.forget,
        )

    def known(self, image: LookedImage, window: Window | None = None) -> ImageFeatures | None:
        """Return the features of an image that was looked at, or of a part; None where there are none."""
        key = self._key_of(image)
        return None if key is None else self._cache.find(key._replace(window=window))

    def look_closer(self, image: LookedImage, window: Window) -> CropState:
        """Look at a part of an image in the background, so that `known` has it a moment later.

        Args:
            image: one that was looked at.
            window: the part.
        """
        key = self._key_of(image)
        whole = None if key is None else self._cache.find(key)
        # a part takes about as much as the whole image, at the most
        if key is None or whole is None or 2 * whole.size_bytes > self._cache.max_bytes:
            return "busy"
        return self._crops.begin(image, key._replace(window=window))

    def forget(self, image: LookedImage) -> None:
        """Drop what is kept of an image."""
        key = self._key_of(image)
        if key is not None:
            self._crops.drop_image(key.content)
            self._cache.drop_image(key.content)
        with self._lock:
            self._addresses.pop(_place(image), None)

    def drop_model(self, source: str) -> None:
        """Drop what a model made; looks that are on their way answer who waits for them, and are not kept."""
        with self._lock:
            for key in [key for key in self._pending if key.source == source]:
                del self._pending[key]
        self._crops.drop_model(source)
        self._cache.drop_model(source)

    def look(self, image: LookedImage, limit: TimeLimit) -> ImageFeatures | None:
        """Return the features of an image: kept ones, else by a forward pass, which goes before others.

        Args:
            image: which one.
            limit: when this has to return.

        Returns:
            None where the limit came first.

        Raises:
            ImageError: the image cannot be fetched or decoded.
            ModelLoadError: the checkpoint cannot be loaded.
        """
        found = self.known(image)
        self.lookups.note(found is not None)
        if found is not None:
            return found
        most = min(self._max_file_bytes, self._files.total_bytes)
        if not self._files.acquire(most, is_over=lambda: limit.is_over):
            return None
        try:
            (data,) = self._fetcher.fetch_many(
                [image.address], task_ids=[image.task_id], limit=limit.fetches.child()
            )
            if isinstance(data, MaskloopError):
                raise data
            return self._look_at(image, data, limit)
        finally:
            self._files.release(most)

    def observer(self, image: LookedImage, data: bytes) -> OutputObserver | None:
        """Return what keeps the features of a prediction that is about to be made, and what ends it.

        Args:
            image: which one.
            data: its file.

        Returns:
            None where the features are kept or are being made.
        """
        key = self._note(image, data)
        if self._cache.find(key) is not None:
            return None
        with self._lock:
            if key in self._pending:
                return None
            return self._begin(key)

    def _look_at(self, image: LookedImage, data: bytes, limit: TimeLimit) -> ImageFeatures | None:
        key = self._note(image, data)
        while not limit.is_over:
            found = self._cache.find(key)
            if found is not None:
                return found
            with self._lock:
                pending = self._pending.get(key)
                begun = None if pending is not None else self._begin(key)
                pending = self._pending[key]
            if begun is not None:
                self._submit(image, data, begun)
            if not limit.wait([pending]):
                return None
            features = pending.result()
            if features is not None:
                return features
        return None

    def _submit(self, image: LookedImage, data: bytes, begun: OutputObserver) -> None:
        use_output, end = begun
        try:
            predicted = self._engine.submit(
                [EncodedImage(data=data, max_pixels=self._max_pixels)],
                source=image.source,
                task=image.task,
                use_output=use_output,
                is_urgent=True,
            )
        except BaseException as exc:
            end(exc)
            raise
        predicted.add_done_callback(end)

    def _begin(self, key: FeatureKey) -> OutputObserver:
        """Note that features are being made; `_lock` is held."""
        future: Future[ImageFeatures | None] = Future()
        self._pending[key] = future

        def finish(features: ImageFeatures | None, error: BaseException | None = None) -> None:
            with self._lock:
                if self._pending.get(key) is future:
                    del self._pending[key]
                if future.done():
                    return
                if error is None:
                    future.set_result(features)
                else:
                    future.set_exception(error)

        def use_output(checkpoint: Checkpoint, raw: RawOutput) -> None:
            from maskloop.interactive.image_features import image_features

            try:
                features = image_features(checkpoint, raw)
            except BaseException as exc:
                finish(None, exc)
                raise
            with self._lock:
                if self._pending.get(key) is future:  # else its model was dropped meanwhile
                    self._cache.put(key, checkpoint, features)
            finish(features)

        def end(predicted: object) -> None:
            # A prediction that was made has its features a moment later; any other never has.
            if not isinstance(predicted, Future):
                finish(None, predicted if isinstance(predicted, BaseException) else None)
            elif predicted.cancelled():
                finish(None)
            elif (error := predicted.exception()) is not None:
                finish(None, error)
            elif isinstance(result := predicted.result()[0], PredictionFailure):
                finish(None, result.error)

        return use_output, end

    def _note(self, image: LookedImage, data: bytes) -> FeatureKey:
        content = content_of(data)
        with self._lock:
            self._addresses[_place(image)] = (content, time.monotonic())
            self._addresses.move_to_end(_place(image))
            while len(self._addresses) > MAX_ADDRESSES:
                self._addresses.popitem(last=False)
        return _key(image, content)

    def _key_of(self, image: LookedImage) -> FeatureKey | None:
        with self._lock:
            noted = self._addresses.get(_place(image))
        if noted is None or time.monotonic() - noted[1] > ADDRESS_S:
            return None
        return _key(image, noted[0])


def _key(image: LookedImage, content: str) -> FeatureKey:
    from maskloop.interactive.feature_cache import FeatureKey

    return FeatureKey(source=image.source, content=content, task=image.task.value)


def _place(image: LookedImage) -> str:
    """Return a short name of an address: a `data:` address holds its whole image."""
    return hashlib.blake2b(f"{image.task_id} {image.address}".encode(), digest_size=16).hexdigest()
