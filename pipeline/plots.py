"""Plots as inline SVG, each point with its interval. Deterministic: the same numbers give the same text."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt

COLOURS = ("#3b5b92", "#c0562f", "#4f8a5b", "#8a5fa8", "#a8873a", "#5a9aa8")
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "molting",
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#8a8a8a",
    "text.color": "#6f6f6f",
    "axes.labelcolor": "#6f6f6f",
    "xtick.color": "#6f6f6f",
    "ytick.color": "#6f6f6f",
}


@dataclass(frozen=True)
class Point:
    """A value with its interval; infinite bounds are drawn as none."""

    label: str
    mean: float
    low: float
    high: float
    group: int = 0


def forest(
    title: str, points: Sequence[Point], unit: str, lines: Sequence[float] = (), groups: Sequence[str] = ()
) -> str:
    """One row a point, top to bottom in the given order; `lines` are vertical references (0, a margin)."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(7, 0.9 + 0.34 * len(points)))
        for row, point in enumerate(points):
            _interval(axes, point, len(points) - 1 - row)
        for line in lines:
            axes.axvline(line, color="#9a9a9a", linewidth=1, linestyle="--" if line else "-")
        axes.set_yticks(range(len(points)), [point.label for point in reversed(points)])
        axes.set_xlabel(unit)
        _legend(axes, groups)
        return _svg(figure, title)


def curves(title: str, series: Sequence[tuple[str, Sequence[tuple[float, float]]]], x: str, y: str) -> str:
    """A line for each named series of (x, y); series of one name share a colour."""
    names = list(dict.fromkeys(name for name, _ in series))
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(7, 3.2))
        for name, values in series:
            colour = COLOURS[names.index(name) % len(COLOURS)]
            axes.plot([a for a, _ in values], [b for _, b in values], color=colour, linewidth=1.5, marker=".")
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        _legend(axes, names)
        return _svg(figure, title)


def _interval(axes: Any, point: Point, height: int) -> None:
    colour = COLOURS[point.group % len(COLOURS)]
    if math.isfinite(point.low) and math.isfinite(point.high):
        axes.plot([point.low, point.high], [height, height], color=colour, linewidth=2, solid_capstyle="butt")
    if math.isfinite(point.mean):
        axes.plot([point.mean], [height], "o", color=colour, markersize=5)


def _legend(axes: Any, names: Sequence[str]) -> None:
    if len(names) > 1:
        handles = [plt.Line2D([], [], color=COLOURS[i % len(COLOURS)], marker="o") for i in range(len(names))]
        axes.legend(handles, names, frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1.0, 0.5))


def _svg(figure: Any, title: str) -> str:
    out = io.StringIO()
    figure.savefig(out, format="svg", bbox_inches="tight", transparent=True, metadata={"Date": None, "Creator": None})
    plt.close(figure)
    text = out.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    return text.replace("<svg", f'<svg role="img" aria-label="{escape(title)}"', 1)
