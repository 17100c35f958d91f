"""A page for each cycle: what was learned, what was kept, what was not taken; with a chart of all cycles against the
first personality. It has figures, names of files and commands, and nothing that was said."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from pathlib import Path

from moltlm.data.io import write_text
from moltlm.pipeline.config import Config
from moltlm.pipeline.service import cycles
from moltlm.pipeline.service.cycles import Cycle

FOLDER = "pages"
WIDTH, HEIGHT, EDGE = 640, 180, 30
STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:44rem;margin:2rem auto;padding:0 1rem}"
    "td,th{text-align:left;padding:.1rem .8rem .1rem 0}code{background:#8882}svg{width:100%}"
    ":root{color-scheme:light dark}"
)


def write(config: Config, same: str) -> Path | None:
    """Write the page of the last recorded cycle, unless it has judged nothing and set nothing aside.

    Args:
        same: the arguments that name this run in a command.

    Raises:
        OSError: the page cannot be written.
    """
    records = cycles.read(config.run.folder)
    if not records or not (records[-1].name or records[-1].set_aside):
        return None
    path = config.run.folder / FOLDER / f"{records[-1].began[:19].replace(':', '')}.html"
    write_text(path, page(records, same), private=True)
    return path


def page(records: list[Cycle], same: str) -> str:
    """The HTML of the page of the last of these cycles, of which there is one at least."""
    last = records[-1]
    parts = [
        f"<h1>{escape(last.ended[:10])}: {escape(last.outcome)}</h1>",
        *(f"<p>{escape(last.reason)}</p>" if last.reason else ""),
        "<h2>What I learned</h2>",
        _learned(last),
        "<h2>What I kept</h2>",
        _retained(last, same),
        "<h2>What I would not take</h2>",
        _refused(last, same),
        "<h2>All cycles</h2>",
        chart(records),
    ]
    head = f"<!doctype html><html lang=en><meta charset=utf-8><title>Cycle</title><style>{STYLE}</style>"
    return "\n".join([head, *parts, "</html>"]) + "\n"


def _learned(cycle: Cycle) -> str:
    if not cycle.new_exchanges:
        return "<p>Nothing.</p>"
    verb = "learned" if cycle.outcome == cycles.PROMOTED else "tried, and not learned"
    remedy = f", by the remedy {cycle.remedy}" if cycle.remedy else ""
    return f"<p>{cycle.new_exchanges} exchanges, {verb}{escape(remedy)}.</p>{_table(cycle.sources.items())}"


def _retained(cycle: Cycle, same: str) -> str:
    rows = [
        (name, f"{each.difference:+.1f} points, at worst {each.low:+.1f}; {each.margin:g} may be lost")
        for name, each in cycle.checks.items()
    ]
    rows += list(cycle.tasks.items())
    text = _table(rows) or "<p>What is in use is what was in use before.</p>"
    blame = f"molt blame {cycle.name} {same}"
    if cycle.outcome == cycles.NOT_PROMOTED:
        text += f"<p>The candidate is kept out. Which conversations did it: <code>{escape(blame)}</code></p>"
    return text


def _refused(cycle: Cycle, same: str) -> str:
    rows = [*cycle.set_aside.items(), *cycle.passed_over.items()]
    if not rows:
        return "<p>Nothing was set aside or passed over.</p>"
    look = f"<p>Look, and overrule: <code>{escape(f'molt screen list {same}')}</code></p>" if cycle.set_aside else ""
    return _table(rows) + look


def _table(rows: Iterable[tuple[str, object]]) -> str:
    cells = "".join(f"<tr><td>{escape(str(name))}<td>{escape(str(value))}" for name, value in rows)
    return f"<table>{cells}</table>" if cells else ""


def chart(records: list[Cycle]) -> str:
    """SVG: the persona score of what was in use after each judged cycle, and that of the first personality."""
    judged = [each for each in records if each.persona is not None]
    if not judged:
        return "<p>No cycle has been judged yet.</p>"
    step = (WIDTH - 2 * EDGE) / max(len(judged) - 1, 1)
    xs = [EDGE + place * step for place in range(len(judged))]
    in_use = [(x, _height(each.persona or 0.0)) for x, each in zip(xs, judged, strict=True)]
    first = [(x, _height(each.first)) for x, each in zip(xs, judged, strict=True) if each.first is not None]
    marks = "".join(
        f'<circle cx="{x:.0f}" cy="{y:.0f}" r="4" fill="{"#2a7" if each.outcome == cycles.PROMOTED else "#c43"}">'
        f"<title>{escape(each.ended[:10])}: {escape(each.outcome)}, {each.persona:.2f}</title></circle>"
        for (x, y), each in zip(in_use, judged, strict=True)
    )
    lines = _line(first, "#888", "4 4") + _line(in_use, "#27c", "")
    axis = "".join(
        f'<text x="0" y="{_height(value) + 4:.0f}" font-size="12" fill="currentColor">{value:g}</text>'
        for value in (0, 0.5, 1)
    )
    note = "Persona score of what is in use, 0 to 1; dashed: the first personality. Green: promoted, red: kept out."
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img">{axis}{lines}{marks}</svg><p>{note}</p>'


def _height(score: float) -> float:
    return HEIGHT - EDGE - score * (HEIGHT - 2 * EDGE)


def _line(points: list[tuple[float, float]], colour: str, dashes: str) -> str:
    path = " ".join(f"{x:.0f},{y:.0f}" for x, y in points)
    return f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2" stroke-dasharray="{dashes}"/>'
