"""Vector regions as Label Studio stores them: vertices in percent, some with Bézier handles.

`controlPoint2` of a vertex leads to the next one and `controlPoint1` comes from the one before, as in the
path that the front end draws. Its order is that of `prevPointId` where the vertices carry it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from maskloop.errors import CodecError
from maskloop.polygons.outlines import Ring
from maskloop.polygons.rings import percent_to_ring, ring_to_percent

__all__ = ["ring_to_vertices", "vector_to_ring"]

MAX_VERTICES = 20_000
STEPS = 32  # of one Bézier curve: off by less than 0.1 % of its length
LONE_HANDLE_SHARE = 0.3  # of a side, where only one of its ends has a handle
MAX_PERCENT = 1e6
Point: TypeAlias = NDArray[np.float64]  # (2,): x, y in percent


def ring_to_vertices(ring: Ring, size_hw: tuple[int, int], *, region_id: str) -> list[dict[str, Any]]:
    """Return `value.vertices` of a closed vector without curves.

    Args:
        ring: (N, 2) of x, y in pixels of the image.
        size_hw: the image's height and width.
        region_id: what the vertices' ids begin with.
    """
    return [
        {
            "id": f"{region_id}-p{index}",
            "x": x,
            "y": y,
            "prevPointId": f"{region_id}-p{index - 1}" if index else None,
            "isBezier": False,
        }
        for index, (x, y) in enumerate(ring_to_percent(ring, size_hw))
    ]


def vector_to_ring(value: Mapping[str, Any], size_hw: tuple[int, int], *, place: str) -> Ring:
    """Return a closed vector region as a ring (N, 2), x and y in pixels, its curves as short lines.

    Args:
        value: the region's `value`: vertices with x, y and handles in percent, and `closed`.
        size_hw: the image's height and width.
        place: what an error names.

    Raises:
        CodecError: open, branched, fewer vertices than an area needs, or not of finite numbers.

    Source:
        https://labelstud.io/tags/vectorlabels
    """
    vertices = value.get("vertices")
    if not isinstance(vertices, list) or not 2 <= len(vertices) <= MAX_VERTICES:
        got = f"{len(vertices)} vertices" if isinstance(vertices, list) else type(vertices).__name__
        raise _broken(place, f"2 to {MAX_VERTICES} vertices", got)
    if value.get("closed") is not True:
        raise CodecError(
            place,
            expected="a closed vector",
            got="an open one, which has no area",
            remedy='close it (closable="true" on the control), or draw the object with another tool',
        )
    ordered = _in_order([_to_vertex(vertex, place) for vertex in vertices], place)
    points: list[list[float]] = []
    for start, end in zip(ordered, [*ordered[1:], ordered[0]], strict=True):
        points.extend(_side(start, end, place))
    return percent_to_ring(points, size_hw, place=place)


def _to_vertex(vertex: object, place: str) -> Mapping[str, Any]:
    if isinstance(vertex, list | tuple) and len(vertex) == 2:
        return {"x": vertex[0], "y": vertex[1]}
    if not isinstance(vertex, Mapping):
        raise _broken(place, "vertices with x and y", type(vertex).__name__)
    return vertex


def _in_order(vertices: Sequence[Mapping[str, Any]], place: str) -> list[Mapping[str, Any]]:
    """Return the vertices along the path that `prevPointId` describes, else as they stand."""
    previous = [vertex.get("prevPointId") for vertex in vertices]
    if not any(isinstance(name, str) for name in previous):
        return list(vertices)
    ids = [str(vertex.get("id")) for vertex in vertices]
    after = {str(name): index for index, name in enumerate(previous) if name is not None}
    if len(set(ids)) < len(ids) or len(after) < sum(name is not None for name in previous):
        raise _broken(place, "one path of vertices", "a branched one (a skeleton)")
    starts = [index for index, name in enumerate(previous) if name is None or str(name) not in ids]
    at: int | None = starts[0] if starts else 0
    order: list[int] = []
    while at is not None and len(order) < len(ids) and at not in order[:1]:
        order.append(at)
        at = after.get(ids[at])
    if len(order) < len(ids):
        raise _broken(place, "one path of vertices", "several paths")
    return [vertices[index] for index in order]


def _side(start: Mapping[str, Any], end: Mapping[str, Any], place: str) -> list[list[float]]:
    """Return the points from one vertex to the next, without the last."""
    a, d = _point(start, place), _point(end, place)
    leaving = _handle(start, "controlPoint2", place)
    coming = _handle(end, "controlPoint1", place)
    if leaving is None and coming is None:
        return [a.tolist()]
    b = a + (d - a) * LONE_HANDLE_SHARE if leaving is None else leaving
    c = d - (d - a) * LONE_HANDLE_SHARE if coming is None else coming
    t = np.linspace(0.0, 1.0, STEPS, endpoint=False)[:, None]
    curve = (1 - t) ** 3 * a + 3 * (1 - t) ** 2 * t * b + 3 * (1 - t) * t**2 * c + t**3 * d
    points: list[list[float]] = curve.tolist()
    return points


def _handle(vertex: Mapping[str, Any], key: str, place: str) -> Point | None:
    handle = vertex.get(key)
    if not vertex.get("isBezier") or handle is None:
        return None
    if not isinstance(handle, Mapping):
        raise _broken(place, f"{key} with x and y", type(handle).__name__)
    return _point(handle, place)


def _point(at: Mapping[str, Any], place: str) -> Point:
    numbers = [at.get("x"), at.get("y")]
    for number in numbers:
        if not isinstance(number, int | float) or isinstance(number, bool) or not abs(number) <= MAX_PERCENT:
            raise _broken(
                place, "vertices with finite x and y", f"{type(number).__name__} {str(number)[:20]}"
            )
    return np.array(numbers, dtype=np.float64)


def _broken(place: str, expected: str, got: str) -> CodecError:
    return CodecError(place, expected=expected, got=got, remedy="draw the region again in Label Studio")
