"""Files that are no persona, recognised so that the error can say what they are."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from moltlm.data.errors import BadInput
from moltlm.data.spec_formats.reading import Source

CONVERSATIONS = "conversations"


@dataclass(frozen=True)
class NoPersona:
    """A kind of file: what it is, and whether an object is one."""

    what: str
    detect: Callable[[dict[str, Any]], bool]


def _has(*keys: str) -> Callable[[dict[str, Any]], bool]:
    return lambda record: all(key in record for key in keys)


def _any(*keys: str) -> Callable[[dict[str, Any]], bool]:
    return lambda record: any(key in record for key in keys)


NO_PERSONAS = (
    NoPersona("an npm package-lock.json", _has("lockfileVersion")),
    NoPersona("a Composer file", lambda record: "require" in record and ("autoload" in record or "/" in str(record.get("name")))),
    NoPersona("a VS Code extension's or npm package.json", lambda record: "engines" in record and "version" in record),
    NoPersona(
        "an npm package.json",
        lambda record: "name" in record
        and not {"version", "scripts", "dependencies", "devDependencies", "main", "peerDependencies", "workspaces"}.isdisjoint(record)
        and not {"personality", "first_mes", "char_name", "bio", "instructions", "system_prompt"} & set(record)
        and not isinstance(record.get("persona"), dict),
    ),
    NoPersona("a browser extension's manifest", _has("manifest_version")),
    NoPersona("a web app manifest", _any("start_url", "theme_color")),
    NoPersona("a TypeScript configuration", _any("compilerOptions")),
    NoPersona("an OpenAPI document", _any("openapi", "swagger")),
    NoPersona("a JSON schema", _any("$schema", "$defs")),
    NoPersona("a Jupyter notebook", _has("cells", "nbformat")),
    NoPersona("a GeoJSON file", lambda record: record.get("type") in ("FeatureCollection", "Feature")),
    NoPersona("the configuration of a model", _any("architectures", "model_type", "tokenizer_class", "bos_token")),
    NoPersona("a lorebook", lambda record: "entries" in record and "first_mes" not in record),
    NoPersona("a lorebook", lambda record: str(record.get("spec", "")).startswith("lorebook")),
    NoPersona("a preset of SillyTavern (sampling or prompts)", _any("temp", "prompt_order", "chat_completion_source", "input_sequence")),
    NoPersona("an instruction template of text-generation-webui", _any("instruction_template", "turn_template")),
    NoPersona("a NovelAI scenario", _any("scenarioVersion", "lorebookVersion")),
    NoPersona("a KoboldAI story", _any("gamestarted", "savedsettings")),
    NoPersona("a Docker Compose file", _any("services")),
    NoPersona("a workflow of GitHub Actions", _has("jobs")),
    NoPersona("a Kubernetes manifest", _has("apiVersion", "kind")),
    NoPersona("a conda environment", _has("channels", "dependencies")),
    NoPersona("the configuration of a MkDocs site", _any("site_name")),
    NoPersona("a configuration of molt; the persona is in the folder that persona.spec names", lambda record: "persona" in record and not {"personality", "pairs", "registry", "capability"}.isdisjoint(record)),
    NoPersona("an n8n workflow", _has("nodes", "connections")),
    NoPersona(CONVERSATIONS, lambda record: any(isinstance(record.get(key), list) for key in ("messages", "conversations", "chat_messages", "turns", "conversation"))),
    NoPersona(CONVERSATIONS, lambda record: "mapping" in record or ("role" in record and "content" in record)),
    NoPersona(CONVERSATIONS, lambda record: {"user_name", "character_name"} <= set(record) or {"mes", "is_user"} <= set(record)),
    NoPersona(CONVERSATIONS, lambda record: "chosen" in record and "rejected" in record),
)  # fmt: skip


def error_about(source: Source, record: dict[str, Any]) -> BadInput:
    """The error about an object that is no persona, by its name if it is known."""
    known = next((each for each in NO_PERSONAS if each.detect(record)), None)
    advice = f"Read a file that describes the persona: {source.command('SOUL.md')}"
    if known and known.what == CONVERSATIONS:
        return conversations(source)
    if known:
        return source.bad(f": This is {known.what}, not a persona.", advice)
    keys = ", ".join(sorted(map(str, record))[:8]) or "none"
    name = "a name" if isinstance(record.get("name"), str) else "no name"
    return source.bad(
        f" is no spec: no traits, and no character card with a name. It is an object with {name}, and no field of it describes a character "
        f"(its fields: {keys[:120]}).",
        advice,
    )


def conversations(source: Source) -> BadInput:
    return source.bad(
        ": These are conversations, not a persona.",
        f"Learn from them in a project: molt data import '{source.path}' --out conversations/chats.jsonl",
    )


def is_known(record: dict[str, Any]) -> bool:
    return any(each.detect(record) for each in NO_PERSONAS)


TEXTS = (
    (re.compile(r"(?:<!doctype html|<html\b)", re.IGNORECASE), "a web page: save its text as Markdown"),
    (re.compile(r"<\?xml|<svg\b", re.IGNORECASE), "an XML file"),
    (re.compile(r"%PDF-"), "a PDF: save its text as Markdown"),
    (re.compile(r"\{\\rtf"), "a rich text file: save it as Markdown or text"),
    (re.compile(r"#!"), "a script"),
    (re.compile(r"\[(?:package|project|tool\.[\w.]+|workspace|build-system|dependencies)\][ \t]*(?:\n|$)"), "a TOML file of a package"),
    (re.compile(r"(?:import\s+[\w{*]|from\s+[\w.]+\s+import\s|const\s+\w|export\s+(?:const|default|type)|def\s+\w+\(|class\s+\w+[:({])"), "a program"),
)  # fmt: skip
MARKED = re.compile(
    r"^[ \t>]*(?:#{1,6}[ \t]*|\*\*)?(user|human|assistant|ai|chatgpt|claude)(?:\*\*)?[ \t]*(?:[:：](?:\*\*)?|$)",
    re.IGNORECASE,
)


def beginning(text: str) -> str:
    """The text from the first line on that is neither blank nor a comment; a script's first line counts."""
    if text.startswith("#!"):
        return text
    place = 0
    while place < len(text):
        end = text.find("\n", place)
        end = len(text) if end < 0 else end
        line = text[place:end].strip()
        if line and not line.startswith(("# ", "//")) and line not in ("#", "---"):
            return text[place:].lstrip()
        place = end + 1
    return ""


def text_error(source: Source, text: str) -> BadInput | None:
    """The error about a text that is no description of a persona; None if it may be one."""
    start = beginning(text)
    for pattern, what in TEXTS:
        if pattern.match(start):
            return source.bad(f": This is {what}, not a persona.", f"Then read that: {source.command('SOUL.md')}")
    lines = [line for line in text[:100_000].split("\n") if line.strip()]
    sides = [match.group(1).lower() for line in lines if (match := MARKED.match(line))]
    first = MARKED.match(lines[0]) if lines else None
    if first and len(sides) >= 2 and len({side in ("user", "human") for side in sides}) == 2:
        return conversations(source)
    return None
