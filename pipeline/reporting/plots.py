"""Inline SVG figures, each value with its interval. The same numbers give the same text, byte for byte.

All are small and of one width, so that a page can set them side by side and a phone can show one at full size.
Colours are CSS variables with a fallback: the page decides about light and dark.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("svg")
import matplotlib.pyplot as plt
from matplotlib.ticker import MaxNLocator

INK, SOFT, GRID, PAPER = "#23252a", "#5f646d", "#d9d6cf", "#fdfdfd"
SERIES = ("#666b73", "#3b5b92", "#b04a24", "#2a7766", "#7a5299", "#86671a", "#277389")
"""The base is grey, the personality blue; tasks take the others in turn."""
VARIABLES = {INK: "ink", SOFT: "soft", GRID: "grid", PAPER: "card"} | {hex_: f"s{i}" for i, hex_ in enumerate(SERIES)}
WIDTH, MARGIN, ROW = 3.4, 0.14, 0.36  # inches
DROP = 0.22  # of a row, from its middle down to the interval
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "axes.unicode_minus": True,
    "font.family": "sans-serif",
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GRID,
    "axes.labelcolor": SOFT,
    "text.color": INK,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.major.size": 2,
    "ytick.major.size": 2,
}


@dataclass(frozen=True)
class Row:
    """A value with its interval. An unknown interval is drawn dotted over the whole width; `seeds` are drawn below."""

    label: str
    mean: float
    low: float
    high: float
    colour: str = INK
    hollow: bool = False
    seeds: tuple[float, ...] = ()


@dataclass(frozen=True)
class Series:
    """A line; the points numbered in `crossed` get a cross."""

    name: str
    points: Sequence[tuple[float, float]]
    colour: str
    crossed: Sequence[int] = ()


def forest(
    title: str,
    rows: Sequence[Row],
    unit: str,
    lines: Mapping[float, str] | None = None,
    span: tuple[float, float] | None = None,
    digits: int = 0,
) -> str:
    """Draw one row a value, its label above its interval.

    Args:
        lines: vertical references (0, a margin) with their names.
        span: of the axis; by default from the smallest to the largest value.
        digits: of the printed values.
    """
    lines = lines or {}
    low, high = span or span_of(rows, list(lines))
    named = any(lines.values())
    height = ROW * len(rows) + 0.5 + (0.14 if named else 0)
    with plt.rc_context(STYLE):
        figure = plt.figure(figsize=(WIDTH, height))
        box = (MARGIN / WIDTH, 0.4 / height, 1 - 2 * MARGIN / WIDTH, ROW * len(rows) / height)
        axes = figure.add_axes(box, xlim=(low, high), ylim=(-0.5, len(rows) - 0.5))
        for x, name in lines.items():
            heights = np.arange(len(rows))
            dashes = (0, (2.5, 1.5)) if name else "solid"
            axes.vlines([x] * len(rows), heights - 0.5, heights, SOFT, dashes, linewidth=0.8, zorder=1)
            axes.annotate(
                name, (x, len(rows) - 0.5), textcoords="offset points", xytext=(0, 2), ha="center", color=SOFT
            )
        for i, row in enumerate(rows):
            _draw(axes, row, len(rows) - 1 - i, digits)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.set_xlabel(unit, fontsize=7.5)
        values = "; ".join(f"{row.label} {_with_interval(row, digits)}" for row in rows)
        return svg(figure, title, f"{title}, {unit}: {values}")


def curves(title: str, series: Sequence[Series], x: str, y: str, marks: Sequence[float] = ()) -> str:
    """Draw a line for each series; those of one name share a colour and a place in the legend. `marks` are dotted
    vertical lines."""
    names = {line.name: line.colour for line in series}
    legend = math.ceil(len(names) / 2) * 0.17 if len(names) > 1 else 0.0
    height = 2.4 + legend
    with plt.rc_context(STYLE):
        figure = plt.figure(figsize=(WIDTH, height))
        axes = figure.add_axes((0.36 / WIDTH, 0.4 / height, 1 - 0.5 / WIDTH, 1.8 / height))
        axes.grid(axis="y", color=GRID, linewidth=0.6)
        for line in series:
            at, values = zip(*line.points, strict=True) if line.points else ((), ())
            axes.plot(at, values, color=line.colour, linewidth=1.2, marker="o", markersize=2.2 if len(at) < 20 else 0)
            if line.crossed:
                axes.plot(at, values, "x", color=line.colour, markersize=6, markevery=list(line.crossed))
        for mark in marks:
            axes.axvline(mark, color=SOFT, linewidth=0.8, linestyle=":", zorder=1)
        axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.set_xlabel(x, fontsize=7.5)
        axes.annotate(y, (0, 1), xycoords="axes fraction", xytext=(-20, 5), textcoords="offset points", color=SOFT)
        if len(names) > 1:
            handles = [plt.Line2D([], [], color=colour, linewidth=1.5) for colour in names.values()]
            place = {"loc": "lower left", "bbox_to_anchor": (-0.1, 1.08), "ncols": 2}
            axes.legend(handles, list(names), frameon=False, handlelength=1.2, borderpad=0.2, fontsize=8, **place)
        return svg(figure, title, f"{title}: {', '.join(names)}")


def _draw(axes: Any, row: Row, height: int, digits: int) -> None:
    y, left, right = height - DROP, *axes.get_xlim()
    axes.text(left, height + 0.2, row.label, va="center", ha="left")
    axes.text(right, height + 0.2, _value(row.mean, digits), va="center", ha="right", color=row.colour)
    axes.plot([left, right], [y, y], color=GRID, linewidth=0.6, zorder=0)
    if not math.isfinite(row.mean):
        return
    bounded = math.isfinite(row.low) and math.isfinite(row.high)
    ends = [row.low, row.high] if bounded else [left, right]
    axes.plot(ends, [y, y], color=row.colour, linewidth=1.8, linestyle="-" if bounded else ":", solid_capstyle="butt")
    axes.plot(row.seeds, [y - 0.15] * len(row.seeds), "D", color=row.colour, markersize=2, clip_on=False)
    face = PAPER if row.hollow else row.colour
    axes.plot([row.mean], [y], "o", markersize=5, markerfacecolor=face, markeredgecolor=row.colour, clip_on=False)


def span_of(rows: Sequence[Row], lines: Sequence[float]) -> tuple[float, float]:
    """From the lowest to the highest finite value, with some air."""
    values = [value for row in rows for value in (row.mean, row.low, row.high, *row.seeds) if math.isfinite(value)]
    low, high = min([*values, *lines], default=0.0), max([*values, *lines], default=1.0)
    air = 0.06 * ((high - low) or 1.0)
    return low - air, high + air


def _value(value: float, digits: int) -> str:
    return f"{value:z.{digits}f}".replace("-", "−") if math.isfinite(value) else "unknown"


def _with_interval(row: Row, digits: int) -> str:
    return f"{_value(row.mean, digits)} ({_value(row.low, digits)} to {_value(row.high, digits)})"


def svg(figure: Any, title: str, description: str) -> str:
    """Text for the body of a page: no prolog, date or page-wide style; ids that no other figure has."""
    out = io.StringIO()
    with plt.rc_context({"svg.hashsalt": title}):
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    plt.close(figure)
    text = out.getvalue()[out.getvalue().index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", text, flags=re.DOTALL)
    text = re.sub(r' (?:width|height)="[\d.]+pt"|font-family: [^;"]*; ?', "", text)
    prefix = re.sub(r"\W+", "-", title.lower())
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}-", text)
    for colour, name in VARIABLES.items():
        text = text.replace(colour, f"var(--{name}, {colour})")
    return text.replace("<svg", f'<svg role="img" aria-label="{escape(description)}"', 1)
