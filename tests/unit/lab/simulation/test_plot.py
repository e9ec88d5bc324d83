"""Curves as SVG: well formed, one line and one band each, whatever the numbers."""

from xml.etree import ElementTree

import pytest

from maskloop.lab.simulation.plot import Curve, curves_svg, draw_panel


def make_curve(mean, *, name="hybrid", x=None):
    return Curve(
        name=name,
        colour="#123456",
        x=tuple(x or range(1, len(mean) + 1)),
        mean=tuple(mean),
        low=tuple(value - 0.1 for value in mean),
        high=tuple(value + 0.1 for value in mean),
    )


@pytest.mark.parametrize(
    "means",
    [[(0.2, 0.4, 0.5)], [(0.2, 0.4), (0.1, 0.9)], [(0.0,)], [(0.5, 0.5)]],
    ids=["one", "two", "a point", "flat"],
)
def test_curves_svg_case_draws_each_curve_inside_the_page(means):
    curves = [make_curve(mean, name=f"a & b {place}") for place, mean in enumerate(means)]
    drawn = ElementTree.fromstring(curves_svg(curves, title="x < y", x_title="labels", marks=[("all", 0.95)]))
    kinds = [element.tag.rsplit("}")[-1] for element in drawn.iter()]
    assert (kinds.count("polyline"), kinds.count("polygon")) == (len(means), len(means))
    assert kinds.count("circle") == sum(len(mean) for mean in means)
    height = float(drawn.attrib["height"])
    assert all(0 < float(element.attrib.get("cy", 1)) < height for element in drawn.iter())


def test_curves_svg_same_numbers_same_file():
    first, again = (curves_svg([make_curve((0.1, 0.2))], title="t", x_title="x") for _ in range(2))
    assert first == again


def test_draw_panel_without_curves_is_empty():
    assert draw_panel([], corner_xy=(0, 0)) == []
