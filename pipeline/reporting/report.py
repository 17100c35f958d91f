"""The report from results.json: one offline page, and its tables as Markdown."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from moltlm.pipeline.reporting import figures, tables, text
from moltlm.pipeline.reporting.results import Results
from moltlm.pipeline.reporting.story import story


def render(results: Results) -> str:
    """The page. It copes with any part being absent, escapes all text that a model wrote, and fetches nothing."""
    drawings = {
        place: {title: Markup(svg) for title, svg in each.items()} for place, each in figures.by_place(results).items()
    }
    config = yaml.safe_dump(results.config, sort_keys=False, allow_unicode=True)
    template = _templates(escaped=True).get_template("report.html.j2")
    paragraph = _with_quiet_intervals(text.minus(story(results)))
    return template.render(**_values(results), plots=drawings, config=config, story=paragraph)


def markdown(results: Results) -> str:
    """The verdicts and tables of the page as Markdown, without what a model wrote."""
    template = _templates(escaped=False).get_template("report.md.j2")
    page = template.render(**_values(results), story=text.minus(story(results)))
    return re.sub(r"\n{3,}", "\n\n", page).strip() + "\n"


@cache
def _templates(escaped: bool) -> Environment:
    environment = Environment(
        loader=PackageLoader("moltlm.pipeline.reporting", ""),
        autoescape=escaped,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": text.number, "interval": text.interval, "p": text.p_value, "minus": text.minus}
    environment.filters |= {"label": text.state_label, "path": text.path_name, "text": _in_markdown}
    environment.globals |= {
        "comparisons": tables.comparisons,
        "gain_unit": figures.gain_unit,
        "gain_name": figures.gain_name,
    }
    return environment


def _values(results: Results) -> dict[str, Any]:
    """What both templates use."""
    states = results.states
    return {
        "r": results,
        "persona_rows": tables.persona_rows(results),
        "capability_rows": tables.capability_rows(results),
        "drift_rows": tables.by_name((state.name, state.drift) for state in states),
        "trait_rows": tables.by_name((state.name, state.persona.traits) for state in states if state.persona),
        "profile_rows": tables.by_name(results.profile.items()),
        "counts": tables.change_counts(results),
        "standing": tables.standing(results),
        "missing": list(dict.fromkeys(results.missing)),
    }


def _in_markdown(value: Any) -> str:
    """On one line, and neither markup nor the border of a cell."""
    return re.sub(r"([\\|*`\[\]<>]|\b_|_\b)", r"\\\1", " ".join(str(value).split()))


def _with_quiet_intervals(paragraph: str) -> Markup:
    """Escaped, with the intervals in brackets set off, so that a paragraph full of them can be read."""
    return Markup(re.sub(r"\([^()]* to [^()]*\)", r'<span class="ci">\g<0></span>', str(escape(paragraph))))
