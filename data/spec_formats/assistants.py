"""Assistants that are a name and instructions: OpenAI, custom GPTs, Open WebUI, LobeChat, LM Studio, Jan.

The instructions are read like a SOUL.md.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
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


@dataclass(frozen=True)
class Assistant:
    """What a tool keeps of an assistant."""

    instructions: str
    name: str = ""
    summary: str = ""
    greetings: list[str] = field(default_factory=list)
    dialogues: list[list[Turn]] = field(default_factory=list)


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
    paths = (layout.instructions, layout.name, layout.summary, layout.greeting)
    instructions, name, summary, greeting = (text_of(_at(record, path)) if path else "" for path in paths)
    assistant = Assistant(instructions, name or text_of(record.get("name")), summary, [greeting] if greeting else [])
    return from_instructions(source, assistant, layout.format, _other_fields(record, paths))


def _other_fields(record: dict[str, Any], paths: tuple[Keys, ...]) -> LeftOut:
    """The fields that are not read: those of the record, and those of the objects in it that hold what is read."""
    left_out: LeftOut = Counter()
    count_fields(record, {*(path[0] for path in paths if path), "name", "object", "id", "created_at"}, left_out)
    for parents in {path[:-1] for path in paths if len(path) > 1}:
        holder = _at(record, parents)
        read_fields = {path[len(parents)] for path in paths if path[: len(parents)] == parents}
        count_fields(holder if isinstance(holder, dict) else {}, read_fields, left_out)
    return left_out


def _at(record: Any, path: Keys) -> Any:
    for key in path:
        record = record.get(key) if isinstance(record, dict) else None
    return record


def _flat(record: dict[str, Any]) -> dict[str, Any]:
    """The record with LM Studio's list of settings (`llm.prediction.systemPrompt`) as one field."""
    fields = _at(record, ("operation", "fields"))
    for each in fields if isinstance(fields, list) else []:
        if (
            isinstance(each, dict)
            and str(each.get("key", "")).endswith("systemPrompt")
            and isinstance(each.get("value"), str)
        ):
            return {"name": record.get("name"), "systemPrompt": each["value"]}
    return record


def from_instructions(source: Source, assistant: Assistant, format: str, left_out: LeftOut) -> SpecReading:
    """Make a spec of a name and instructions in prose or Markdown.

    Raises:
        BadInput: if there are no instructions, or nobody is named.
    """
    text = assistant.instructions
    if not text.strip():
        raise source.bad(f" is an assistant ({format}) without instructions.", f"Write them: {source.edit()}")
    name = source.name or assistant.name or markdown.name_in(text)
    if not name:
        raise source.nameless()
    cast = Cast(name, wording.detect(text), left_out)
    plain = macros.instruction(text, cast)
    reading = markdown.read(replace(source, name=name), {source.path.name: plain})
    openings = [f"Opens a conversation like this: {macros.answer(each, cast)}" for each in assistant.greetings]
    update = {
        "summary": assistant.summary[:300] or reading.spec.summary,
        "voice": unique([*reading.spec.voice, *openings]),
        "dialogues": [*reading.spec.dialogues, *assistant.dialogues],
    }
    spec = reading.spec.model_copy(update=update)
    return SpecReading(spec, format, +(left_out + reading.left_out), (assistant.name, *reading.names))
