"""Plots as SVG: well formed, one line and one band per curve, the same file for the same numbers."""

import builtins
from xml.etree import ElementTree

import pytest

from maskloop.errors import DependencyError
from maskloop.lab.simulation.plot import Curve, Panel, curves_svg, panels_svg


def make_curve(mean, *, name="hybrid", x=None):
    return Curve(
        name=name,
        colour="#123456",
        x=tuple(x or range(1, len(mean) + 1)),
        mean=tuple(mean),
        low=tuple(value - 0.1 for value in mean),
        high=tuple(value + 0.1 for value in mean),
    )


def element_ids(svg, kind):
    return [
        one.attrib["id"] for one in ElementTree.fromstring(svg).iter() if one.get("id", "").startswith(kind)
    ]


def texts(svg):
    return [one.text for one in ElementTree.fromstring(svg).iter() if one.tag.endswith("}text")]


@pytest.mark.parametrize(
    "means",
    [[(0.2, 0.4, 0.5)], [(0.2, 0.4), (0.1, 0.9)], [(0.0,)], [(0.5, 0.5)]],
    ids=["one", "two", "a point", "flat"],
)
def test_curves_svg_case_has_a_line_and_a_band_per_curve(means):
    curves = [make_curve(mean, name=f"a & b {number}") for number, mean in enumerate(means)]
    svg = curves_svg(curves, title="x < y", x_title="labels", marks=[("all", 0.95)])
    assert element_ids(svg, "line a") == [f"line {curve.name}" for curve in curves]
    assert element_ids(svg, "band a") == [f"band {curve.name}" for curve in curves]
    assert {"x < y", "labels", "all", *(curve.name for curve in curves)} <= set(texts(svg))


def test_curves_svg_higher_value_is_drawn_higher():
    svg = curves_svg([make_curve((0.2, 0.8))], title="t", x_title="x")
    (line,) = [one for one in ElementTree.fromstring(svg).iter() if one.get("id") == "line hybrid"]
    numbers = line[0].attrib["d"].replace("M", "").replace("L", "").split()
    (first_x, first_y), (last_x, last_y) = zip(
        map(float, numbers[::2]), map(float, numbers[1::2]), strict=True
    )
    assert first_x < last_x
    assert first_y > last_y  # SVG counts from the top


def test_curves_svg_same_numbers_same_file():
    first, again = (curves_svg([make_curve((0.1, 0.2))], title="t", x_title="x") for _ in range(2))
    assert first == again
    assert "<dc:date>" not in first


def test_panels_svg_grid_has_one_legend():
    panel = Panel(curves=(make_curve((0.1, 0.4), x=(4, 16)),), title="PQ", row_title="nuclei", log_x=True)
    svg = panels_svg([[panel, panel], [panel, Panel(curves=())]], x_title="images")
    assert len(element_ids(svg, "line hybrid")) == 3
    assert texts(svg).count("hybrid") == 1
    assert texts(svg).count("16") == 3


def test_panels_svg_even_ticks_do_not_name_each_point():
    curve = make_curve((0.1, 0.4), x=(4.321, 16.789))
    named, even = (
        panels_svg([[Panel(curves=(curve,), ticks_at_points=at_points)]], x_title="objects")
        for at_points in (True, False)
    )
    assert "4.321" in texts(named)
    assert "4.321" not in texts(even)


def test_panels_svg_without_rows_is_an_empty_page():
    assert "images" in texts(panels_svg([], x_title="images"))


def test_curves_svg_without_matplotlib_raises(monkeypatch):
    real_import = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name.partition(".")[0] == "matplotlib":
            raise ImportError(name)
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(DependencyError, match=r"pip install 'maskloop\[plots\]'"):
        curves_svg([make_curve((0.1,))], title="t", x_title="x")
