"""Constitutions: traits with questions, as a list of texts or of rows, of one persona or of several."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

from moltlm.data.spec import Spec, traits_from
from moltlm.data.spec_formats.reading import LeftOut, Source, SpecReading, count_fields, text_of

TRAIT_KEYS = ("trait", "principle", "statement", "text", "description")
QUESTION_KEYS = ("questions", "additional_questions")


def trait_of(row: Any) -> str:
    """The trait in a row; "" if it has none. A `description` is one only beside a name or questions of a trait."""
    if isinstance(row, str):
        return row.strip()
    if isinstance(row, dict):
        for key in TRAIT_KEYS[:4]:
            if isinstance(row.get(key), str) and row[key].strip():
                return row[key].strip()
    return ""


def is_document(record: dict[str, Any]) -> bool:
    """Whether an object holds a list of traits and perhaps a name."""
    return any(
        isinstance(record.get(key), list) and any(map(_row, record[key]))
        for key in ("traits", "principles", "constitution")
    )


def read_document(source: Source, record: dict[str, Any]) -> SpecReading:
    """Read an object with a list of traits beside a name, a summary, values and boundaries."""
    key = next(key for key in ("traits", "principles", "constitution") if isinstance(record.get(key), list))
    stated_name = text_of(record.get("name") or record.get("persona"))
    reading = read(
        source,
        [row if trait_of(row) else {"trait": _row(row), **row} if isinstance(row, dict) else "" for row in record[key]],
        stated_name,
    )
    parts = {name: text_of(record.get(name)) for name in ("system_prompt", "description", "summary")}
    spec = reading.spec.model_copy(
        update={
            "summary": (parts["summary"] or parts["description"])[:300],
            "system_prompt": parts["system_prompt"]
            or "\n\n".join(filter(None, [reading.spec.system_prompt, parts["description"]])),
            **{
                name: text_of(record[name]).split("\n")
                for name in ("voice", "values", "boundaries")
                if text_of(record.get(name))
            },
        }
    )
    count_fields(record, {key, "name", "persona", *parts, "voice", "values", "boundaries"}, reading.left_out)
    return replace(reading, spec=spec)


def _row(row: Any) -> str:
    """A trait of a document: also a row with a name and a description."""
    if text := trait_of(row):
        return text
    if isinstance(row, dict) and (text := text_of(row.get("description"))):
        name = text_of(row.get("name"))
        return f"{name}: {text}" if name else text
    return ""


def read(source: Source, rows: list[Any], stated_name: str = "") -> SpecReading:
    """Read rows of traits; `source.name` chooses one of several personas, or names one without a name.

    Args:
        stated_name: the name that the file gives beside the rows.

    Raises:
        BadInput: if there is no trait, or several personas and none is chosen.
    """
    labelled = [(text_of(row.get("persona")) if isinstance(row, dict) else "", row) for row in rows if trait_of(row)]
    names = list(dict.fromkeys(persona for persona, _ in labelled))
    if not labelled:
        raise source.bad(" holds no traits.", 'Write rows such as {"trait": "I ...", "questions": ["..."]}.')
    if len(names) > 1:
        if source.name not in names:
            raise source.bad(f" holds {len(names)} personas.", f"Choose one with --name: {', '.join(names)}.")
        labelled = [(persona, row) for persona, row in labelled if persona == source.name]
    left_out: LeftOut = Counter({"row without a trait": sum(not trait_of(row) for row in rows)})
    name = source.name or labelled[0][0] or stated_name or source.path.stem
    traits = traits_from([trait_of(row) for _, row in labelled], [_questions(row) for _, row in labelled])
    lines = "\n".join(f"- {trait.text}" for trait in traits)
    prompt = f"You are {name}, an assistant of this character:\n{lines}"
    spec = Spec(name=name, system_prompt=prompt, traits=traits)
    return SpecReading(spec, "constitution", +left_out, (labelled[0][0] or stated_name,))


def _questions(row: Any) -> list[str]:
    lists = [row.get(key) for key in QUESTION_KEYS] if isinstance(row, dict) else []
    questions = [text.strip() for part in lists if isinstance(part, list) for text in part if isinstance(text, str)]
    return [text for text in dict.fromkeys(questions) if text]
