"""Training examples -> training items: an image of the model's size with an index map of its objects.

`training_set` makes examples of corrections; `augmentation` makes random views; `collate` makes batches.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from maskloop.errors import ImageError
from maskloop.learning.data.augmentation import Augmentation, View, augment, fit_canvas, mirror_pairs
from maskloop.learning.data.copy_paste import paste_objects
from maskloop.learning.data.sampling import epoch_order, example_weights
from maskloop.log import log_action
from maskloop.segmentation.image import decode_image
from maskloop.types import RgbImage, Segment

__all__ = [
    "IGNORED",
    "ExampleDataset",
    "ResizeRule",
    "TrainingExample",
    "TrainingItem",
    "common_canvas",
    "draw_index_map",
    "load_example_image",
    "object_planes",
    "visible_objects",
]

ResizeRule: TypeAlias = Callable[
    [tuple[int, int]], tuple[int, int]
]  # an image's (H, W) -> the model's (H, W)

logger = logging.getLogger(__name__)
_CACHE_BYTES = 512 * 2**20
_PASTE_SHARE = 0.5  # of an image's objects of the commonest class; rarer ones more often
_MIN_PIXELS = 10  # of an object in a view; objects with fewer are ignored
_CANVAS_MULTIPLE = 32  # the coarsest stride of the models
MAX_IMAGE_PIXELS = 178_956_970  # where Pillow refuses an image; intake accepts images by its own setting
IGNORED = -1  # in an index map: neither an object nor background


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingExample:
    """One image and the objects that an annotator drew on it."""

    image: Path | RgbImage  # a file, or uint8 (H, W, 3), upright
    segments: tuple[Segment, ...]  # none: an image without objects
    key: str  # identifies the image in logs and errors
    ignored: tuple[Segment, ...] = ()  # unlabelled areas: neither objects nor background
    fresh: bool = False  # the champion has not learnt from it yet
    group: str = ""  # the same for images that are nearly the same; "": it is like no other


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingItem:
    """One view of one example."""

    image_hwc: RgbImage
    index_hw: NDArray[np.int16]  # 0: background, IGNORED, else 1 + the position in class_ids
    class_ids: tuple[int, ...]  # class id of each object


class ExampleDataset(Dataset[TrainingItem]):
    """Item i of a training: a random view of an example; the same i always gives the same view.

    Each epoch has every example once, in an order shuffled for each epoch. With `balance`, fresh examples and
    those with rare classes come more often (see `sampling`).
    """

    def __init__(
        self,
        examples: Sequence[TrainingExample],
        *,
        length: int,
        labels: Sequence[str],
        resize: ResizeRule,
        augmentation: Augmentation | None,
        seed: int,
        max_objects: int,
        stuff_labels: Collection[str] = (),
        balance: bool = False,
        max_canvas_hw: tuple[int, int] | None = None,
    ) -> None:
        self._examples = tuple(examples)
        self._length = length
        self._labels = tuple(labels)
        self._class_ids = {label: index for index, label in enumerate(labels)}
        self._resize = resize
        self._augmentation = augmentation
        self._seed = seed
        self._max_objects = max_objects
        self._stuff = frozenset(stuff_labels)
        named = [frozenset(segment.label for segment in example.segments) for example in self._examples]
        fresh = [example.fresh for example in self._examples]
        self._weights = example_weights(named, fresh) if balance else np.ones(len(self._examples))
        self._mirrored_ids = _mirrored_ids(labels, augmentation)
        self._label_counts = Counter(label for labels_of_image in named for label in labels_of_image)
        self._cache: dict[int, tuple[TrainingItem, TrainingItem | None]] = {}
        self._cached_bytes = 0
        self._max_canvas_hw = max_canvas_hw
        self._canvas_hw: tuple[int, int] | None = None

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> TrainingItem:
        if not 0 <= index < self._length:
            raise IndexError(index)
        epoch, position = divmod(index, len(self._examples))
        number = self._example_at(epoch, position)
        if self._augmentation is None:
            resized, _ = self._resized(number)
            view = View(*fit_canvas(resized.image_hwc, resized.index_hw, canvas_hw=self._canvas()), False)
            return _item(view, resized.class_ids)
        view, class_ids = self._view(number, np.random.default_rng([self._seed, 1, index]))
        rng = np.random.default_rng([self._seed, 2, index])
        if rng.random() < self._augmentation.paste:
            view, class_ids = self._paste(view, class_ids, rng)
        return _item(view, class_ids)

    def _view(self, number: int, rng: np.random.Generator) -> tuple[View, tuple[int, ...]]:
        """Return a random view of an example and the classes of its objects."""
        assert self._augmentation is not None
        resized, finer = self._resized(number)
        view = augment(
            resized.image_hwc,
            resized.index_hw,
            canvas_hw=self._canvas(),
            augmentation=self._augmentation,
            rng=rng,
            upright=bool(self._mirrored_ids),
            finer=None if finer is None else (finer.image_hwc, finer.index_hw),
        )
        class_ids = resized.class_ids
        if view.mirrored:
            class_ids = tuple(self._mirrored_ids.get(class_id, class_id) for class_id in class_ids)
        return view, class_ids

    def _paste(
        self, view: View, class_ids: tuple[int, ...], rng: np.random.Generator
    ) -> tuple[View, tuple[int, ...]]:
        """Return the view with objects of another example over it, rare classes more often."""
        source, source_ids = self._view(int(rng.integers(len(self._examples))), rng)
        visible = np.bincount(np.maximum(source.index_hw, 0).ravel(), minlength=len(source_ids) + 1)[1:]
        things = [
            position
            for position, class_id in enumerate(source_ids)
            if visible[position] >= _MIN_PIXELS and self._labels[class_id] not in self._stuff
        ]
        commonest = max(self._label_counts.values(), default=1)
        shares = [
            _PASTE_SHARE * math.sqrt(commonest / max(self._label_counts[self._labels[source_ids[one]]], 1))
            for one in things
        ]
        chosen = [one for one, share in zip(things, shares, strict=True) if rng.random() < share]
        free = self._max_objects - len(class_ids)
        return paste_objects(view, class_ids, source, source_ids, chosen=chosen[: max(free, 0)])

    def _canvas(self) -> tuple[int, int]:
        if self._canvas_hw is None:
            shapes = [
                self._resized(number)[0].index_hw.shape for number in range(min(len(self._examples), 16))
            ]
            self._canvas_hw = common_canvas([(shape[0], shape[1]) for shape in shapes], self._max_canvas_hw)
        return self._canvas_hw

    def _example_at(self, epoch: int, position: int) -> int:
        if self._augmentation is None:  # validation: a fixed list
            return position
        return int(epoch_order(self._weights, self._seed, epoch)[position])

    def _resized(self, number: int) -> tuple[TrainingItem, TrainingItem | None]:
        """Return the example at the model's size and, for enlarged views, with more pixels where it has them.

        Both are cached while memory allows.
        """
        if number in self._cache:
            return self._cache[number]
        example = self._examples[number]
        image_hwc = load_example_image(example)
        size_hw = (image_hwc.shape[0], image_hwc.shape[1])
        index_hw, kept_labels = draw_index_map(
            example.segments,
            size_hw,
            max_objects=self._max_objects,
            stuff_labels=self._stuff,
            ignored=example.ignored,
            key=example.key,
        )
        whole = TrainingItem(
            image_hwc=image_hwc,
            index_hw=index_hw,
            class_ids=tuple(self._class_ids[label] for label in kept_labels),
        )
        resized = _resize_item(whole, self._resize(size_hw))
        pair = resized, self._finer(whole, resized)
        nbytes = sum(item.image_hwc.nbytes + item.index_hw.nbytes for item in pair if item is not None)
        if self._cached_bytes + nbytes <= _CACHE_BYTES:
            self._cache[number] = pair
            self._cached_bytes += nbytes
        return pair

    def _finer(self, whole: TrainingItem, resized: TrainingItem) -> TrainingItem | None:
        """Return the example in the size of the largest view; None where that would fill the cache."""
        if self._augmentation is None or self._augmentation.scale[1] <= 1.0:
            return None
        height, width = resized.index_hw.shape
        factor = min(self._augmentation.scale[1], whole.index_hw.shape[0] / height)
        bytes_of_all = factor**2 * (resized.image_hwc.nbytes + resized.index_hw.nbytes) * len(self._examples)
        if factor <= 1.0 or bytes_of_all > _CACHE_BYTES // 2:
            return None
        return _resize_item(whole, (round(height * factor), round(width * factor)))


def _resize_item(item: TrainingItem, size_hw: tuple[int, int]) -> TrainingItem:
    size_wh = size_hw[::-1]
    return TrainingItem(
        image_hwc=np.asarray(cv2.resize(item.image_hwc, size_wh, interpolation=cv2.INTER_AREA), np.uint8),
        index_hw=np.asarray(
            cv2.resize(item.index_hw, size_wh, interpolation=cv2.INTER_NEAREST_EXACT), np.int16
        ),
        class_ids=item.class_ids,
    )


def _item(view: View, class_ids: tuple[int, ...]) -> TrainingItem:
    return TrainingItem(image_hwc=view.image_hwc, index_hw=view.index_hw, class_ids=class_ids)


def load_example_image(example: TrainingExample) -> RgbImage:
    """Return the example's image as it is served, uint8 (H, W, 3), upright.

    Raises:
        ImageError: the file is missing or is no image.
    """
    if not isinstance(example.image, Path):
        return example.image
    try:
        return decode_image(example.image.read_bytes(), max_pixels=MAX_IMAGE_PIXELS)
    except (OSError, ImageError) as exc:
        raise ImageError(
            f"training image {example.key} ({example.image})",
            expected="a readable image file",
            got=f"{type(exc).__name__}: {exc}",
            remedy="fetch the image again or remove the annotation",
        ) from exc


def draw_index_map(
    segments: Sequence[Segment],
    size_hw: tuple[int, int],
    *,
    max_objects: int,
    stuff_labels: Collection[str] = (),
    ignored: Sequence[Segment] = (),
    key: str = "",
) -> tuple[NDArray[np.int16], tuple[str, ...]]:
    """Return int16 (H, W) with 1 + the position in the returned labels, smaller objects over larger ones.

    Where there are more objects than the model has queries, the largest of each class are kept, then the
    largest of all; the area of the others becomes IGNORED.

    Args:
        segments: segments of one image; those of one stuff class become one object.
        size_hw: size of the image.
        max_objects: number of objects that the model can learn from in one image (its queries).
        stuff_labels: classes without instances.
        ignored: areas that become IGNORED where no object lies over them.
        key: identifies the image in the log.
    """
    groups: dict[str, list[Segment]] = {}
    for number, segment in enumerate(segments):
        stuff = segment.label in stuff_labels
        groups.setdefault(f"stuff {segment.label}" if stuff else f"thing {number}", []).append(segment)
    objects = sorted(groups.values(), key=lambda parts: sum(part.area for part in parts), reverse=True)
    kept, dropped = _fit_queries(objects, max_objects)
    if dropped:
        log_action(
            logger,
            "objects_dropped",
            level=logging.WARNING,
            reason="more objects than the model has queries",
            image=key,
            objects=len(objects),
            kept=len(kept),
        )
    index_hw = np.zeros(size_hw, dtype=np.int16)
    for segment in (*ignored, *(part for parts in dropped for part in parts)):
        _paint(index_hw, segment, IGNORED)
    for index, parts in enumerate(kept, start=1):
        for part in parts:
            _paint(index_hw, part, index)
    return index_hw, tuple(parts[0].label for parts in kept)


def _fit_queries(objects: list[list[Segment]], most: int) -> tuple[list[list[Segment]], list[list[Segment]]]:
    """Return the objects that are kept and those that are dropped, both largest first."""
    if len(objects) <= most:
        return objects, []
    seen: set[str] = set()
    largest_of_class: list[int] = []
    others: list[int] = []
    for number, parts in enumerate(objects):
        (others if parts[0].label in seen else largest_of_class).append(number)
        seen.add(parts[0].label)
    chosen = set([*largest_of_class, *others][:most])
    kept = [parts for number, parts in enumerate(objects) if number in chosen]
    return kept, [parts for number, parts in enumerate(objects) if number not in chosen]


def _paint(index_hw: NDArray[np.int16], segment: Segment, value: int) -> None:
    top, left, bottom, right = segment.box_yxyx
    target_hw = index_hw[top:bottom, left:right]
    target_hw[segment.mask_hw[: target_hw.shape[0], : target_hw.shape[1]]] = value


def _mirrored_ids(labels: Sequence[str], augmentation: Augmentation | None) -> dict[int, int]:
    """Return class id -> class id in a mirrored image, for the classes that change."""
    if augmentation is None or not augmentation.flips:
        return {}
    pairs = mirror_pairs(labels) if augmentation.pairs is None else augmentation.pairs
    ids = {label: index for index, label in enumerate(labels)}
    known = [(ids[one], ids[other]) for one, other in pairs if one in ids and other in ids]
    return dict([*known, *((other, one) for one, other in known)])


def common_canvas(
    sizes_hw: Sequence[tuple[int, int]], max_hw: tuple[int, int] | None = None
) -> tuple[int, int]:
    """Return the (H, W) of training views: the median size, rounded up to the model's coarsest stride.

    Args:
        sizes_hw: sizes of resized images.
        max_hw: the largest input of the model; None where there is no limit.
    """
    median_hw = np.median(np.asarray(sizes_hw), axis=0)
    height, width = (int(np.ceil(side / _CANVAS_MULTIPLE)) * _CANVAS_MULTIPLE for side in median_hw)
    return (height, width) if max_hw is None else (min(height, max_hw[0]), min(width, max_hw[1]))


def visible_objects(item: TrainingItem) -> tuple[Tensor, Tensor]:
    """Return the index map and class ids of the objects that an item shows.

    Returns:
        int16 (H, W): 0 for background, 1..N for objects, IGNORED for neither, which includes objects of which
        the view shows fewer than 10 pixels; and int64 (N,), the class ids of objects 1..N.
    """
    counts = np.bincount(item.index_hw.ravel() + 1, minlength=len(item.class_ids) + 2)[2:]
    visible = counts >= _MIN_PIXELS
    renumbered = np.full(len(counts) + 2, IGNORED, dtype=np.int16)
    renumbered[1] = 0
    renumbered[2:][visible] = np.arange(1, np.count_nonzero(visible) + 1)
    class_ids = np.asarray(item.class_ids, dtype=np.int64)[visible]
    return torch.from_numpy(renumbered[item.index_hw + 1]), torch.from_numpy(class_ids)


def object_planes(index_hw: Tensor, objects: int) -> Tensor:
    """Return float32 (N, H, W): one plane per object of an index map, as the families' own losses take."""
    ids_n = torch.arange(1, objects + 1, device=index_hw.device, dtype=index_hw.dtype)
    return (index_hw == ids_n[:, None, None]).float()
