"""The ranking of methods by the likelihood of right answers as a table, with the bounds beside them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeGuard, get_args

import numpy as np

from moltlm.evals.stats import Estimate
from moltlm.pipeline.studies import bounds as bound_rows
from moltlm.pipeline.studies import methods, ranking
from moltlm.pipeline.studies.bounds import Bound, BoundRow
from moltlm.pipeline.studies.methods import MethodMeans, MethodRow
from moltlm.pipeline.studies.ranking import MARGIN, Ranked

HEAD = (
    "place", "method", "seeds", "likelihood", "over {reference} (95%)", "learned", "learned over alone", "backward",
    "forward, zero-shot", "forgetting", "F1", "exact", "persona kept", "capability",
)  # fmt: skip
NAMES: dict[Bound, str] = {"alone": "each task alone", "joint": "all tasks at once"}


def table(rows: Sequence[MethodRow], reference: str, bounds: Sequence[BoundRow] = ()) -> list[str]:
    """Lines of Markdown: the methods whose likelihood was measured, best first, then the bounds and the personality
    before any task, and how to read it. Nothing where it was not measured."""
    ranked = ranking.ranking(rows, reference)
    if not ranked:
        return []
    means = {row.method: row for row in methods.means(rows, reference)}
    head = [cell.format(reference=reference) for cell in HEAD]
    lines = [_line(head), "|---" * len(head) + "|"]
    for each in ranked:
        rows_of_it = [row for row in rows if row.method == each.method]
        lines.append(_method(each, means[each.method], bound_rows.gap(rows_of_it, bounds).likelihood))
    lines += [_bound(bound, bounds) for bound in get_args(Bound) if any(row.bound == bound for row in bounds)]
    return [*_nothing_to_protect(rows, reference, bounds), *lines, _before(rows), "", _explained(rows, ranked), ""]


def _nothing_to_protect(rows: Sequence[MethodRow], reference: str, bounds: Sequence[BoundRow]) -> list[str]:
    """A sentence where the reference ends where training on all tasks at once does, with the same seeds (protocol:
    methods)."""
    together = {row.seed: bound_rows.final([row], "joint") for row in bounds if row.bound == "joint"}
    plain = {row.seed: row.likelihood.final for row in rows if row.method == reference and row.likelihood is not None}
    gaps = [value - plain[seed] for seed, value in together.items() if seed in plain and value is not None]
    if not gaps or not float(np.mean(gaps)) < MARGIN:
        return []
    return [
        f"There is nothing to protect here: {reference} ends less than {MARGIN} nats a token below training on all "
        "tasks at once, so the places say nothing.",
        "",
    ]


def _method(each: Ranked, mean: MethodMeans, over_alone: float | None) -> str:
    transfer = mean.likelihood
    assert transfer is not None  # or it would not be ranked
    parts = [str(each.place or ""), each.method, str(each.seeds), nats(each.final), interval(each.gain)]
    parts += [nats(transfer.learned), signed(over_alone), signed(transfer.backward), signed(transfer.forward)]
    parts += [signed(transfer.forgetting), points(mean.f1.final if mean.f1 else None), points(mean.final)]
    return _line([*parts, points(mean.persona_kept), f"{mean.capability:+z.1f}"])


def _bound(bound: Bound, bounds: Sequence[BoundRow]) -> str:
    rows = [row for row in bounds if row.bound == bound]
    f1 = [value for row in rows for value in row.f1 if value is not None]
    exact = float(np.mean([row.exact for row in rows]))
    cells = ["", f"*{NAMES[bound]}*", str(len(rows)), nats(bound_rows.final(bounds, bound)), *[""] * 6]
    return _line([*cells, points(float(np.mean(f1)) if f1 else None), points(exact), "", ""])


def _before(rows: Sequence[MethodRow]) -> str:
    measured = [row for row in rows if row.likelihood is not None]
    before = float(np.mean([row.likelihood.before for row in measured if row.likelihood is not None]))
    f1 = [row.f1.before for row in measured if row.f1 is not None]
    exact = float(np.mean([row.before for row in measured]))
    cells = ["", "*personality, before any task*", "", nats(before), *[""] * 6]
    return _line([*cells, points(float(np.mean(f1)) if f1 else None), points(exact), "", ""])


def _explained(rows: Sequence[MethodRow], ranked: Sequence[Ranked]) -> str:
    seeds = max(each.seeds for each in ranked)
    orders = {tuple(row.tasks) for row in rows if row.likelihood is not None}
    counted = f"{seeds} seed{'s' if seeds > 1 else ''} at most, {len(orders)} order{'s' if len(orders) > 1 else ''}"
    unplaced = [each.method for each in ranked if each.place is None]
    unsure = f" Without a place, since it takes two seeds in common: {', '.join(unplaced)}." if unplaced else ""
    gaps = any(value is None for row in rows for k, scores in enumerate(row.accuracy) for value in scores[:k])
    counted += ". Forgetting is from the scores right before and after a task's own training" if gaps else ""
    return (
        "Likelihood, learned, backward, forward and forgetting: mean log-likelihood of the right answers in nats a "
        "token, and its differences. Higher is better but for forgetting. F1, exact match and persona kept are in "
        "points of 100. "
        f"The rank is by likelihood after the last task. A method is better than another if it is by {MARGIN} nats a "
        "token at least with the same seeds, and the 95% interval of that over the seeds (Student's) lies above 0. The "
        f"place is one more than the number of methods that are better, so ties share a place. {counted}.{unsure}"
    )


def interval(gain: Estimate | None) -> str:
    """A difference with its bounds, if there are any."""
    if gain is None:
        return ""
    return signed(gain.mean) + (f" ({signed(gain.low)} to {signed(gain.high)})" if np.isfinite(gain.low) else "")


def nats(value: float | None) -> str:
    return f"{value:.3f}" if _is_known(value) else ""


def signed(value: float | None) -> str:
    return f"{value:+z.3f}" if _is_known(value) else ""


def points(value: float | None) -> str:
    return f"{100 * value:.1f}" if _is_known(value) else ""


def _is_known(value: float | None) -> TypeGuard[float]:
    return value is not None and math.isfinite(value)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
