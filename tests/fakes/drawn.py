"""Items of a `result` on images 200 wide and 100 high, as Label Studio's editor and its SDK write them."""

import base64
import io
from typing import Any

import numpy as np
from label_studio_sdk.converter import brush as sdk
from PIL import Image

from maskloop.types import BoolMask

__all__ = [
    "SIZE_HW",
    "WHERE",
    "bitmask",
    "box_mask",
    "brush",
    "polygon",
    "vector",
]

SIZE_HW = (100, 200)
WHERE = (30, 20, 90, 60)  # left, top, right, bottom: what is drawn where a test names nothing else
Box = tuple[int, int, int, int]
Item = dict[str, Any]


def box_mask(box: Box = WHERE) -> BoolMask:
    """Return the mask of a box on the whole image."""
    mask_hw: BoolMask = np.zeros(SIZE_HW, dtype=np.bool_)
    left, top, right, bottom = box
    mask_hw[top:bottom, left:right] = True
    return mask_hw


def polygon(box: Box = WHERE, **fields: Any) -> Item:
    """Return a box as `<PolygonLabels name="p">` draws it."""
    value = {"points": _corners(box), "closed": True, "polygonlabels": ["disc"]}
    return _item("p", "polygonlabels", value, fields)


def vector(box: Box = WHERE, *, closed: bool = True, **fields: Any) -> Item:
    """Return a box as `<VectorLabels name="v">` draws it."""
    vertices = [
        {"id": f"v{number}", "x": x, "y": y, "prevPointId": f"v{number - 1}" if number else None}
        for number, (x, y) in enumerate(_corners(box))
    ]
    return _item(
        "v", "vectorlabels", {"vertices": vertices, "closed": closed, "vectorlabels": ["disc"]}, fields
    )


def brush(box: Box = WHERE, *, alpha: int = 255, **fields: Any) -> Item:
    """Return a box as `<BrushLabels name="b">` stores it; an `alpha` of 1 is a mask of 0 and 1."""
    levels = box_mask(box).astype(np.uint8) * np.uint8(alpha)
    rle = sdk.encode_rle(np.repeat(levels.ravel(), 4))
    return _item("b", "brushlabels", {"format": "rle", "rle": rle, "brushlabels": ["disc"]}, fields)


def bitmask(box: Box = WHERE, **fields: Any) -> Item:
    """Return a box as `<BitmaskLabels name="m">` stores it: black on transparent."""
    pixels = np.where(box_mask(box)[..., None], [0, 0, 0, 255], [0, 0, 0, 0]).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels, mode="RGBA").save(file, format="PNG")
    url = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
    return _item("m", "bitmasklabels", {"imageDataURL": url, "bitmasklabels": ["disc"]}, fields)


def _corners(box: Box) -> list[list[float]]:
    height, width = SIZE_HW
    left, top, right, bottom = box
    pairs = ((left, top), (right, top), (right, bottom), (left, bottom))
    return [[x / width * 100, y / height * 100] for x, y in pairs]


def _item(control: str, kind: str, value: Item, fields: Item) -> Item:
    item = {
        "id": "drawn",
        "from_name": control,
        "to_name": "image",
        "type": kind,
        "original_width": SIZE_HW[1],
        "original_height": SIZE_HW[0],
        "image_rotation": 0,
        "origin": "manual",
        "value": value,
    }
    return {name: given for name, given in (item | fields).items() if given is not None}
