"""Classes of a model -> the controls and labels of a label config that draw them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeAlias

from maskloop.errors import LabelConfigError
from maskloop_studio.formats.controls import GEOMETRY_KINDS, MASK_KINDS, Control, LabelConfig

__all__ = ["ControlPreference", "LabelMap", "LabelTarget", "map_labels", "tool_targets"]

ControlPreference: TypeAlias = str  # "first", "both", a kind such as "brush", or a control's name


@dataclass(frozen=True, kw_only=True)
class LabelTarget:
    """Where one class of the model is drawn."""

    control: Control
    label: str  # as the control spells it
    image_name: str | None = None  # the `<Image>`; None: the first one that the control draws on

    @property
    def to_name(self) -> str:
        """The `<Image>` that it is drawn on."""
        return self.image_name or self.control.to_name


@dataclass(frozen=True, kw_only=True)
class LabelMap:
    """Classes of a model -> where Label Studio shows them."""

    config: LabelConfig
    targets: Mapping[str, tuple[LabelTarget, ...]]  # class -> for each image one target, or one per control
    unmatched_classes: tuple[str, ...] = ()  # of the model, shown nowhere
    unmatched_labels: tuple[str, ...] = ()  # of the config, which the model has no class for yet

    def targets_of(self, model_label: str, *, image_name: str | None = None) -> tuple[LabelTarget, ...]:
        """Return where a class is drawn on one image; nothing for a class that has no label there.

        Args:
            model_label: the class.
            image_name: the `<Image>`; None for the first one that a control draws on.
        """
        wanted = image_name or self.config.image_name
        return tuple(target for target in self.targets.get(model_label, ()) if target.to_name == wanted)

    def score_thresholds(self) -> dict[str, float]:
        """Return class of the model -> the `model_score_threshold` of the control that draws it, 0..1.

        Without the classes whose controls name none; of several controls the lowest one counts.
        """
        named = {
            label: [t.control.score_threshold for t in found if t.control.score_threshold is not None]
            for label, found in self.targets.items()
        }
        return {label: min(thresholds) for label, thresholds in named.items() if thresholds}


def map_labels(
    config: LabelConfig, model_labels: Sequence[str], *, prefer: ControlPreference = "first"
) -> LabelMap:
    """Return where each class of a model is drawn.

    A class finds its label by the same name, else by the same name in another case, else by the label's
    `predicted_values`. So things may go to one control and stuff to another: each class goes to the control
    that has its label. Where several controls of one image have it, `prefer` decides, for each image.

    Args:
        config: the parsed label config.
        model_labels: the model's class names.
        prefer: which control wins. "first": the first brush, bitmask, polygon or vector in the config, else
            the first control of all; a kind, such as "brush" or "rectangle": the first of that kind; the
            name of a control or of its `<Labels>`: that one; "both": every control that has the class,
            without those that are `smart` prompts. Where no such control has it, it is drawn as with "first".

    Raises:
        LabelConfigError: no class of the model has a label, and no labels come with the tasks.
    """
    targets: dict[str, tuple[LabelTarget, ...]] = {}
    names = [_Names.of(control) for control in config.controls]  # once, not for each class
    for model_label in model_labels:
        found = tuple(
            target
            for image in config.drawn_images
            for target in _choose(_find_targets(names, model_label, image.name), prefer)
        )
        if found:
            targets[model_label] = found
    # Labels that come with each task are not known here.
    if not targets and not config.is_dynamic:
        raise LabelConfigError(
            "label config",
            expected=f"a label out of the model's classes ({_shorten(model_labels)})",
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


def tool_targets(
    config: LabelConfig, label: str, *, image_name: str, prefer: ControlPreference = "first"
) -> tuple[LabelTarget, ...]:
    """Return where a label that a person chose is drawn: as `map_labels` would draw a class of this name.

    Args:
        config: the parsed label config.
        label: as the tool spells it; no class of the model needs to have it.
        image_name: the `<Image>`.
        prefer: which control wins, as for `map_labels`.

    Raises:
        LabelConfigError: no control of this image has the label.
    """
    found = _choose(
        _find_targets([_Names.of(control) for control in config.controls], label, image_name), prefer
    )
    if not found:
        raise LabelConfigError(
            "label of the tool",
            expected=f"one of {_shorten(config.all_labels)}",
            got=repr(label)[:80],
            remedy="open the task again: the label config was changed meanwhile",
        )
    return found


@dataclass(frozen=True, kw_only=True)
class _Names:
    """How the labels of a control may be called."""

    control: Control
    exact: frozenset[str]
    by_case: Mapping[str, str]
    by_alias: Mapping[str, str]

    @classmethod
    def of(cls, control: Control) -> _Names:
        return cls(
            control=control,
            exact=frozenset(control.labels),
            by_case={label.casefold(): label for label in reversed(control.labels)},
            by_alias={alias.casefold(): label for alias, label in reversed(list(control.aliases.items()))},
        )


def _find_targets(names: Sequence[_Names], model_label: str, image_name: str) -> list[LabelTarget]:
    wanted = model_label.strip().casefold()
    exact, folded, aliased = [], [], []
    for one in names:
        control = one.control
        if image_name not in control.to_names:
            continue
        if model_label in one.exact:
            exact.append(LabelTarget(control=control, label=model_label, image_name=image_name))
        if wanted in one.by_case:
            folded.append(LabelTarget(control=control, label=one.by_case[wanted], image_name=image_name))
        if wanted in one.by_alias:
            aliased.append(LabelTarget(control=control, label=one.by_alias[wanted], image_name=image_name))
    return exact or folded or aliased


def _choose(found: list[LabelTarget], prefer: ControlPreference) -> tuple[LabelTarget, ...]:
    # A box or a point that only prompts the model is no place to draw its answer.
    drawing = [
        target for target in found if target.control.kind in MASK_KINDS or not target.control.is_prompt
    ]
    if prefer == "both":
        return tuple(drawing or found[:1])
    if prefer in GEOMETRY_KINDS:
        preferred = [target for target in found if target.control.kind == prefer]
    else:
        preferred = [t for t in found if prefer in (t.control.name, t.control.labels_name)]
    masks = [target for target in found if target.control.kind in MASK_KINDS]
    return tuple((preferred or masks or drawing or found)[:1])


def _shorten(labels: Sequence[str], limit: int = 12) -> str:
    shown = ", ".join(labels[:limit])
    return f"{shown} and {len(labels) - limit} more" if len(labels) > limit else shown
