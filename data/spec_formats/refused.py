"""Files that are no persona, recognised so that the error can say what they are."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from moltlm.data.errors import BadInput
from moltlm.data.spec_formats.reading import Source

Record = dict[str, Any]
Detect = Callable[[Record], bool]


@dataclass(frozen=True)
class OtherFile:
    """A kind of file that is no persona: what it is, and whether an object is one."""

    what: str
    detect: Detect


def _all(*keys: str) -> Detect:
    return lambda record: all(key in record for key in keys)


def _any(*keys: str) -> Detect:
    return lambda record: any(key in record for key in keys)


PACKAGE = {"version", "scripts", "dependencies", "devDependencies", "main", "peerDependencies", "workspaces"}
PERSONA = {
    "personality",
    "first_mes",
    "char_name",
    "bio",
    "instructions",
    "system_prompt",
    "system",
    "persona",
    "traits",
}
MOLT = {"personality", "pairs", "registry", "capability"}
TURNS = ("messages", "conversations", "chat_messages", "turns", "conversation")


def _is_package(record: Record) -> bool:
    return "name" in record and not PACKAGE.isdisjoint(record) and PERSONA.isdisjoint(record)


def _is_composer(record: Record) -> bool:
    return "require" in record and ("autoload" in record or "/" in str(record.get("name")))


def _is_lorebook(record: Record) -> bool:
    return str(record.get("spec", "")).startswith("lorebook") or ("entries" in record and "first_mes" not in record)


def _is_molt_config(record: Record) -> bool:
    return "persona" in record and any(isinstance(record.get(key), dict) for key in MOLT)


ANSWERS = ("completion", "answer", "response", "output", "chosen")


def _is_conversation(record: Record) -> bool:
    pairs = (("role", "content"), ("user_name", "character_name"), ("mes", "is_user"), ("chosen", "rejected"))
    pairs += tuple((question, answer) for question in ("prompt", "instruction", "question") for answer in ANSWERS)
    return (
        "mapping" in record
        or any(isinstance(record.get(key), list) for key in TURNS)
        or any(first in record and second in record for first, second in pairs)
    )


OTHERS = (
    OtherFile("an npm package-lock.json", _all("lockfileVersion")),
    OtherFile("a Composer file", _is_composer),
    OtherFile("the package.json of an extension", _all("engines", "version")),
    OtherFile("an npm package.json", _is_package),
    OtherFile("the manifest of a browser extension", _all("manifest_version")),
    OtherFile("the manifest of a web app", _any("start_url", "theme_color")),
    OtherFile("a TypeScript configuration", _all("compilerOptions")),
    OtherFile("an OpenAPI document", _any("openapi", "swagger")),
    OtherFile("a JSON schema", _any("$schema", "$defs")),
    OtherFile("a Jupyter notebook", _all("cells", "nbformat")),
    OtherFile("a GeoJSON file", lambda record: record.get("type") in ("FeatureCollection", "Feature")),
    OtherFile("the configuration of a model", _any("architectures", "model_type", "tokenizer_class", "bos_token")),
    OtherFile("a lorebook without a character", _is_lorebook),
    OtherFile("a preset of SillyTavern", _any("temp", "prompt_order", "chat_completion_source", "input_sequence")),
    OtherFile("an instruction template of text-generation-webui", _any("instruction_template", "turn_template")),
    OtherFile("a NovelAI scenario or lorebook", _any("scenarioVersion", "lorebookVersion")),
    OtherFile("a KoboldAI story", _any("gamestarted", "savedsettings")),
    OtherFile("a Docker Compose file", _all("services")),
    OtherFile("a workflow of GitHub Actions", _all("jobs")),
    OtherFile("a Kubernetes manifest", _all("apiVersion", "kind")),
    OtherFile("a conda environment", _all("channels", "dependencies")),
    OtherFile("the configuration of a MkDocs site", _all("site_name")),
    OtherFile("a configuration of molt, whose persona.spec names the folder with the persona", _is_molt_config),
    OtherFile("an n8n workflow", _all("nodes", "connections")),
)


def is_known(record: Record) -> bool:
    """Whether an object is of a known kind that is no persona."""
    return _is_conversation(record) or any(each.detect(record) for each in OTHERS)


def error_about(source: Source, record: Record) -> BadInput:
    """The error about an object that is no persona, which says what it is if that is known."""
    advice = f"Read a file that describes the persona: {source.command('SOUL.md')}"
    for each in OTHERS:
        if each.detect(record):
            return source.bad(f": This is {each.what}, not a persona.", advice)
    if _is_conversation(record):
        return conversations(source)
    keys = ", ".join(sorted(map(str, record))[:8]) or "none"
    return source.bad(
        " is no spec: no traits, and no character card with a name and a text about the character "
        f"(its fields: {keys[:120]}).",
        advice,
    )


def conversations(source: Source) -> BadInput:
    """The error about a file of conversations."""
    command = f"molt data import {shlex.quote(str(source.path))} --out conversations/chats.jsonl"
    return source.bad(": These are conversations, not a persona.", f"Learn from them in a project: {command}")


TOML = r"\[(?:package|project|tool\.[\w.]+|workspace|build-system|dependencies)\][ \t]*(?:\n|$)"
PROGRAM = (
    r"(?:import\s+[\w{*]|from\s+[\w.]+\s+import\s|const\s+\w|export\s+(?:const|default|type)|def\s+\w+\("
    r"|class\s+\w+[:({])"
)
TEXTS = (
    (re.compile(r"(?:<!doctype html|<html\b)", re.IGNORECASE), "a web page: save its text as Markdown"),
    (re.compile(r"<\?xml|<svg\b", re.IGNORECASE), "an XML file"),
    (re.compile(r"%PDF-"), "a PDF: save its text as Markdown"),
    (re.compile(r"\{\\rtf"), "a rich text file: save it as Markdown or text"),
    (re.compile(r"#!"), "a script"),
    (re.compile(TOML), "a TOML file of a package"),
    (re.compile(PROGRAM), "a program"),
)
"""How the first line that is no comment shows what a text is."""
REPOSITORY = re.compile(
    r"#\s*(?:Repository Guidelines|CLAUDE\.md)\s*$|.{0,400}This file provides guidance to [^\n]{0,80}"
    r"when working with code in this repository",
    re.IGNORECASE | re.MULTILINE | re.DOTALL,
)
"""How Codex and Claude Code begin the file that they write about a repository."""
MANUAL = re.compile(
    r"^#{1,4}[ \t]*(?:Installation|Installing|Install|Getting started|Quick ?start|Usage|Requirements|Building"
    r"|Contributing|License)\b",
    re.IGNORECASE | re.MULTILINE,
)
"""A heading of the README of a program."""
SOMEBODY = re.compile(
    r"\b(?:you are|you're|your|I am|I'm|my|he|she|persona|personality|character|traits?|voice|tone)\b", re.IGNORECASE
)
"""Words of which a description of a persona in English has one."""
TURN = re.compile(
    r"^[ \t>]*(?:#{1,6}[ \t]*|\*\*)?(user|human|assistant|ai|chatgpt|claude)(?:\*\*)?[ \t]*(?:[:：](?:\*\*)?|$)",
    re.IGNORECASE,
)
"""A line with which somebody's turn begins."""


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
    if REPOSITORY.match(text.lstrip()):
        what = ": This is a file for coding agents about a repository, not a persona."
        return source.bad(what, f"Then read that: {source.command('SOUL.md')}")
    if text.lstrip().startswith("#") and MANUAL.search(text[:100_000]) and not SOMEBODY.search(text[:100_000]):
        what = ": This is the README of a program, not a persona."
        return source.bad(what, f"Then read that: {source.command('SOUL.md')}")
    start = beginning(text)
    for pattern, what in TEXTS:
        if pattern.match(start):
            return source.bad(f": This is {what}, not a persona.", f"Then read that: {source.command('SOUL.md')}")
    lines = [line for line in text[:100_000].split("\n") if line.strip()]
    sides = [match.group(1).lower() in ("user", "human") for line in lines if (match := TURN.match(line))]
    begins = bool(lines) and bool(TURN.match(lines[0]))
    return conversations(source) if begins and True in sides and False in sides else None
