"""The comparison of methods as a table, a sentence and a figure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from moltlm.pipeline.reporting import plots

Record = dict[str, Any]
KEEPS, COSTS, LEARNS = 0.95, 1.0, 0.95
"""What a good method does: keeps so much of the personality's gain, costs at most so many points of capability, and
learns so much of what the unprotected one does."""
MEANS = ("final", "told", "learned", "backward", "forward", "forgetting", "persona_kept", "coherent", "kl", "seconds")
HEAD = (
    "method", "layout", "seeds", "final", "learned", "backward", "forward", "forgetting", "persona kept", "coherent",
    "capability", "KL", "seconds", "GiB",
)  # fmt: skip
LABEL, LETTER, LINE, REACH = 6.5, 0.55, 8.0, 48.0
"""Points: the size of a label, a letter's mean width as a share of it, a line's height, and how far up or down from its
point a label may lie."""


def means(records: Sequence[Record], reference: str | None = None) -> list[Record]:
    """A row a method: each measure's mean over its seeds, their number, and with the same seeds the `share` of the
    reference's final accuracy that is reached, and the `share_of_learned`, of what it could do before it forgot any of
    it; None where there is none to compare with."""
    whole = {record["seed"]: record for record in records if record["method"] == reference}
    rows = []
    for name in dict.fromkeys(record["method"] for record in records):
        mine = [record for record in records if record["method"] == name]
        row: Record = {"method": name, "layout": mine[0]["layout"], "seeds": len(mine)}
        for key in MEANS:
            known = [record[key] for record in mine if record[key] is not None]
            row[key] = float(np.mean(known)) if known else None
        row["capability"] = float(np.mean([record["capability"]["difference"] for record in mine]))
        row["peak_gib"] = max(record["peak_gib"] for record in mine)
        paired = [(record, whole[record["seed"]]) for record in mine if record["seed"] in whole]
        reached = sum(record["final"] for record, _ in paired)
        for key, of in (("share", "final"), ("share_of_learned", "learned")):
            most = sum(plain[of] for _, plain in paired)
            row[key] = reached / most if most else None
        rows.append(row)
    return rows


def best(rows: Sequence[Record], n: int, reference: str) -> list[str]:
    """The `n` methods besides the reference that lie best between learning and keeping: by the smaller of the share of
    the personality that is kept and the share of the reference's accuracy that is reached."""
    others = [row for row in rows if row["method"] != reference]
    others.sort(key=lambda row: -min(_known(row["persona_kept"]), _known(row["share"])))
    return [row["method"] for row in others[:n]]


def table(records: Sequence[Record], reference: str) -> str:
    """Markdown: a row a method, best first, accuracies in points of 100; whether one does all that is asked; and seed
    by seed those methods that have several."""
    rows = means(records, reference)
    order = [*best(rows, len(rows), reference), reference] if reference in {row["method"] for row in rows} else []
    rows.sort(key=lambda row: order.index(row["method"]) if order else 0)
    lines = [f"| {' | '.join(HEAD)} |", "|---" * len(HEAD) + "|"]
    told = [*_told(rows), verdict(rows, reference)]
    return "\n".join([*lines, *map(_row, rows), "", *told, *_seeds(records, rows)]) + "\n"


def _told(rows: Sequence[Record]) -> list[str]:
    costs = [f"{row['method']} {100 * (row['told'] - row['final']):+z.1f}" for row in rows if row["told"] is not None]
    return [f"Points gained if told which task each request is: {', '.join(costs)}.", ""] if costs else []


def _seeds(records: Sequence[Record], rows: Sequence[Record]) -> list[str]:
    lines = []
    for name in [row["method"] for row in rows if row["seeds"] > 1]:
        for record in [record for record in records if record["method"] == name]:
            points = [_points(record[key]) for key in ("final", "learned", "forgetting", "persona_kept", "coherent")]
            change = "{difference:+z.1f} ({low:+z.1f} to {high:+z.1f})".format(**record["capability"])
            lines.append(f"| {' | '.join([name, str(record['seed']), *points, change])} |")
    head = "| method | seed | final | learned | forgetting | persona kept | coherent | capability (95%) |"
    return ["", head, "|---" * 8 + "|", *lines] if lines else []


def _row(row: Record) -> str:
    points = [_points(row[key]) for key in ("final", "learned", "backward", "forward", "forgetting")]
    kept = [_points(row["persona_kept"]), _points(row["coherent"]), f"{row['capability']:+z.1f}", f"{row['kl']:.2f}"]
    cost = [f"{row['seconds']:.0f}", f"{row['peak_gib']:.1f}"]
    return f"| {' | '.join([row['method'], row['layout'], str(row['seeds']), *points, *kept, *cost])} |"


def _known(share: float | None) -> float:
    """A share of nothing is unknown, and comes last."""
    return -np.inf if share is None else share


def _points(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"


def verdict(rows: Sequence[Record], reference: str) -> str:
    """What was asked of the best method; nothing can be said without the reference."""
    there = {row["method"]: row for row in rows}
    if reference not in there:
        return f"Nothing to compare with yet: {reference} has not been run."
    if not there[reference]["final"]:
        return f"{reference} learned nothing, so no share of it can be given."
    good = [
        row["method"]
        for row in rows
        if row["method"] != reference
        and _known(row["persona_kept"]) >= KEEPS
        and row["capability"] >= -COSTS
        and _known(row["share"]) >= LEARNS
    ]
    asked = (
        f"keep {KEEPS:.0%} of the personality's gain, lose at most {COSTS:g} point of capability and reach "
        f"{LEARNS:.0%} of the final accuracy of {reference} with the same seeds"
    )
    said = f"{', '.join(good) or 'None'}: {asked}, by these means."
    shares = [(name, there[name]["share_of_learned"]) for name in good]
    learned = ", ".join(f"{name} {share:.0%}" for name, share in shares if share is not None)
    later = f" Of what {reference} had learned before it forgot, they can do at the end: {learned}."
    return said + later if learned else said


def plot(records: Sequence[Record]) -> str:
    """SVG: final accuracy against the share of the personality that is kept, each method a point, its seeds faint."""
    known = [record for record in records if record["persona_kept"] is not None]
    rows = means(known)
    title = "Learning against keeping"
    with plt.rc_context(plots.STYLE):
        figure = plt.figure(figsize=(plots.WIDTH * 1.6, 4.6))
        axes = figure.add_axes((0.09, 0.09, 0.88, 0.86))
        axes.grid(color=plots.GRID, linewidth=0.6)
        for place, row in enumerate(rows):
            colour = plots.SERIES[1 + place % (len(plots.SERIES) - 1)]
            mine = [record for record in known if record["method"] == row["method"]]
            if len(mine) > 1:
                seeds = zip(*((100 * one["final"], 100 * one["persona_kept"]) for one in mine), strict=True)
                axes.plot(*seeds, "o", color=colour, markersize=2, alpha=0.5)
            axes.plot(100 * row["final"], 100 * row["persona_kept"], "o", color=colour, markersize=4)
        _label(axes, [(100 * row["final"], 100 * row["persona_kept"], row["method"]) for row in rows])
        axes.set_xlabel("final accuracy, points", fontsize=7.5)
        axes.set_ylabel("personality kept, %", fontsize=7.5)
        told = "; ".join(f"{row['method']} {100 * row['final']:.0f}, {100 * row['persona_kept']:.0f}" for row in rows)
        return plots.svg(figure, title, f"{title}, accuracy in points and % kept: {told}")


def _label(axes: Any, points: Sequence[tuple[float, float, str]]) -> None:
    axes.autoscale_view()
    scale = 72 / axes.figure.dpi
    dots = axes.transData.transform([(x, y) for x, y, _ in points]) * scale
    frame = axes.bbox.extents * scale
    widths = [LETTER * LABEL * len(text) for _, _, text in points]
    for (x, y, text), dot, spot, width in zip(points, dots, spots(dots, widths, frame), widths, strict=True):
        aside, up = spot - dot
        near, side = (aside, "left") if aside > 0 else (aside + width, "right")
        line = {"arrowstyle": "-", "color": plots.SOFT, "linewidth": 0.4, "shrinkA": 0, "shrinkB": 2}
        axes.annotate(
            text, (x, y), (near, up), textcoords="offset points", ha=side, va="center", fontsize=LABEL, color=plots.INK,
            arrowprops=line if abs(up) > LINE / 2 else None,
        )  # fmt: skip


def spots(dots: np.ndarray, widths: Sequence[float], frame: np.ndarray) -> np.ndarray:
    """(n, 2), for labels of these widths the middle of the left edge: right or left of its dot, as near as it can be
    without covering another dot or label or leaving the frame (left, bottom, right, top)."""
    taken = [np.array([x - 3, y - 3, x + 3, y + 3]) for x, y in dots]
    found, ups = [], sorted(np.arange(-REACH, REACH + 1, 2), key=abs)
    for (x, y), width in zip(dots, widths, strict=True):
        ways = [(left, y + up) for up in ups for left in (x + 4, x - 4 - width)]
        boxes = [np.array([left, middle - LINE / 2, left + width, middle + LINE / 2]) for left, middle in ways]
        area = width * LINE
        covered = [area - _shared(box, frame) + sum(_shared(box, other) for other in taken) for box in boxes]
        least = int(np.argmin(np.round(covered, 6)))
        taken.append(boxes[least])
        found.append(ways[least])
    return np.array(found)


def _shared(one: np.ndarray, other: np.ndarray) -> float:
    """The area that two boxes have in common."""
    low, high = np.maximum(one[:2], other[:2]), np.minimum(one[2:], other[2:])
    return float(np.prod(np.clip(high - low, 0, None)))
