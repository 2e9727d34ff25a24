"""A figure as a file."""

from __future__ import annotations

from matplotlib.figure import Figure

from profiling.frame.plot_style import render


def _figure() -> Figure:
    figure = Figure()
    axes = figure.add_subplot()
    axes.plot([0, 1], [1, 0], marker="o")  # markers and clip paths are what an SVG gives ids
    return figure


def test_the_same_figure_gives_the_same_bytes() -> None:
    for kind in ("svg", "png"):
        assert render(_figure(), kind) == render(_figure(), kind)


def test_an_svg_has_no_date() -> None:
    assert b"<dc:date>" not in render(_figure())
