"""Features of the images that were looked at last, bounded in bytes."""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

from maskloop.interactive.image_features import ImageFeatures, image_features
from maskloop.segmentation.checkpoint import Checkpoint
from maskloop.segmentation.predict import RawOutput
from maskloop.segmentation.upsample import Window

__all__ = ["FeatureCache", "FeatureKey"]


class FeatureKey(NamedTuple):
    """What features are of."""

    source: str  # of the model
    content: str  # of the image's file
    task: str
    window: Window | None = None  # a part of the image that was looked at alone; None: all of it

    @property
    def whole(self) -> FeatureKey:
        """The key of the whole image."""
        return self._replace(window=None)


class FeatureCache:
    """Least recently used features go first; safe from any thread."""

    def __init__(self, max_bytes: int) -> None:
        """Args:
        max_bytes: of all features together; features of one image that are larger are not kept.
        """
        self._max_bytes, self._held = max_bytes, 0
        self._entries: OrderedDict[FeatureKey, tuple[weakref.ref[Any], ImageFeatures]] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def max_bytes(self) -> int:
        """The bound."""
        return self._max_bytes

    @property
    def held_bytes(self) -> int:
        """What is held now."""
        return self._held

    def __len__(self) -> int:
        return len(self._entries)

    def keeper(self, key: FeatureKey) -> Callable[[Checkpoint, RawOutput], None]:
        """Return a function that makes and keeps the features of an image from its forward pass."""

        def keep(checkpoint: Checkpoint, raw: RawOutput) -> None:
            if self.find(key) is None:
                self.put(key, checkpoint, image_features(checkpoint, raw))

        return keep

    def put(self, key: FeatureKey, checkpoint: Checkpoint, features: ImageFeatures) -> None:
        """Keep features, in place of those used longest ago where there is no room.

        An image keeps one part of it, so that many small objects on it do not take the room of other images.
        A part whose image is not kept, or that has no room beside it, is not kept either: clicks need both.
        """
        if features.size_bytes > self._max_bytes:
            return
        with self._lock:
            self._remove(key)
            if key.window is not None:
                whole = self._entries.get(key.whole)
                if whole is None or whole[1].size_bytes + features.size_bytes > self._max_bytes:
                    return
                self._entries.move_to_end(key.whole)
                for other in [one for one in self._entries if one.window and one.whole == key.whole]:
                    self._remove(other)
            # A checkpoint that was loaded anew under the same name is another model.
            self._entries[key] = (weakref.ref(checkpoint.model), features)
            self._held += features.size_bytes
            while self._held > self._max_bytes:
                self._remove(next(iter(self._entries)))

    def find(self, key: FeatureKey) -> ImageFeatures | None:
        """Return features that are kept; None where they are not, or their model is gone."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                return None
            if entry[0]() is None:
                self._remove(key)
                return None
            self._entries.move_to_end(key)
            return entry[1]

    def drop_model(self, source: str) -> None:
        """Forget what a model made."""
        with self._lock:
            for key in [key for key in self._entries if key.source == source]:
                self._remove(key)

    def drop_image(self, content: str) -> None:
        """Forget an image."""
        with self._lock:
            for key in [key for key in self._entries if key.content == content]:
                self._remove(key)

    def _remove(self, key: FeatureKey) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._held -= entry[1].size_bytes
