"""Modelfiles of Ollama: SYSTEM says who the assistant is, MESSAGE gives examples."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from moltlm.data.spec import Turn
from moltlm.data.spec_formats.assistants import Assistant, from_instructions
from moltlm.data.spec_formats.reading import LeftOut, Source, SpecReading

COMMAND = re.compile(
    r"^\s*(FROM|PARAMETER|TEMPLATE|SYSTEM|ADAPTER|LICENSE|MESSAGE|REQUIRES|RENDERER|PARSER)\s+(.*)$", re.IGNORECASE
)


def is_modelfile(text: str) -> bool:
    """Whether a text is a Modelfile of Ollama: its first command is FROM, or it has FROM and SYSTEM."""
    rows = [line for line in text[:20_000].split("\n") if line.strip() and not line.lstrip().startswith("#")]
    commands = [match.group(1).upper() for line in rows if (match := COMMAND.match(line))]
    first = COMMAND.match(rows[0]) if rows else None
    return (
        bool(first)
        and "FROM" in commands
        and bool({"SYSTEM", "PARAMETER", "TEMPLATE", "MESSAGE", "ADAPTER"} & set(commands))
    )


def read(source: Source, text: str) -> SpecReading:
    """Read the SYSTEM and MESSAGE commands of a Modelfile. The others are about the model, and are counted."""
    systems: list[str] = []
    turns: list[Turn] = []
    left_out: LeftOut = Counter()
    for command, value in _commands(text):
        if command == "SYSTEM":
            systems.append(value)
        elif command == "MESSAGE":
            role, _, message = value.partition(" ")
            content = _unquoted(message.strip())
            if role.lower() == "system":
                systems.append(content)
            elif role.lower() in ("user", "assistant") and content:
                turns.append(Turn(role="user" if role.lower() == "user" else "assistant", content=content))
        elif command != "FROM":
            left_out[command] += 1
    if not any(text.strip() for text in systems):
        raise source.bad(
            " is a Modelfile without SYSTEM, so nothing says who the assistant is.", f"Write it: {source.edit()}"
        )
    assistant = Assistant(next(filter(None, reversed(systems)), ""), dialogues=[turns] if turns else [])
    return from_instructions(source, assistant, "Modelfile", left_out)


def _commands(text: str) -> Iterator[tuple[str, str]]:
    """Commands with their values, which three quotes may stretch over lines."""
    lines = iter(text.split("\n"))
    for line in lines:
        match = COMMAND.match(line)
        if not match:
            continue
        value = match.group(2).strip()
        before, quotes, rest = value.partition('"""')
        if quotes and '"""' not in rest:
            rows = [rest]
            for more in lines:
                row, ended, _ = more.partition('"""')
                rows.append(row)
                if ended:
                    break
            value = before + "\n".join(rows)
        elif quotes:
            value = before + rest.partition('"""')[0]
        elif value[:1] == '"' and not value[1:].endswith('"'):
            rows = [value]
            for more in lines:
                rows.append(more)
                if more.rstrip().endswith('"'):
                    break
            value = "\n".join(rows)
        yield match.group(1).upper(), _unquoted(value.strip())


def _unquoted(value: str) -> str:
    value = value.strip().removeprefix('"""').removesuffix('"""').strip()
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] == '"' else value
