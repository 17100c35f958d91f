"""Assistants that are a name and instructions: OpenAI, custom GPTs, Open WebUI, LobeChat, LM Studio, Jan.

The instructions are read like a SOUL.md.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from moltlm.data.spec import Turn
from moltlm.data.spec_formats import macros, markdown, wording
from moltlm.data.spec_formats.macros import Cast
from moltlm.data.spec_formats.reading import LeftOut, Source, SpecReading, count_fields, text_of, unique

Keys = tuple[str, ...]


@dataclass(frozen=True)
class Layout:
    """Where a tool keeps the parts of an assistant: paths of keys."""

    format: str
    instructions: Keys
    name: Keys = ("name",)
    summary: Keys = ("description",)
    greeting: Keys = ()


LAYOUTS = (
    Layout("custom GPT", ("gizmo", "instructions"), ("gizmo", "display", "name"), ("gizmo", "display", "description"),
           ("gizmo", "display", "welcome_message")),
    Layout("Open WebUI model", ("params", "system"), summary=("meta", "description")),
    Layout("LobeChat agent", ("config", "systemRole"), ("meta", "title"), ("meta", "description"),
           ("config", "openingMessage")),
    Layout("LobeChat agent", ("systemRole",), ("title",), greeting=("openingMessage",)),
    Layout("HuggingChat assistant", ("preprompt",)),
    Layout("LM Studio preset", ("inference_params", "pre_prompt")),
    Layout("LibreChat preset", ("promptPrefix",), ("title",)),
    Layout("OpenAI assistant", ("instructions",), greeting=("welcome_message",)),
    Layout("assistant", ("systemPrompt",)),
    Layout("assistant", ("system_prompt",)),
    Layout("assistant", ("systemMessage",)),
    Layout("assistant", ("system",)),
    Layout("assistant", ("prompt",)),
)  # fmt: skip
"""Every known layout. A record has the first whose instructions are a text there."""


def layout_of(record: dict[str, Any]) -> Layout | None:
    """The layout of an object that holds instructions; None if it holds none, or a Dify or LM Studio form of them."""
    return next((each for each in LAYOUTS if isinstance(_at(record, each.instructions), str)), None)


def is_assistant(record: dict[str, Any]) -> bool:
    return layout_of(_flat(record)) is not None


def read(source: Source, record: dict[str, Any]) -> SpecReading:
    """Read an assistant. Raises BadInput if its instructions are empty or nobody is named."""
    record = _flat(record)
    layout = layout_of(record)
    assert layout is not None
    instructions = text_of(_at(record, layout.instructions))
    name = text_of(_at(record, layout.name)) or text_of(record.get("name"))
    left_out: LeftOut = Counter()
    top = {path[0] for path in (layout.instructions, layout.name, layout.summary, layout.greeting) if path}
    count_fields(record, {*top, "name", "object", "id", "created_at"}, left_out)
    for path in (layout.instructions, layout.summary):
        holder = _at(record, path[:-1]) if len(path) > 1 else None
        if isinstance(holder, dict):
            count_fields(
                holder, {path[-1], *top, "name", "title", "display", "welcome_message", "openingMessage"}, left_out
            )
    greeting = text_of(_at(record, layout.greeting)) if layout.greeting else ""
    return from_instructions(
        source,
        instructions,
        layout.format,
        name,
        text_of(_at(record, layout.summary)),
        [greeting] if greeting else [],
        left_out=left_out,
    )


def _at(record: Any, path: Keys) -> Any:
    for key in path:
        record = record.get(key) if isinstance(record, dict) else None
    return record


def _flat(record: dict[str, Any]) -> dict[str, Any]:
    """The record with LM Studio's list of settings (`llm.prediction.systemPrompt`) as one field."""
    fields = _at(record, ("operation", "fields"))
    for field in fields if isinstance(fields, list) else []:
        if (
            isinstance(field, dict)
            and str(field.get("key", "")).endswith("systemPrompt")
            and isinstance(field.get("value"), str)
        ):
            return {"name": record.get("name"), "systemPrompt": field["value"]}
    return record


def from_instructions(
    source: Source,
    text: str,
    format: str,
    name: str = "",
    summary: str = "",
    greetings: list[str] | None = None,
    dialogues: list[list[Turn]] | None = None,
    left_out: LeftOut | None = None,
) -> SpecReading:
    """Make a spec of a name and instructions in prose or Markdown.

    Raises:
        BadInput: if there are no instructions, or nobody is named.
    """
    if not text.strip():
        raise source.bad(f" is an assistant ({format}) without instructions.", f"Write them: {source.edit()}")
    counts: LeftOut = left_out if left_out is not None else Counter()
    named = source.name or name or markdown.name_in(text)
    if not named:
        raise source.nameless()
    cast = Cast(named, wording.detect(text), counts)
    reading = markdown.read(
        Source(source.path, named, source.folder), {source.path.name: macros.instruction(text, cast)}
    )
    openings = [f"Opens a conversation like this: {macros.answer(each, cast)}" for each in greetings or []]
    update = {
        "summary": summary[:300] or reading.spec.summary,
        "voice": unique([*reading.spec.voice, *openings]),
        "dialogues": [*reading.spec.dialogues, *(dialogues or [])],
    }
    return SpecReading(
        reading.spec.model_copy(update=update), format, +(counts + reading.left_out), (name, *reading.names)
    )
