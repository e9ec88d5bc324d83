"""A `result` -> its regions of one image, the labels beside them, and the answers of other controls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from maskloop_studio.formats.annotation_content import RegionRefusal
from maskloop_studio.formats.controls import GEOMETRY_KINDS, ControlKind, LabelConfig, TaskImage

__all__ = ["GEOMETRY_TYPES", "DrawnItem", "ResultItems", "kind_of_region", "kind_of_type", "sort_items"]

KIND_OF_TYPE: Mapping[str, ControlKind] = {
    **{f"{kind}{ending}": kind for kind in GEOMETRY_KINDS for ending in ("", "labels")},
    "magicwand": "brush",
}
GEOMETRY_TYPES = frozenset(KIND_OF_TYPE)
# Types of answers that mark nothing in an image: those of all other controls of Label Studio 1.23.
OTHER_TYPES = frozenset(
    (
        *("choices", "textarea", "rating", "number", "datetime", "taxonomy", "pairwise", "ranker", "list"),
        *("relation", "relations", "chatmessage", "hypertextlabels", "paragraphlabels", "timeserieslabels"),
        *("timelinelabels", "videorectangle", "videovector", "videovectorlabels"),
    )
)
# The front end finds a region's form by the keys of its value; the first that fits counts.
KIND_OF_KEYS: tuple[tuple[frozenset[str], ControlKind], ...] = (
    (frozenset({"rle"}), "brush"),
    (frozenset({"imageDataURL"}), "bitmask"),
    (frozenset({"points"}), "polygon"),
    (frozenset({"vertices"}), "vector"),
    (frozenset({"radiusX", "radiusY"}), "ellipse"),
    (frozenset({"x", "y", "width", "height"}), "rectangle"),
    (frozenset({"x", "y", "width"}), "keypoint"),
)


@dataclass(frozen=True, kw_only=True, eq=False)
class DrawnItem:
    """One item of a `result` that was drawn on the image."""

    region: Mapping[str, Any]
    index: int  # its position in the `result`
    place: str
    kind: ControlKind
    known_type: bool  # false where only the keys of its value tell the form


@dataclass(frozen=True, kw_only=True, eq=False)
class ResultItems:
    """A `result`, sorted for one image."""

    mappings: tuple[Mapping[str, Any], ...]  # all items that are mappings
    drawn: tuple[DrawnItem, ...]
    refusals: Mapping[int, RegionRefusal]  # position -> why it is no region that can be read
    labels_of: Mapping[str, Sequence[tuple[object, object]]]  # region id -> (`from_name`, labels) beside it


def sort_items(
    result: Sequence[Any], config: LabelConfig, *, image: TaskImage | None, place: str
) -> ResultItems:
    """Return what of a `result` belongs to one image.

    Args:
        result: the annotation's items.
        config: the project's label config.
        image: the image; None for the first one that a control draws on (its first page).
        place: what refusals name.
    """
    mappings = tuple(item for item in result if isinstance(item, Mapping))
    shaped = {
        str(item["id"])
        for item in mappings
        if kind_of_type(item.get("type")) is not None and item.get("id") is not None
    }
    drawn: list[DrawnItem] = []
    refusals: dict[int, RegionRefusal] = {}
    for index, item in enumerate(result):
        where = f"{place}, region {_id_of(item, index)}"
        if not isinstance(item, Mapping):
            refusals[index] = _refuse(item, index, where, "an item with a type", type(item).__name__)
            continue
        item_type = item.get("type")
        if isinstance(item_type, str) and item_type in OTHER_TYPES:
            continue
        here = _is_here(item, config, image)
        if here is False:
            continue
        kind_of_its_type = kind_of_type(item_type)
        kind = _kind_of_value(item.get("value")) or kind_of_its_type
        if kind_of_its_type is None and str(item.get("id")) in shaped:
            continue  # it names, or adds an answer to, a region that has an item of its own
        if item_type == "labels" and kind is None:
            continue  # of a text
        if here is None:
            names = ", ".join(tag.name for tag in config.images)
            refusals[index] = _refuse(
                item,
                index,
                where,
                f"a to_name and item_index of the label config ({names})"[:300],
                _target_of(item),
            )
        elif kind is None:
            refusals[index] = _refuse(item, index, where, "a known type of region", str(item_type)[:64])
        else:
            known_type = kind_of_its_type is not None or item_type == "labels"
            drawn.append(DrawnItem(region=item, index=index, place=where, kind=kind, known_type=known_type))
    return ResultItems(
        mappings=mappings, drawn=tuple(drawn), refusals=refusals, labels_of=_collect_labels(mappings)
    )


def kind_of_type(region_type: object) -> ControlKind | None:
    """Return the form that regions of this `type` have; None for other types."""
    return KIND_OF_TYPE.get(region_type) if isinstance(region_type, str) else None


def kind_of_region(region: Mapping[str, Any]) -> ControlKind | None:
    """Return the form of a region: by the keys of its value, else by its `type`; None where it has none."""
    return _kind_of_value(region.get("value")) or kind_of_type(region.get("type"))


def _kind_of_value(value: object) -> ControlKind | None:
    if not isinstance(value, Mapping):
        return None
    return next((kind for keys, kind in KIND_OF_KEYS if keys <= value.keys()), None)


def _is_here(item: Mapping[str, Any], config: LabelConfig, image: TaskImage | None) -> bool | None:
    """Return whether an item is about the image; None where that cannot be known."""
    name = item.get("to_name")
    if name is None:
        # Label Studio always writes it; imports may leave it out where one image alone can be meant.
        control = config.control(str(item.get("from_name")))
        names = control.to_names if control is not None else tuple(tag.name for tag in config.images)
        name = names[0] if len(names) == 1 else None
    if isinstance(name, str) and name in config.other_objects:
        return False
    tag = next((tag for tag in config.images if tag.name == name), None)
    if tag is None:
        return None
    if tag.name != (image.to_name if image is not None else config.image_name):
        return False
    value = item.get("value")
    page = item.get("item_index", value.get("item_index") if isinstance(value, Mapping) else None)
    page = 0 if page is None else page
    if not isinstance(page, int) or isinstance(page, bool) or page < 0 or (page > 0 and not tag.is_list):
        return None
    return page == ((image.item_index if image is not None else None) or 0)


def _target_of(item: Mapping[str, Any]) -> str:
    return f"{str(item.get('to_name'))[:64]}, item {str(item.get('item_index'))[:20]}"


def _id_of(item: object, index: int) -> str:
    return str(item.get("id", index) if isinstance(item, Mapping) else index)[:64]


def _refuse(item: object, index: int, where: str, expected: str, got: str) -> RegionRefusal:
    return RegionRefusal(
        place=where,
        expected=expected,
        got=got,
        remedy="draw the region again with a tool of the label config, or delete it",
        region_type=str(item.get("type") if isinstance(item, Mapping) else type(item).__name__)[:64],
        region_id=_id_of(item, index),
        area_known=False,
    )


def _collect_labels(items: Sequence[Mapping[str, Any]]) -> Mapping[str, Sequence[tuple[object, object]]]:
    """Return region id -> (`from_name`, labels) of each `labels` item with this id."""
    collected: dict[str, list[tuple[object, object]]] = {}
    for item in items:
        value = item.get("value")
        if item.get("type") == "labels" and isinstance(value, Mapping):
            collected.setdefault(str(item.get("id")), []).append((item.get("from_name"), value.get("labels")))
    return collected
