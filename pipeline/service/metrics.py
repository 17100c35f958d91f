"""Metrics of the cycles in the text format of Prometheus, as its textfile collector reads them."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from pathlib import Path

from moltlm.data.io import write_text
from moltlm.pipeline.config import Config
from moltlm.pipeline.service import bundles, cycles
from moltlm.pipeline.service.registry import Registry

OUTCOMES = (cycles.PROMOTED, cycles.NOT_PROMOTED, cycles.NOTHING_NEW, cycles.FAILED)
Sample = tuple[str, dict[str, str], float]


def write(file: Path, config: Config) -> None:
    """Rewrite the file from the records of a run and its registry, atomically."""
    write_text(file, text(samples(config)))


def samples(config: Config) -> list[Sample]:
    """Name, labels and value of each metric. Times are seconds since 1970, differences points of 100."""
    records, registry = cycles.read(config.run.folder), Registry(config.registry.folder)
    counts = Counter(cycle.outcome for cycle in records)
    rows: list[Sample] = [("molt_cycles_total", {"outcome": each}, counts[each]) for each in OUTCOMES]
    if records:
        last = records[-1]
        began, ended = _seconds(last.began), _seconds(last.ended)
        rows += [("molt_last_cycle_outcome", {"outcome": each}, each == last.outcome) for each in OUTCOMES]
        rows += [("molt_last_cycle_end_seconds", {}, ended), ("molt_last_cycle_duration_seconds", {}, ended - began)]
        rows += [("molt_last_cycle_new_exchanges", {}, last.new_exchanges)]
        rows += [("molt_last_cycle_set_aside_exchanges", {}, sum(last.set_aside.values()))]
        rows += [("molt_last_cycle_passed_over_files", {}, len(last.passed_over))]
    judged = next((cycle for cycle in reversed(records) if cycle.checks), None)
    for name, figures in judged.checks.items() if judged else ():
        keys = ("difference", "low", "margin")
        rows += [(f"molt_gate_{key}_points", {"check": name}, getattr(figures, key)) for key in keys]
    for cycle in [each for each in records if each.persona is not None][-1:]:
        rows += [("molt_persona_score", {}, cycle.persona or 0.0)]
    if change := bundles.since(registry.history()):
        rows += [("molt_in_use_since_seconds", {}, _seconds(change.time))]
    rows += [("molt_registry_entries", {}, len(registry.entries()[0]))]
    return rows


def text(rows: list[Sample]) -> str:
    """The samples as Prometheus reads them."""
    lines, names = [], list(dict.fromkeys(name for name, _, _ in rows))
    for name in names:
        lines.append(f"# TYPE {name} {'counter' if name.endswith('_total') else 'gauge'}")
        for labels, value in ((labels, value) for other, labels, value in rows if other == name):
            inside = ",".join(f'{key}="{_escaped(label)}"' for key, label in labels.items())
            lines.append(f"{name}{f'{{{inside}}}' if inside else ''} {float(value):.10g}")
    return "\n".join(lines) + "\n"


def _escaped(label: str) -> str:
    return label.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _seconds(time: str) -> float:
    return datetime.fromisoformat(time).timestamp()
