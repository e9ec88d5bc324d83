"""A label config and one task's data -> the task's images and its dynamic labels.

Expressions are resolved as Label Studio's front end does (`parseValue` and lodash's `get`).
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType

from maskloop.errors import LabelConfigError
from maskloop_studio.formats.controls import Control, ImageTag, LabelConfig, TaskImage

__all__ = ["config_for_task", "resolve_expression", "task_images"]

VARIABLE_PATTERN = re.compile(r"\$[\w\[\].{}]+", re.ASCII)
KEY_PATTERN = re.compile(r"[^.\[\]]+")
MAX_PAGES = 1000  # of one task
MAX_DYNAMIC_LABELS = 10_000
MAX_ADDRESS_CHARS = 100_000_000  # a data URL holds the image itself


def task_images(config: LabelConfig, data: Mapping[str, object], *, place: str) -> tuple[TaskImage, ...]:
    """Return the images of a task that a control draws on, one for each page of a `valueList`.

    Args:
        config: the parsed label config.
        data: the task's `data`.
        place: what an error names, such as "task 42".

    Raises:
        LabelConfigError: the data gives no address for one of the images, or too many.

    Source:
        https://labelstud.io/tags/image
    """
    return tuple(found for image in config.drawn_images for found in _images_of(image, data, place))


def config_for_task(config: LabelConfig, data: Mapping[str, object]) -> LabelConfig:
    """Return the config with the labels that this task's data adds (`<BrushLabels value="$options">`).

    Args:
        config: the parsed label config; given back as it is where all its labels stand in it.
        data: the task's `data`; a list of labels, each a text or `{"value": ...}` (also with "alias").

    Raises:
        LabelConfigError: the data gives no list of labels.

    Source:
        https://labelstud.io/guide/labeling_config: dynamic labels
    """
    if not config.is_dynamic:
        return config
    return dataclasses.replace(
        config, controls=tuple(_with_dynamic_labels(control, data) for control in config.controls)
    )


def resolve_expression(expression: str, data: Mapping[str, object]) -> object | None:
    """Return what an expression such as "$image", "$pages[0].url" or "/files/$name" stands for.

    None where the data lacks a part of it.
    """
    # A key of this very name comes first: "$image-url" is one key to people, and so is "$payload.image".
    if expression.startswith("$") and expression[1:] in data:
        return data[expression[1:]]
    variables = VARIABLE_PATTERN.findall(expression)
    if variables == [expression]:
        return _look_up(expression[1:], data)
    values = [_look_up(variable[1:], data) for variable in variables]
    if not all(isinstance(value, str | int | float) for value in values):
        return None
    if sum(len(value) for value in values if isinstance(value, str)) > MAX_ADDRESS_CHARS:
        return None
    parts = iter(values)
    return VARIABLE_PATTERN.sub(lambda _: str(next(parts)), expression)


def _look_up(path: str, data: Mapping[str, object]) -> object | None:
    if path in data:
        return data[path]
    found: object = data
    for key in KEY_PATTERN.findall(path):
        if isinstance(found, Mapping):
            found = found.get(key)
        elif isinstance(found, list | tuple) and key.isdecimal() and len(key) < 9 and int(key) < len(found):
            found = found[int(key)]
        else:
            return None
    return found


def _images_of(image: ImageTag, data: Mapping[str, object], place: str) -> Iterator[TaskImage]:
    value = resolve_expression(image.expression, data)
    addresses = list(value) if isinstance(value, list | tuple) else [value]
    # Label Studio shows the first of a list that `value` names.
    wanted = addresses if image.is_list else addresses[:1]
    good = [address for address in wanted if isinstance(address, str) and address.strip()]
    if not wanted or len(good) != len(wanted) or len(wanted) > MAX_PAGES:
        attribute = "valueList" if image.is_list else "value"
        raise LabelConfigError(
            f"{place}, <Image name={image.name[:64]!r}>",
            expected=f"an image address in {attribute}={image.expression[:100]!r}"
            + (f" for each of at most {MAX_PAGES} pages" if image.is_list else ""),
            got=_describe(value, data, image.expression),
            remedy="check the label config's <Image> against the keys of the task's data "
            f"({', '.join(sorted(str(key) for key in data))[:200] or 'none'})",
        )
    for index, address in enumerate(good):
        yield TaskImage(to_name=image.name, item_index=index if image.is_list else None, address=address)


def _describe(value: object, data: Mapping[str, object], expression: str) -> str:
    if isinstance(value, list | tuple):
        return f"a list of {len(value)} values, not all of them addresses" if value else "an empty list"
    if value is None:
        return "no such value"
    return "an empty text" if isinstance(value, str) else type(value).__name__


def _with_dynamic_labels(control: Control, data: Mapping[str, object]) -> Control:
    if control.labels_expression is None:
        return control
    value = resolve_expression(control.labels_expression, data)
    if not isinstance(value, list | tuple) or len(value) > MAX_DYNAMIC_LABELS:
        raise LabelConfigError(
            f"label config, <{control.region_type} name={control.name[:64]!r}>",
            expected=f"a list of at most {MAX_DYNAMIC_LABELS} labels in value={control.labels_expression!r}",
            got="no such value" if value is None else type(value).__name__,
            remedy='give each task such a list, for example [{"value": "Car"}], or write <Label>s instead',
        )
    labels, aliases = list(control.labels), dict(control.aliases)
    for item in value:
        shown = item.get("value") if isinstance(item, Mapping) else item
        alias = item.get("alias") if isinstance(item, Mapping) else None
        # With an alias, regions carry the alias and people see the value.
        label = alias if isinstance(alias, str) and alias else shown
        if isinstance(label, str) and label:
            labels.append(label)
            if isinstance(shown, str) and shown != label:
                aliases.setdefault(shown, label)
    return dataclasses.replace(
        control,
        labels=tuple(dict.fromkeys(labels)),
        aliases=MappingProxyType(aliases),
        labels_expression=None,
    )
