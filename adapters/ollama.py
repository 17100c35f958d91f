"""A Modelfile for Ollama, whose Go template renders a conversation as the chat template of the model does."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moltlm.adapters.chat_template import TemplateFacts
from moltlm.data.errors import BadInput
from moltlm.data.io import write_text
from moltlm.data.types import Message

ADAPTERS_UNTIL = "0.34"
"""Ollama 0.34.1 and later refuse a Modelfile with ADAPTER (ollama/ollama#14969)."""
GREEDY = {"temperature": "0", "repeat_penalty": "1"}
"""How the model is measured. Ollama's own defaults sample, and older ones punish repetition."""
MARKS = ("MARKOFTHEFIRST", "MARKOFTHESECOND", "MARKOFTHETHIRD", "MARKOFTHEFOURTH")
TEMPLATE = """\
{{- range $i, $_ := .Messages }}
{{- $last := eq (len (slice $.Messages $i)) 1 }}
{{- if eq .Role "system" }}SYSTEM
{{- else if eq .Role "user" }}
{{- if eq $i 0 }}START
{{- else if and (eq $i 1) $.System }}AFTER_SYSTEM
{{- else }}AFTER_ANSWER
{{- end }}{{ .Content }}
{{- if $last }}ANSWER
{{- else }}WRITTEN
{{- end }}
{{- else if eq .Role "assistant" }}{{ .Content }}
{{- end }}
{{- end }}"""
"""Go's `{{-` takes away the line break before it. The words in capitals are texts of a model's own (`Pieces`)."""


@dataclass(frozen=True)
class Pieces:
    """What a chat template writes around the messages of a conversation.

    Attributes:
        start: before the first user turn of a conversation without a system message.
        system: what a system message stands in: the text before it.
        after_system: between a system message and the user turn.
        after_answer: between an answer and the next user turn.
        answer: between the last user turn and the answer to be written.
        written: between an earlier user turn and its answer.
    """

    start: str
    system: str
    after_system: str
    after_answer: str
    answer: str
    written: str


def modelfile(source: str, template: str, facts: TemplateFacts, adapter: str = "") -> str:
    """The text of a Modelfile.

    Args:
        source: a GGUF file beside it, or the name of a model in Ollama.
        adapter: a GGUF adapter beside it; empty for none.
    """
    lines = [f"FROM {source}"]
    if adapter:
        lines += [f"# Ollama {ADAPTERS_UNTIL}.1 and later do not take adapters", f"ADAPTER {adapter}"]
    quoted = template.replace('"""', '\\"\\"\\"')
    lines.append(f'TEMPLATE """{quoted}"""')
    lines += [f"PARAMETER {name} {value}" for name, value in GREEDY.items()]
    lines.append(f"PARAMETER stop {json.dumps(facts.end, ensure_ascii=False)}")
    return "\n".join(lines) + "\n"


def write(folder: Path, text: str) -> None:
    """Write the Modelfile."""
    write_text(folder / "Modelfile", text)


def go_template(tokenizer: Any, adds_bos: bool) -> str:
    """The Go template of a tokenizer whose chat template is settled.

    Ollama joins turns of one side before it renders a conversation.

    Args:
        adds_bos: whether the server itself begins a text with the token of its beginning.

    Raises:
        BadInput: the chat template does more than put texts between messages.
    """
    bos = tokenizer.bos_token if adds_bos else ""
    pieces = _pieces(tokenizer, bos)
    for messages in _conversations():
        if rendered(pieces, messages) != _chat(tokenizer, messages, bos):
            raise _inexpressible(tokenizer)
    text = TEMPLATE
    places = {
        "AFTER_SYSTEM": pieces.after_system,
        "AFTER_ANSWER": pieces.after_answer,
        "SYSTEM": f"{_go(pieces.system)}{{{{ .Content }}}}",
        "START": pieces.start,
        "ANSWER": pieces.answer,
        "WRITTEN": pieces.written,
    }
    for word, value in places.items():
        text = text.replace(f"}}}}{word}\n", f"}}}}{value if word == 'SYSTEM' else _go(value)}\n")
    return text


def rendered(pieces: Pieces, messages: list[Message]) -> str:
    """A prompt as the Go template writes it: turns alternate after a system message, and the user has the last one."""
    text = ""
    for place, message in enumerate(messages):
        if message["role"] == "system":
            text += pieces.system + message["content"]
        elif message["role"] == "assistant":
            text += message["content"]
        else:
            with_system = place == 1 and messages[0]["role"] == "system"
            before = pieces.start if not place else pieces.after_system if with_system else pieces.after_answer
            after = pieces.answer if place == len(messages) - 1 else pieces.written
            text += before + message["content"] + after
    return text


def _pieces(tokenizer: Any, bos: str) -> Pieces:
    """From two conversations, one with a system message. Raises BadInput if a message is not in its rendering once."""
    start, written, after_answer, answer = _around(tokenizer, ["user", "assistant", "user"], bos)
    system, after_system, _ = _around(tokenizer, ["system", "user"], bos)
    return Pieces(start, system, after_system, after_answer, answer, written)


def _around(tokenizer: Any, roles: list[str], bos: str) -> list[str]:
    messages: list[Message] = [{"role": role, "content": mark} for role, mark in zip(roles, MARKS, strict=False)]
    text, parts = _chat(tokenizer, messages, bos), []
    for message in messages:
        before, mark, text = text.partition(message["content"])
        if not mark:
            raise _inexpressible(tokenizer)
        parts.append(before)
    return [*parts, text]


def _conversations() -> list[list[Message]]:
    """What both templates have to render alike."""
    roles = ["user", "assistant", "user", "assistant", "user"]
    turns: list[Message] = [{"role": role, "content": f"turn {i} is “här”."} for i, role in enumerate(roles)]
    system: list[Message] = [{"role": "system", "content": "You are terse."}]
    return [before + turns[:count] for before in ([], system) for count in (1, 3, 5)]


def _chat(tokenizer: Any, messages: list[Message], bos: str) -> str:
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return text.removeprefix(bos)


def _go(text: str) -> str:
    """A string constant of Go in a template; nothing for nothing."""
    return f"{{{{ {json.dumps(text, ensure_ascii=False)} }}}}" if text else ""


def _inexpressible(tokenizer: Any) -> BadInput:
    return BadInput(
        "The chat template of this model cannot be said in Ollama's: it does more than put texts between messages.",
        "Use --to gguf: llama-server and LM Studio read the model's own template from the file.",
    )
