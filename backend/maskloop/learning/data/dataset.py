"""Training examples -> training items: an image of the model's size with an index map of its objects.

`training_set` makes examples of corrections; `augmentation` makes random views; `collate` makes batches.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from maskloop.errors import ImageError
from maskloop.learning.data.augmentation import Augmentation, View, augment, fit_canvas, mirror_pairs
from maskloop.learning.data.copy_paste import paste_objects
from maskloop.learning.data.index_map import (
    IGNORED,
    MIN_PIXELS,
    TrainingItem,
    box_values,
    draw_index_map,
    fitting_objects,
)
from maskloop.learning.data.sampling import epoch_order, example_weights, with_guesses
from maskloop.learning.data.soft_targets import MergedObjects, draw_shares, merge_annotators
from maskloop.learning.data.task_targets import TaskSampling
from maskloop.segmentation.image import decode_image
from maskloop.types import RgbImage, Segment

__all__ = [
    "ExampleDataset",
    "ResizeRule",
    "TrainingExample",
    "common_canvas",
    "load_example_image",
    "unreadable_image",
]

ResizeRule: TypeAlias = Callable[
    [tuple[int, int]], tuple[int, int]
]  # an image's (H, W) -> the model's (H, W)

_CACHE_BYTES = 512 * 2**20
_PASTE_SHARE = 0.5  # of an image's objects of the commonest class; rarer ones more often
_CANVAS_MULTIPLE = 32  # the coarsest stride of the models
MAX_IMAGE_PIXELS = 178_956_970  # where Pillow refuses an image; intake accepts images by its own setting


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingExample:
    """One image and the objects that an annotator drew on it."""

    image: Path | RgbImage  # a file, or uint8 (H, W, 3), upright
    segments: tuple[Segment, ...]  # none: an image without objects
    key: str  # identifies the image in logs and errors
    ignored: tuple[Segment, ...] = ()  # unlabelled areas: neither objects nor background
    boxes: tuple[Segment, ...] = ()  # objects of which only a box is known: ignored inside
    deleted: tuple[Segment, ...] = ()  # of the shown prediction: the annotator says that nothing is there
    fresh: bool = False  # the champion has not learnt from it yet
    group: str = ""  # the same for images that are nearly the same; "": it is like no other
    guessed: bool = False  # a model drew its segments, no person
    # what each other annotator drew, for soft targets; boxes and regions without a label are areas of which
    # that annotator says nothing
    others: tuple[tuple[Segment, ...], ...] = ()

    @property
    def judges(self) -> bool:
        """Whether a model can be judged by it: where all objects are boxes, everything on them is ignored."""
        return bool(self.segments) or not self.boxes


class ExampleDataset(Dataset[TrainingItem]):
    """Item i of a training: a random view of an example; the same i always gives the same view.

    Each epoch has every example once, in an order shuffled for each epoch. With `balance`, fresh examples and
    those with rare classes come more often (see `sampling`). With `tasks`, each view has one by lot (see
    `task_targets`).
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
        tasks: TaskSampling | None = None,
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
        named = [
            frozenset(one.label for one in (*example.segments, *example.boxes)) for example in self._examples
        ]
        fresh = [example.fresh for example in self._examples]
        weights = example_weights(named, fresh) if balance else np.ones(len(self._examples))
        self._weights = with_guesses(weights, [example.guessed for example in self._examples])
        self._mirrored_ids = _mirrored_ids(labels, augmentation)
        self._label_counts = Counter(label for labels_of_image in named for label in labels_of_image)
        self._cache: dict[int, tuple[TrainingItem, TrainingItem | None]] = {}
        self._cached_bytes = 0
        self._merged: dict[int, MergedObjects] = {}  # of images with several annotators
        self._max_canvas_hw = max_canvas_hw
        self._tasks = tasks
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
            return _item(view, resized)
        view, shown = self._view(number, np.random.default_rng([self._seed, 1, index]))
        rng = np.random.default_rng([self._seed, 2, index])
        if rng.random() < self._augmentation.paste:
            most = self._max_objects - len(shown.class_ids) - len(shown.box_ids)
            view, shown = self._paste(view, shown, rng, most=max(most, 0))
        item = _item(view, shown)
        return item if self._tasks is None else self._tasks(item, seed=self._seed, index=index)

    def _view(self, number: int, rng: np.random.Generator) -> tuple[View, TrainingItem]:
        """Return a random view of an example, and the example with the classes of that view."""
        assert self._augmentation is not None
        resized, finer = self._resized(number)
        view = augment(
            resized.image_hwc,
            resized.index_hw,
            canvas_hw=self._canvas(),
            augmentation=self._augmentation,
            rng=rng,
            upright=bool(self._mirrored_ids),
            finer=None if finer is None else (finer.image_hwc, finer.index_hw, finer.shares_hw),
            shares_hw=resized.shares_hw,
        )
        if not view.mirrored or not self._mirrored_ids:
            return view, resized
        swapped = [self._mirrored_ids.get(one, one) for one in range(len(self._labels))]
        class_ids, box_ids = (
            tuple(swapped[one] for one in ids) for ids in (resized.class_ids, resized.box_ids)
        )
        votes_nk = None if resized.votes_nk is None else resized.votes_nk[:, swapped]
        return view, replace(resized, class_ids=class_ids, box_ids=box_ids, votes_nk=votes_nk)

    def _paste(
        self, view: View, shown: TrainingItem, rng: np.random.Generator, *, most: int
    ) -> tuple[View, TrainingItem]:
        """Return the view with objects of another example over it, rare classes more often."""
        source, other = self._view(int(rng.integers(len(self._examples))), rng)
        source_ids = other.class_ids
        visible = np.bincount(np.maximum(source.index_hw, 0).ravel(), minlength=len(source_ids) + 1)[1:]
        things = [
            position
            for position, class_id in enumerate(source_ids)
            if visible[position] >= MIN_PIXELS and self._labels[class_id] not in self._stuff
        ]
        commonest = max(self._label_counts.values(), default=1)
        shares = [
            _PASTE_SHARE * math.sqrt(commonest / max(self._label_counts[self._labels[source_ids[one]]], 1))
            for one in things
        ]
        chosen = [one for one, share in zip(things, shares, strict=True) if rng.random() < share]
        pasted, class_ids = paste_objects(view, shown.class_ids, source, source_ids, chosen=chosen[:most])
        votes_nk = None
        if pasted.shares_hw is not None:
            classes = len(self._labels)
            votes_nk = np.concatenate([shown.votes_of(classes), other.votes_of(classes)[chosen[:most]]])
        return pasted, replace(shown, class_ids=class_ids, votes_nk=votes_nk)

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
        merged = self._merge(number)
        segments = example.segments if merged is None else merged.segments
        values = box_values(
            example.boxes,
            stuff_labels=self._stuff,
            most=max(self._max_objects - len(segments), 0),
            key=example.key,
        )
        index_hw, kept_labels = draw_index_map(
            segments,
            size_hw,
            max_objects=self._max_objects,
            stuff_labels=self._stuff,
            ignored=example.ignored if merged is None else (*example.ignored, *merged.ignored),
            boxes=list(zip(example.boxes, values, strict=True)),
            deleted=example.deleted,
            key=example.key,
        )
        shares_hw = votes_nk = None
        if merged is not None:
            index_hw, shares_hw, votes_nk = self._soften(index_hw, merged)
        whole = TrainingItem(
            image_hwc=image_hwc,
            index_hw=index_hw,
            class_ids=tuple(self._class_ids[label] for label in kept_labels),
            box_ids=tuple(
                self._class_ids[box.label]
                for box, value in zip(example.boxes, values, strict=True)
                if value != IGNORED
            ),
            deleted=len(example.deleted),
            shares_hw=shares_hw,
            votes_nk=votes_nk,
        )
        resized = _resize_item(whole, self._resize(size_hw))
        pair = resized, self._finer(whole, resized)
        nbytes = sum(_nbytes(item) for item in pair if item is not None)
        if self._cached_bytes + nbytes <= _CACHE_BYTES:
            self._cache[number] = pair
            self._cached_bytes += nbytes
        return pair

    def _merge(self, number: int) -> MergedObjects | None:
        """Return what the annotators of an example make of it; None where one is believed alone.

        So it is in validation, whose loss is that of the annotation that is believed.
        """
        example = self._examples[number]
        if not example.others or self._augmentation is None:
            return None
        if number not in self._merged:
            self._merged[number] = merge_annotators(
                example.segments,
                example.others,
                stuff_labels=self._stuff,
                unknown=(*example.ignored, *example.boxes),
            )
        return self._merged[number]

    def _soften(
        self, index_hw: NDArray[np.int16], merged: MergedObjects
    ) -> tuple[NDArray[np.int16], NDArray[np.uint8], NDArray[np.float32]]:
        """Return an index map, shares and votes of what several annotators drew."""
        kept, _ = fitting_objects(merged.segments, max_objects=self._max_objects, stuff_labels=self._stuff)
        votes_nk = np.zeros((len(kept), len(self._labels)), dtype=np.float32)
        for row, parts in enumerate(kept):
            for label, share in merged.of(parts).votes.items():
                votes_nk[row, self._class_ids[label]] = share
        return *draw_shares(index_hw, kept, merged, stuff_labels=self._stuff), votes_nk

    def _finer(self, whole: TrainingItem, resized: TrainingItem) -> TrainingItem | None:
        """Return the example in the size of the largest view; None where that would fill the cache."""
        if self._augmentation is None or self._augmentation.scale[1] <= 1.0:
            return None
        height, width = resized.index_hw.shape
        factor = min(self._augmentation.scale[1], whole.index_hw.shape[0] / height)
        bytes_of_all = factor**2 * _nbytes(resized) * len(self._examples)
        if factor <= 1.0 or bytes_of_all > _CACHE_BYTES // 2:
            return None
        return _resize_item(whole, (round(height * factor), round(width * factor)))


def _resize_item(item: TrainingItem, size_hw: tuple[int, int]) -> TrainingItem:
    size_wh = size_hw[::-1]
    return replace(
        item,
        image_hwc=np.asarray(cv2.resize(item.image_hwc, size_wh, interpolation=cv2.INTER_AREA), np.uint8),
        index_hw=np.asarray(
            cv2.resize(item.index_hw, size_wh, interpolation=cv2.INTER_NEAREST_EXACT), np.int16
        ),
        shares_hw=None
        if item.shares_hw is None
        else np.asarray(cv2.resize(item.shares_hw, size_wh, interpolation=cv2.INTER_NEAREST_EXACT), np.uint8),
    )


def _item(view: View, shown: TrainingItem) -> TrainingItem:
    return replace(shown, image_hwc=view.image_hwc, index_hw=view.index_hw, shares_hw=view.shares_hw)


def _nbytes(item: TrainingItem) -> int:
    shares = 0 if item.shares_hw is None else item.shares_hw.nbytes
    return item.image_hwc.nbytes + item.index_hw.nbytes + shares


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
        raise unreadable_image(example, exc) from exc


def unreadable_image(example: TrainingExample, cause: Exception) -> ImageError:
    """Return the error for an example whose file is missing or is no image."""
    return ImageError(
        f"training image {example.key} ({example.image})",
        expected="a readable image file",
        got=f"{type(cause).__name__}: {cause}",
        remedy="fetch the image again or remove the annotation",
    )


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
