"""What a label config says about segmentation: its image, its drawing tools, their labels, its task.

Parsed by label-studio-sdk's `LabelInterface`; a config is foreign input, so its size and form are checked
first. Which class of the model goes where is `label_map.py`'s.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from maskloop.errors import LabelConfigError
from maskloop.types import SegmentationTask
from maskloop_studio.formats.controls import Control, ControlKind, LabelConfig
from maskloop_studio.formats.label_map import ControlPreference, LabelMap, LabelTarget, map_labels

__all__ = [
    "Control",
    "ControlKind",
    "ControlPreference",
    "LabelConfig",
    "LabelMap",
    "LabelTarget",
    "map_labels",
    "parse_label_config",
]

MAX_CONFIG_CHARS = 2**20
TASK_ATTRIBUTE, THRESHOLD_ATTRIBUTE = "maskloop_task", "model_score_threshold"
FIELD_PATTERN = re.compile(r"\$(\w+)\Z")
KINDS: tuple[ControlKind, ...] = ("brush", "polygon", "rectangle", "ellipse", "keypoint")
KIND_OF_TAG: Mapping[str, ControlKind] = {f"{kind}labels": kind for kind in KINDS}
KIND_OF_BARE_TAG: Mapping[str, ControlKind] = {kind: kind for kind in KINDS}
EXAMPLE = (
    '<View><Image name="image" value="$image"/><BrushLabels name="brush" toName="image">'
    '<Label value="Car"/></BrushLabels></View>'
)


def parse_label_config(xml: str) -> LabelConfig:
    """Return what a label config says about segmentation.

    Read are `<BrushLabels>`, `<PolygonLabels>`, `<RectangleLabels>`, `<EllipseLabels>` and
    `<KeyPointLabels>`, and `<Brush>`, `<Polygon>`, `<Rectangle>`, `<Ellipse>` and `<KeyPoint>` together with
    each `<Labels>` of the same image. `model_score_threshold="0.5"` on one of them (or on its `<Labels>`) is
    its least score; `maskloop_task="panoptic"` on a `<View>` or a control is the task, the first one counts.

    Args:
        xml: the project's labeling interface, at most 1 MiB.

    Raises:
        LabelConfigError: not XML, or without an `<Image>` and a drawing tool with labels on it, or with a
            threshold or a task that is none.

    Source:
        https://labelstud.io/tags/brushlabels, https://labelstud.io/tags/polygonlabels,
        https://labelstud.io/tags/rectangle, https://labelstud.io/tags/labels
    """
    _refuse_hostile(xml)
    return _parse_known_size(xml)


def _refuse_hostile(xml: str) -> None:
    if not isinstance(xml, str) or not xml.strip():
        raise _bad("XML text", type(xml).__name__ if not isinstance(xml, str) else "nothing")
    if len(xml) > MAX_CONFIG_CHARS:
        raise _bad(f"at most {MAX_CONFIG_CHARS} characters", str(len(xml)))
    # Entities can blow up a small text and read local files; no label config needs them.
    if re.search(r"<!\s*(DOCTYPE|ENTITY)", xml, re.IGNORECASE):
        raise _bad("no DOCTYPE and no entities", "a document type declaration")


@functools.lru_cache(maxsize=64)
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
    controls = tuple(_to_controls(list(interface._controls.values()), images))
    if not controls:
        raise _bad(
            "<BrushLabels> or <PolygonLabels> (or the rectangle, ellipse or key point ones) with labels, "
            "drawing on the <Image>",
            "none",
        )
    image_name = controls[0].to_name
    value = images[image_name].attr.get("value") or ""
    match = FIELD_PATTERN.match(value)
    if match is None:
        raise _bad(f'one field of the task in <Image name="{image_name}" value="$field">', repr(value))
    return LabelConfig(
        image_name=image_name,
        image_field=match[1],
        controls=tuple(control for control in controls if control.to_name == image_name),
        task=_read_task(interface._tree),
    )


def _to_controls(tags: list[Any], images: Mapping[str, Any]) -> Iterator[Control]:
    namings = [tag for tag in tags if tag.tag.lower() == "labels" and tag.labels]
    for tag in tags:
        to_name = _image_of(tag, images)
        if to_name is None:
            continue
        kind = KIND_OF_TAG.get(tag.tag.lower())
        if kind is not None and tag.labels:
            yield _to_control(tag, kind, to_name, tag, None)
        kind = KIND_OF_BARE_TAG.get(tag.tag.lower())
        if kind is not None:
            for naming in namings:
                if _image_of(naming, images) == to_name:
                    yield _to_control(tag, kind, to_name, naming, naming.name)


def _image_of(tag: Any, images: Mapping[str, Any]) -> str | None:
    return next((name.strip() for name in tag.to_name if name.strip() in images), None)


def _to_control(tag: Any, kind: ControlKind, to_name: str, naming: Any, labels_name: str | None) -> Control:
    return Control(
        name=tag.name,
        kind=kind,
        to_name=to_name,
        labels=tuple(naming.labels),
        aliases=MappingProxyType(_aliases(naming.labels_attrs)),
        labels_name=labels_name,
        score_threshold=_read_threshold(tag, naming),
        is_prompt=any(
            str(value).lower() == "true"
            for name, value in tag.attr.items()
            if name.lower() in ("smart", "smartonly")
        ),
    )


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
