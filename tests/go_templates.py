"""The part of Go's text/template that the Modelfile uses: range, if, else if, else, a variable, and, eq, len, slice."""

from __future__ import annotations

import json
import re
from typing import Any

from moltlm.data.types import Message

ACTION = re.compile(r"\{\{(- )?(.*?)( -)?\}\}", re.DOTALL)


def render(template: str, messages: list[Message]) -> str:
    """The text for a conversation, as Ollama calls a template: with all messages, and the system messages joined."""
    system = "\n\n".join(turn["content"] for turn in messages if turn["role"] == "system")
    nodes, rest = _block(_pieces(template))
    assert not rest
    return _run(nodes, {"$": {"Messages": messages, "System": system}, ".": None})


def _pieces(template: str) -> list[tuple[str, str]]:
    pieces: list[tuple[str, str]] = []
    end = 0
    for match in ACTION.finditer(template):
        text = template[end : match.start()]
        pieces.append(("text", text.rstrip() if match[1] else text))
        pieces.append(("action", match[2].strip()))
        end = match.end()
        if match[3]:
            end += len(template[end:]) - len(template[end:].lstrip())
    return [*pieces, ("text", template[end:])]


def _block(pieces: list[tuple[str, str]]) -> tuple[list[Any], list[tuple[str, str]]]:
    """Nodes up to `else` or `end`, and what follows from there."""
    nodes: list[Any] = []
    while pieces:
        (kind, value), pieces = pieces[0], pieces[1:]
        if kind == "action" and value.split()[0] in ("else", "end"):
            return nodes, [(kind, value), *pieces]
        if kind == "action" and value.split()[0] in ("if", "range"):
            branches = []
            while True:
                body, pieces = _block(pieces)
                branches.append((value, body))
                (_, value), pieces = pieces[0], pieces[1:]
                if value == "end":
                    break
            nodes.append(branches)
        else:
            nodes.append((kind, value))
    return nodes, []


def _run(nodes: list[Any], names: dict[str, Any]) -> str:
    text = ""
    for node in nodes:
        if isinstance(node, list) and node[0][0].startswith("range"):
            index, item = re.findall(r"\$\w+", node[0][0])[:2]
            for i, each in enumerate(names["$"]["Messages"]):
                text += _run(node[0][1], {**names, index: i, item: each, ".": each})
        elif isinstance(node, list):
            chosen = (body for head, body in node if head == "else" or _value(_condition(head), names))
            text += _run(next(chosen, []), names)
        elif node[0] == "text":
            text += node[1]
        elif ":=" in node[1]:
            name, expression = node[1].split(" := ")
            names[name] = _value(expression, names)
        else:
            text += _value(node[1], names)
    return text


def _condition(head: str) -> str:
    return head.removeprefix("else ").removeprefix("if ")


def _value(expression: str, names: dict[str, Any]) -> Any:
    if expression.startswith('"') and '"' not in json.loads(expression)[:0]:
        return json.loads(expression)
    words = re.findall(r'\([^()]*(?:\([^()]*\))?[^()]*\)|"[^"]*"|\S+', expression)
    if words[0] in FUNCTIONS:
        return FUNCTIONS[words[0]](*(_value(word, names) for word in words[1:]))
    word = expression
    if word.startswith("(") and word.endswith(")"):
        return _value(word[1:-1], names)
    if word.isdigit():
        return int(word)
    if word.startswith("$."):
        return names["$"][word[2:]]
    if word.startswith("."):
        return names["."][word[1:].lower()]
    return names[word]


FUNCTIONS: dict[str, Any] = {
    "and": lambda a, b: a and b,
    "eq": lambda a, b: a == b,
    "len": len,
    "slice": lambda values, start: values[start:],
}
