"""What a label config says about segmentation: which control, which label, which class of the model.

Parsed by label-studio-sdk's `LabelInterface`; a config is foreign input, so its size and form are checked
first.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

from maskloop.errors import LabelConfigError

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

ControlKind: TypeAlias = Literal["brush", "polygon"]
ControlPreference: TypeAlias = Literal["first", "brush", "polygon", "both"]

MAX_CONFIG_CHARS = 2**20
FIELD_PATTERN = re.compile(r"\$(\w+)\Z")
KIND_OF_TAG: Mapping[str, ControlKind] = {"brushlabels": "brush", "polygonlabels": "polygon"}
EXAMPLE = (
    '<View><Image name="image" value="$image"/><BrushLabels name="brush" toName="image">'
    '<Label value="Car"/></BrushLabels></View>'
)


@dataclass(frozen=True, kw_only=True)
class Control:
    """One `<BrushLabels>` or `<PolygonLabels>`."""

    name: str  # a region's `from_name`
    kind: ControlKind
    to_name: str  # the `<Image>` it draws on
    labels: tuple[str, ...]  # as regions carry them, in the config's order
    aliases: Mapping[str, str] = field(
        default_factory=dict
    )  # `predicted_values` (and a shown value) -> label

    @property
    def region_type(self) -> str:
        """A region's `type`, which is also the key of its labels."""
        return f"{self.kind}labels"


@dataclass(frozen=True, kw_only=True)
class LabelConfig:
    """The segmentation part of a label config."""

    image_name: str  # the `<Image>`'s name, a region's `to_name`
    image_field: str  # the key of a task's `data` that holds the image
    controls: tuple[Control, ...]  # in the config's order, at least one

    @property
    def all_labels(self) -> tuple[str, ...]:
        """Every label once, in the config's order."""
        return tuple(dict.fromkeys(label for control in self.controls for label in control.labels))

    def control(self, name: str) -> Control | None:
        """Return the control of this name, if there is one."""
        return next((control for control in self.controls if control.name == name), None)


@dataclass(frozen=True, kw_only=True)
class LabelTarget:
    """Where one class of the model is drawn."""

    control: Control
    label: str  # as the control spells it


@dataclass(frozen=True, kw_only=True)
class LabelMap:
    """Classes of a model -> where Label Studio shows them."""

    config: LabelConfig
    targets: Mapping[str, tuple[LabelTarget, ...]]  # class -> one target, or one per control
    unmatched_classes: tuple[str, ...] = ()  # of the model, shown nowhere
    unmatched_labels: tuple[str, ...] = ()  # of the config, which the model does not know yet

    def targets_of(self, model_label: str) -> tuple[LabelTarget, ...]:
        """Return where a class is drawn; nothing for a class that the config does not have."""
        return self.targets.get(model_label, ())


def parse_label_config(xml: str) -> LabelConfig:
    """Return what a label config says about segmentation.

    Args:
        xml: the project's labeling interface, at most 1 MiB.

    Raises:
        LabelConfigError: not XML, or without an `<Image>` and a `<BrushLabels>` or `<PolygonLabels>` on it.

    Source:
        https://labelstud.io/tags/brushlabels, https://labelstud.io/tags/polygonlabels
    """
    _refuse_hostile(xml)
    return _parse_known_size(xml)


def map_labels(
    config: LabelConfig, model_labels: Sequence[str], *, prefer: ControlPreference = "first"
) -> LabelMap:
    """Return where each class of a model is drawn.

    A class finds its label by the same name, else by the same name in another case, else by the label's
    `predicted_values`. Where several controls have it, `prefer` decides.

    Args:
        config: the parsed label config.
        model_labels: the model's class names.
        prefer: "first" takes the first control in the config, "brush" or "polygon" the first of that kind
            where there is one, "both" draws the class in every control that has it.

    Raises:
        LabelConfigError: no class of the model has a label.
    """
    targets: dict[str, tuple[LabelTarget, ...]] = {}
    for model_label in model_labels:
        found = _choose(_find_targets(config, model_label), prefer)
        if found:
            targets[model_label] = found
    if not targets:
        raise LabelConfigError(
            "label config",
            expected=f"a label that the model knows ({_shorten(model_labels)})",
            got=_shorten(config.all_labels),
            remedy='rename a label, or add predicted_values="<class of the model>" to a <Label>, '
            "or correct some images by hand so that training teaches the model these labels",
        )
    used = {target.label for found in targets.values() for target in found}
    return LabelMap(
        config=config,
        targets=MappingProxyType(targets),
        unmatched_classes=tuple(label for label in model_labels if label not in targets),
        unmatched_labels=tuple(label for label in config.all_labels if label not in used),
    )


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
    controls = tuple(_to_controls(interface._controls.values(), images))
    if not controls:
        raise _bad("<BrushLabels> or <PolygonLabels> with labels, drawing on the <Image>", "none")
    image_name = controls[0].to_name
    value = images[image_name].attr.get("value") or ""
    match = FIELD_PATTERN.match(value)
    if match is None:
        raise _bad(f'one field of the task in <Image name="{image_name}" value="$field">', repr(value))
    return LabelConfig(
        image_name=image_name,
        image_field=match[1],
        controls=tuple(control for control in controls if control.to_name == image_name),
    )


def _to_controls(tags: Any, images: Mapping[str, Any]) -> Iterator[Control]:
    for tag in tags:
        kind = KIND_OF_TAG.get(tag.tag.lower())
        to_name = next((name.strip() for name in tag.to_name if name.strip() in images), None)
        if kind is None or to_name is None or not tag.labels:
            continue
        yield Control(
            name=tag.name,
            kind=kind,
            to_name=to_name,
            labels=tuple(tag.labels),
            aliases=MappingProxyType(_aliases(tag.labels_attrs)),
        )


def _aliases(labels: Mapping[str, Any]) -> dict[str, str]:
    aliases: dict[str, str] = {}
    for label, tag in labels.items():
        # With alias="..." regions carry the alias, while people and models know the shown value.
        shown = tag.attr.get("value") or ""
        for alias in (shown, *(tag.attr.get("predicted_values") or "").split(",")):
            if alias.strip() and alias.strip() != label:
                aliases.setdefault(alias.strip(), label)
    return aliases


def _find_targets(config: LabelConfig, model_label: str) -> list[LabelTarget]:
    wanted = model_label.strip().casefold()
    exact, folded, aliased = [], [], []
    for control in config.controls:
        by_case = {label.casefold(): label for label in reversed(control.labels)}
        by_alias = {alias.casefold(): label for alias, label in reversed(list(control.aliases.items()))}
        if model_label in control.labels:
            exact.append(LabelTarget(control=control, label=model_label))
        if wanted in by_case:
            folded.append(LabelTarget(control=control, label=by_case[wanted]))
        if wanted in by_alias:
            aliased.append(LabelTarget(control=control, label=by_alias[wanted]))
    return exact or folded or aliased


def _choose(found: list[LabelTarget], prefer: ControlPreference) -> tuple[LabelTarget, ...]:
    if prefer == "both":
        return tuple(found)
    preferred = [target for target in found if target.control.kind == prefer]
    return tuple((preferred or found)[:1])


def _shorten(labels: Sequence[str], limit: int = 12) -> str:
    shown = ", ".join(labels[:limit])
    return f"{shown} and {len(labels) - limit} more" if len(labels) > limit else shown


def _bad(expected: str, got: str) -> LabelConfigError:
    return LabelConfigError("label config", expected=expected, got=got, remedy=f"use for example {EXAMPLE}")
