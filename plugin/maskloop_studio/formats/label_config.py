"""A project's label config (XML) -> its images, its drawing tools with their labels, and its task.

Parsed by label-studio-sdk's `LabelInterface`. A config comes from outside, so its size and form are checked
first. `label_map.py` finds the label of each class of the model.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from cachetools import LRUCache

from maskloop.errors import LabelConfigError
from maskloop.types import SegmentationTask
from maskloop_studio.formats.controls import GEOMETRY_KINDS, Control, ControlKind, ImageTag, LabelConfig
from maskloop_studio.formats.label_map import ControlPreference, LabelMap, LabelTarget, map_labels

__all__ = [
    "Control",
    "ControlKind",
    "ControlPreference",
    "ImageTag",
    "LabelConfig",
    "LabelMap",
    "LabelTarget",
    "map_labels",
    "parse_label_config",
]

MAX_CONFIG_CHARS = 2**20
MAX_TAGS = 100_000
MAX_CONTROLS = 1_000
MAX_CONTROL_LABELS = 200_000  # the labels and images of each control, summed over the controls
CACHE_BYTES = 64 * 2**20
BYTES_PER_CHAR = 64  # of a cached config, beside its controls; reading one takes 54 in label-studio-sdk
BYTES_PER_CONTROL = 2_048
TASK_ATTRIBUTE, THRESHOLD_ATTRIBUTE = "maskloop_task", "model_score_threshold"
KIND_ATTRIBUTE = "maskloop_kind"
LABEL_KINDS = ("stuff", "thing")
ADDRESS_PATTERN = re.compile(r"[a-z][a-z0-9+.-]*:|/", re.IGNORECASE)  # a fixed image
KIND_OF_TAG: Mapping[str, ControlKind] = {f"{kind}labels": kind for kind in GEOMETRY_KINDS}
KIND_OF_BARE_TAG: Mapping[str, ControlKind] = {kind: kind for kind in GEOMETRY_KINDS} | {"magicwand": "brush"}
EXAMPLE = (
    '<View><Image name="image" value="$image"/><BrushLabels name="brush" toName="image">'
    '<Label value="Car"/></BrushLabels></View>'
)


@dataclass(frozen=True, kw_only=True)
class _CachedConfig:
    config: LabelConfig
    size_bytes: int  # what it takes, about


_cache: LRUCache[str, _CachedConfig] = LRUCache(CACHE_BYTES, getsizeof=lambda cached: cached.size_bytes)
_cache_lock = threading.Lock()
_reading_lock = threading.Lock()  # one at a time: reading takes fifty times the memory of the text


def parse_label_config(xml: str) -> LabelConfig:
    """Return the images, drawing tools, labels and task of a label config.

    Read are `<BrushLabels>`, `<BitmaskLabels>`, `<PolygonLabels>`, `<VectorLabels>`, `<RectangleLabels>`,
    `<EllipseLabels>` and `<KeyPointLabels>`, and `<Brush>`, `<MagicWand>`, `<Bitmask>`, `<Polygon>`,
    `<Vector>`, `<Rectangle>`, `<Ellipse>` and `<KeyPoint>` together with each `<Labels>` of the same image.
    `model_score_threshold="0.5"` on one of them (or on its `<Labels>`) is its least score;
    `maskloop_task="panoptic"` on a `<View>` or a control is the task, the first one counts;
    `maskloop_kind="stuff"` or `"thing"` on a `<Label>` is the kind of its segments.

    Args:
        xml: the project's labeling interface, at most 1 MiB.

    Raises:
        LabelConfigError: not XML, or without an `<Image>` and a drawing tool with labels on it, or with a
            threshold, a task or a kind that does not exist; or with more tags, controls or labels of
            controls than a project can use: `<Brush>` and its like count once for each `<Labels>`.

    Source:
        https://labelstud.io/tags/brushlabels, https://labelstud.io/tags/bitmasklabels,
        https://labelstud.io/tags/polygonlabels, https://labelstud.io/tags/vectorlabels,
        https://labelstud.io/tags/rectangle, https://labelstud.io/tags/labels
    """
    _refuse_hostile(xml)
    cached = _recall(xml)
    if cached is not None:
        return cached
    with _reading_lock:
        cached = _recall(xml)  # another thread may have read it meanwhile
        return cached if cached is not None else _read_and_keep(xml)


def _recall(xml: str) -> LabelConfig | None:
    with _cache_lock:
        cached = _cache.get(xml)
    return None if cached is None else cached.config


def _read_and_keep(xml: str) -> LabelConfig:
    config = _parse_known_size(xml)
    size_bytes = len(xml) * BYTES_PER_CHAR + len(config.controls) * BYTES_PER_CONTROL
    if size_bytes <= CACHE_BYTES:
        with _cache_lock:
            _cache[xml] = _CachedConfig(config=config, size_bytes=size_bytes)
    return config


def _refuse_hostile(xml: str) -> None:
    if not isinstance(xml, str) or not xml.strip():
        raise _bad("XML text", type(xml).__name__ if not isinstance(xml, str) else "nothing")
    if len(xml) > MAX_CONFIG_CHARS:
        raise _bad(f"at most {MAX_CONFIG_CHARS} characters", str(len(xml)))
    # Entities can blow up a small text and read local files; no label config needs them.
    if re.search(r"<!\s*(DOCTYPE|ENTITY)", xml, re.IGNORECASE):
        raise _bad("no DOCTYPE and no entities", "a document type declaration")
    _demand_at_most(MAX_TAGS, xml.count("<"), "tags")


def _demand_at_most(most: int, count: int, what: str) -> None:
    if count > most:
        raise LabelConfigError(
            "label config",
            expected=f"at most {most} {what}",
            got=str(count),
            remedy="name fewer labels, or give each control labels of its own (<BrushLabels>)",
        )


def _parse_known_size(xml: str) -> LabelConfig:
    from label_studio_sdk.label_interface.interface import LabelInterface

    try:
        interface: Any = LabelInterface(xml)
    except (
        Exception
    ) as exc:  # lxml, pydantic and the SDK raise many kinds, all for a config that cannot be read
        raise _bad("a label config", str(exc)[:200]) from exc
    images = {name: tag for name, tag in interface._objects.items() if tag.tag.lower() == "image"}
    if not images:
        raise _bad("an <Image>", "none")
    tags = list(interface._controls.values())
    drawings = list(_drawings(tags, images))
    readings = {id(one.labels_tag): _read_labels(one.labels_tag) for one in drawings}
    controls = tuple(_to_control(one, readings[id(one.labels_tag)]) for one in drawings)
    if not controls:
        raise _bad(
            "<BrushLabels> or <PolygonLabels> (or the bitmask, vector, rectangle, ellipse or key point ones) "
            "with labels, drawing on the <Image>",
            "none",
        )
    config = LabelConfig(
        images=tuple(_to_image(name, tag) for name, tag in images.items()),
        controls=controls,
        task=_read_task(interface._tree),
        other_objects=frozenset(interface._objects) - frozenset(images),
        stuff_labels=_labels_of_kind("stuff", tags),
        thing_labels=_labels_of_kind("thing", tags),
    )
    for image in config.drawn_images:
        if "$" not in image.expression and not ADDRESS_PATTERN.match(image.expression):
            raise _bad(
                f'a field of the task in <Image name="{image.name}" value="$field">', repr(image.expression)
            )
    return config


def _to_image(name: str, tag: Any) -> ImageTag:
    pages = tag.attr.get("valueList") or tag.attr.get("valuelist")
    return ImageTag(name=name, expression=(pages or tag.attr.get("value") or "").strip(), is_list=bool(pages))


@dataclass(frozen=True, kw_only=True)
class _Drawing:
    """One drawing tool together with the tag that names its labels, which may be itself."""

    tag: Any
    kind: ControlKind
    to_names: tuple[str, ...]
    naming: Any | None  # its `<Labels>`; None where it names them itself

    @property
    def labels_tag(self) -> Any:
        return self.naming if self.naming is not None else self.tag


@dataclass(frozen=True, kw_only=True)
class _Labels:
    """The labels of one tag; all controls that it names share them."""

    labels: tuple[str, ...]
    aliases: Mapping[str, str]


def _drawings(tags: list[Any], images: Mapping[str, Any]) -> Iterator[_Drawing]:
    """Yield the drawing tools, once for each tag that names labels for them.

    Raises:
        LabelConfigError: more of them, or more labels and images of them, than MAX_CONTROLS and
            MAX_CONTROL_LABELS; found out before the products are made.
    """
    images_of = {id(tag): _images_of(tag, images) for tag in tags}
    namings = [tag for tag in tags if tag.tag.lower() == "labels" and _has_labels(tag)]
    bound = _Bound()
    for tag in tags:
        to_names = images_of[id(tag)]
        if not to_names:
            continue
        kind = KIND_OF_TAG.get(tag.tag.lower())
        if kind is not None and _has_labels(tag):
            bound.add(len(tag.labels or ()) + len(to_names))
            yield _Drawing(tag=tag, kind=kind, to_names=to_names, naming=None)
        kind = KIND_OF_BARE_TAG.get(tag.tag.lower())
        if kind is not None:
            for naming in namings:
                # Also what is compared counts: pairs without a common image make no control.
                bound.compare(len(images_of[id(naming)]) + len(to_names))
                named = frozenset(images_of[id(naming)])
                shared = tuple(name for name in to_names if name in named)
                if shared:
                    bound.add(len(naming.labels or ()) + len(shared))
                    yield _Drawing(tag=tag, kind=kind, to_names=shared, naming=naming)


class _Bound:
    """Counts what the controls of one config take."""

    def __init__(self) -> None:
        self._controls = self._labels = self._compared = 0

    def add(self, labels: int) -> None:
        """Count one control with this many labels and images."""
        self._controls += 1
        self._labels += labels
        _demand_at_most(MAX_CONTROLS, self._controls, "controls with labels")
        _demand_at_most(MAX_CONTROL_LABELS, self._labels, "labels and images of all controls together")

    def compare(self, images: int) -> None:
        """Count one comparison of a drawing tool's images with those of a `<Labels>`."""
        self._compared += images
        _demand_at_most(MAX_CONTROL_LABELS, self._compared, "pairs of a drawing tool and a <Labels>")


def _has_labels(tag: Any) -> bool:
    return bool(tag.labels) or _labels_expression(tag) is not None


def _labels_expression(tag: Any) -> str | None:
    value = (tag.attr.get("value") or "").strip()
    return value if value.startswith("$") else None


def _images_of(tag: Any, images: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name.strip() for name in tag.to_name if name.strip() in images))


def _to_control(drawing: _Drawing, reading: _Labels) -> Control:
    tag, labels_tag, kind = drawing.tag, drawing.labels_tag, drawing.kind
    tag_name = tag.tag.lower()
    return Control(
        name=tag.name,
        kind=kind,
        to_names=drawing.to_names,
        labels=reading.labels,
        aliases=reading.aliases,
        labels_name=drawing.naming.name if drawing.naming is not None else None,
        labels_expression=_labels_expression(labels_tag),
        score_threshold=_read_threshold(tag, labels_tag),
        is_prompt=any(
            str(value).lower() == "true"
            for name, value in tag.attr.items()
            if name.lower() in ("smart", "smartonly")
        ),
        bare_type=tag_name if tag_name in KIND_OF_BARE_TAG and tag_name != kind else None,
    )


def _read_labels(tag: Any) -> _Labels:
    return _Labels(labels=tuple(tag.labels or ()), aliases=MappingProxyType(_aliases(tag.labels_attrs or {})))


def _labels_of_kind(kind: str, tags: list[Any]) -> frozenset[str]:
    """Return the labels whose `<Label>` has this `maskloop_kind`."""
    found = set()
    for tag in tags:
        for label, attributes in (tag.labels_attrs or {}).items():
            text = str(attributes.attr.get(KIND_ATTRIBUTE, "")).strip().lower()
            if text and text not in LABEL_KINDS:
                raise LabelConfigError(
                    "label config",
                    expected=f"{KIND_ATTRIBUTE} out of {', '.join(LABEL_KINDS)}",
                    got=repr(text)[:40],
                    remedy=f'write for example <Label value="sky" {KIND_ATTRIBUTE}="stuff"/>',
                )
            if text == kind:
                found.add(label)
    return frozenset(found)


def _read_threshold(*tags: Any) -> float | None:
    text = next((tag.attr[THRESHOLD_ATTRIBUTE] for tag in tags if THRESHOLD_ATTRIBUTE in tag.attr), None)
    if text is None:
        return None
    try:
        threshold = float(text)
    except ValueError:
        threshold = -1.0
    if not 0.0 <= threshold <= 1.0:
        raise LabelConfigError(
            "label config",
            expected="model_score_threshold as a number 0..1",
            got=repr(text)[:40],
            remedy='write for example model_score_threshold="0.5"',
        )
    return threshold


def _read_task(tree: Any) -> SegmentationTask | None:
    text = next((tag.attrib[TASK_ATTRIBUTE] for tag in tree.iter() if TASK_ATTRIBUTE in tag.attrib), None)
    if text is None:
        return None
    try:
        return SegmentationTask(text.strip().lower())
    except ValueError as exc:
        raise LabelConfigError(
            "label config",
            expected=f"{TASK_ATTRIBUTE} out of {', '.join(SegmentationTask)}",
            got=repr(text)[:40],
            remedy=f'write for example {TASK_ATTRIBUTE}="instance"',
        ) from exc


def _aliases(labels: Mapping[str, Any]) -> dict[str, str]:
    aliases: dict[str, str] = {}
    for label, tag in labels.items():
        # With alias="..." regions carry the alias, while people and models know the shown value.
        shown = tag.attr.get("value") or ""
        for alias in (shown, *(tag.attr.get("predicted_values") or "").split(",")):
            if alias.strip() and alias.strip() != label:
                aliases.setdefault(alias.strip(), label)
    return aliases


def _bad(expected: str, got: str) -> LabelConfigError:
    return LabelConfigError("label config", expected=expected, got=got, remedy=f"use for example {EXAMPLE}")
