"""The comparison of methods as a table, a sentence and a figure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from moltlm.data.io import write_text
from moltlm.pipeline.reporting import plots, ranking
from moltlm.pipeline.studies import bounds as bound_rows
from moltlm.pipeline.studies import methods
from moltlm.pipeline.studies.bounds import BoundRow
from moltlm.pipeline.studies.methods import ACCURACY_SHARE, CAPABILITY_COST, PERSONA_KEPT, MethodMeans, MethodRow
from moltlm.pipeline.typed_json import write_document

HEAD = (
    "method", "layout", "seeds", "final", "learned", "backward", "forward", "forgetting", "persona kept", "coherent",
    "capability", "KL", "seconds", "GiB",
)  # fmt: skip
SEED_HEAD = ("method", "seed", "final", "learned", "forgetting", "persona kept", "coherent", "capability (95%)")
LABEL, LETTER, LINE, REACH = 6.5, 0.55, 8.0, 48.0
"""Points: the size of a label, a letter's mean width as a share of it, a line's height, and how far up or down from its
point a label may lie."""


def write(folder: Path, rows: Sequence[MethodRow], reference: str, bounds: Sequence[BoundRow] = ()) -> list[Path]:
    """Write methods.json, methods.md and methods.svg into a folder, with bounds.json where there are bounds, and return
    their paths."""
    data, text, figure = (folder / f"methods.{ending}" for ending in ("json", "md", "svg"))
    files = [text, figure, data]
    write_document(data, list(rows))
    write_text(text, table(rows, reference, bounds))
    write_text(figure, plot(rows, bounds))
    if bounds:
        files.append(folder / bound_rows.FILE)
        write_document(files[-1], list(bounds))
    return files


def table(rows: Sequence[MethodRow], reference: str, bounds: Sequence[BoundRow] = ()) -> str:
    """Markdown: the ranking by likelihood where it was measured; then a row for each method, best first, accuracies in
    points of 100; what an oracle router would gain; which methods meet all demands; and each seed of the methods that
    have several."""
    means = methods.means(rows, reference)
    order = [*methods.best(means, len(means), reference), reference]
    if any(row.method == reference for row in means):
        means.sort(key=lambda row: order.index(row.method))
    lines = [*ranking.table(rows, reference, bounds), _line(HEAD), _rule(HEAD), *map(_row, means), ""]
    return "\n".join([*lines, *_oracle(means), verdict(means, reference), *_seeds(rows, means)]) + "\n"


def verdict(means: Sequence[MethodMeans], reference: str) -> str:
    """Which methods meet all demands, in sentences."""
    result = methods.verdict(means, reference)
    if result.reference == "not run":
        return f"Nothing to compare with yet: {reference} has not been run."
    if result.reference == "learned nothing":
        return f"{reference} learned nothing, so no method can be given as a share of it."
    demands = (
        f"keep {PERSONA_KEPT:.0%} of the personality's gain, lose at most {CAPABILITY_COST:g} point of capability and "
        f"reach {ACCURACY_SHARE:.0%} of the final accuracy of {reference} with the same seeds"
    )
    names = ", ".join(row.method for row in result.passing) or "none"
    text = f"Methods that {demands}, by these means: {names}."
    shares = [(row.method, row.share_of_learned) for row in result.passing if row.share_of_learned is not None]
    listed = ", ".join(f"{name} {share:.0%}" for name, share in shares)
    later = f" Share of what {reference} had learned before it forgot that they reach: {listed}."
    return text + later if shares else text


def _oracle(means: Sequence[MethodMeans]) -> list[str]:
    gains = [f"{row.method} {100 * (row.oracle - row.final):+z.1f}" for row in means if row.oracle is not None]
    text = "Points that an oracle router, which knows the task of each request, would gain"
    return [f"{text}: {', '.join(gains)}.", ""] if gains else []


def _seeds(rows: Sequence[MethodRow], means: Sequence[MethodMeans]) -> list[str]:
    several = [row.method for row in means if row.seeds > 1]
    lines = [_seed(row) for name in several for row in rows if row.method == name]
    return ["", _line(SEED_HEAD), _rule(SEED_HEAD), *lines] if lines else []


def _seed(row: MethodRow) -> str:
    points = map(_points, (row.final, row.learned, row.forgetting, row.persona_kept, row.coherent))
    difference, low, high = (
        f"{value:+z.1f}" for value in (row.capability.difference, row.capability.low, row.capability.high)
    )
    return _line([row.method, str(row.seed), *points, f"{difference} ({low} to {high})"])


def _row(row: MethodMeans) -> str:
    accuracies = map(_points, (row.final, row.learned, row.backward, row.forward, row.forgetting))
    persona = [_points(row.persona_kept), _points(row.coherent)]
    cost = [f"{row.capability:+z.1f}", f"{row.kl:.2f}", f"{row.seconds:.0f}", f"{row.peak_gib:.1f}"]
    return _line([row.method, row.layout, str(row.seeds), *accuracies, *persona, *cost])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _rule(head: Sequence[str]) -> str:
    return "|---" * len(head) + "|"


def _points(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"


def plot(rows: Sequence[MethodRow], bounds: Sequence[BoundRow] = ()) -> str:
    """SVG: what the last state can do against the share of the personality that is kept, each method a point, its seeds
    faint: by likelihood, with the bounds as lines, or by accuracy where no likelihood was measured."""
    measured = any(row.likelihood is not None for row in rows)
    placed = [row for row in rows if row.persona_kept is not None and measured == (row.likelihood is not None)]
    axis = "likelihood of right answers, nats a token" if measured else "final accuracy, points"
    means = methods.means(placed)
    points = [(*_place(row), row.method) for row in means]
    digits = 2 if measured else 0
    title = "Likelihood of right answers and personality kept" if measured else "Final accuracy and personality kept"
    unit = "nats a token" if measured else "accuracy in points"
    with plt.rc_context(plots.STYLE):
        figure = plt.figure(figsize=(plots.WIDTH * 1.6, 4.6))
        axes = figure.add_axes((0.09, 0.09, 0.88, 0.86))
        axes.grid(color=plots.GRID, linewidth=0.6)
        for number, (x, y, name) in enumerate(points):
            colour = plots.SERIES[1 + number % (len(plots.SERIES) - 1)]
            seeds = [_place(row) for row in placed if row.method == name]
            if len(seeds) > 1:
                axes.plot(*zip(*seeds, strict=True), "o", color=colour, markersize=2, alpha=0.5)
            axes.plot(x, y, "o", color=colour, markersize=4)
        for bound, name in ranking.NAMES.items():
            if measured and (at := bound_rows.final(bounds, bound)) is not None:
                axes.axvline(at, color=plots.SOFT, linewidth=0.6, linestyle="--" if bound == "joint" else ":")
                axes.text(
                    at, 1.0, name, transform=axes.get_xaxis_transform(), fontsize=LABEL, color=plots.SOFT, va="bottom"
                )
        _label(axes, points)
        axes.set_xlabel(axis, fontsize=7.5)
        axes.set_ylabel("personality kept, %", fontsize=7.5)
        values = "; ".join(f"{name} {x:.{digits}f}, {y:.0f}" for x, y, name in points)
        return plots.svg(figure, title, f"{title}, {unit} and % kept: {values}")


def _place(row: MethodRow | MethodMeans) -> tuple[float, float]:
    final = 100 * row.final if row.likelihood is None else row.likelihood.final
    return final, 100 * (row.persona_kept or 0.0)


def _label(axes: Any, points: Sequence[tuple[float, float, str]]) -> None:
    """Write each name beside its point."""
    axes.autoscale_view()
    scale = 72 / axes.figure.dpi
    dots = axes.transData.transform([(x, y) for x, y, _ in points]) * scale
    frame = axes.bbox.extents * scale
    widths = [LETTER * LABEL * len(text) for _, _, text in points]
    for (x, y, text), dot, spot, width in zip(points, dots, spots(dots, widths, frame), widths, strict=True):
        right, up = spot - dot
        offset, side = (right, "left") if right > 0 else (right + width, "right")
        line = {"arrowstyle": "-", "color": plots.SOFT, "linewidth": 0.4, "shrinkA": 0, "shrinkB": 2}
        axes.annotate(
            text, (x, y), (offset, up), textcoords="offset points", ha=side, va="center", fontsize=LABEL,
            color=plots.INK, arrowprops=line if abs(up) > LINE / 2 else None,
        )  # fmt: skip


def spots(dots: np.ndarray, widths: Sequence[float], frame: np.ndarray) -> np.ndarray:
    """Where to put the labels of some dots: right or left of each, as near as possible without covering another dot or
    label or leaving the frame.

    Args:
        dots: (n, 2).
        widths: of the labels.
        frame: left, bottom, right, top.

    Returns:
        (n, 2): the middle of each label's left edge.
    """
    taken = [np.array([x - 3, y - 3, x + 3, y + 3]) for x, y in dots]
    chosen, ups = [], sorted(np.arange(-REACH, REACH + 1, 2), key=abs)
    for (x, y), width in zip(dots, widths, strict=True):
        candidates = [(left, y + up) for up in ups for left in (x + 4, x - 4 - width)]
        boxes = [np.array([left, middle - LINE / 2, left + width, middle + LINE / 2]) for left, middle in candidates]
        area = width * LINE
        covered = [area - _overlap(box, frame) + sum(_overlap(box, other) for other in taken) for box in boxes]
        best = int(np.argmin(np.round(covered, 6)))
        taken.append(boxes[best])
        chosen.append(candidates[best])
    return np.array(chosen)


def _overlap(one: np.ndarray, other: np.ndarray) -> float:
    """The area that two boxes share."""
    low, high = np.maximum(one[:2], other[:2]), np.minimum(one[2:], other[2:])
    return float(np.prod(np.clip(high - low, 0, None)))
