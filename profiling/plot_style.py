"""How all plots look."""

from __future__ import annotations

from typing import Any

INK, BLUE, ORANGE, GREEN, GRAY = "#1b1f24", "#1f6feb", "#d9730d", "#2da44e", "#8b949e"
STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GRAY,
    "axes.labelcolor": INK,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": "#d8dee4",
    "svg.hashsalt": "gkt",
}
