"""Open a file, folder or archive, detect what it is from its content, and read the persona in it."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from moltlm.data import spec as specs
from moltlm.data.errors import BadInput
from moltlm.data.io import decoded, parse_yaml
from moltlm.data.spec import Spec
from moltlm.data.spec_formats import formats, markdown, modelfile, pictures, refused
from moltlm.data.spec_formats.reading import Source, SpecReading, unique

FILE_LIMIT = 64 << 20
"""Maximum size of a text in bytes."""
MARKDOWN = (".md", ".markdown", ".mdx", ".mdc")
FILES = ("IDENTITY.md", "SOUL.md")
YAML_START = re.compile(r"[\"']?[A-Za-z_][\w -]{0,40}[\"']?:(?:[ \t]|\n|$)")

YAML_BLOCK = re.compile(
    r"^(?:traits|system_prompt|context|greeting|name)[\"']?:[ \t]*(?:[|>\[-][^\n]*)?$", re.MULTILINE
)


def read(path: Path, name: str | None = None, folder: str = "FOLDER") -> SpecReading:
    """Read the persona in a file or folder, whose format is detected from its content.

    Args:
        name: what the persona is called; it chooses one where a file holds several.
        folder: the folder of the new project, for the commands in errors.

    Raises:
        BadInput: naming the file, what is wrong, and a command.
    """
    source = Source(path, name.strip() if name and name.strip() else None, folder)
    try:
        reading = _read(source)
    except ValidationError as error:  # lone surrogates, which JSON can hold
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise source.bad(f": {where}: {first['msg']}.", f"Remove what cannot be read there: {source.edit()}") from None
    if source.name:
        return replace(reading, spec=renamed(reading.spec, (*reading.names, reading.spec.name), source.name))
    return reading


def renamed(spec: Spec, names: Iterable[str], name: str) -> Spec:
    """The spec with another name, wherever one of the old names stands as a word."""
    old = sorted({each for each in names if len(each) > 1 and each != name}, key=len, reverse=True)
    if not old:
        return spec
    word = re.compile(rf"(?<!\w)(?:{re.escape(name)}|{'|'.join(map(re.escape, old))})(?!\w)")

    def put(value: Any) -> Any:
        if isinstance(value, str):
            return word.sub(lambda _: name, value)
        if isinstance(value, list):
            return [put(item) for item in value]
        if isinstance(value, dict):
            return {key: item if key in ("id", "role") else put(item) for key, item in value.items()}
        return value

    values = put(spec.model_dump())
    facts = {key: text for key, text in values["facts"].items() if key != "nickname"}
    return Spec.model_validate({**values, "name": name, "facts": facts, "catchphrases": unique(values["catchphrases"])})


def _read(source: Source) -> SpecReading:
    path = source.path
    if path.is_dir():
        return _folder(source)
    if not path.is_file():
        why = "it does not exist" if not path.exists() else "it is no file"
        raise BadInput(f"No spec {path}: {why}.", f"Name one of: {formats.SUPPORTED}.")
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except OSError as error:
        raise source.bad(f" cannot be read: {error.strerror}.", f"chmod u+r {shlex.quote(str(path))}") from None
    if card := pictures.card_in(source, head):
        reading = formats.read_value(source, card[0])
        return replace(reading, format=f"{reading.format} in a {card[1]}")
    return _from_text(source, _text(source, path))


def _text(source: Source, path: Path) -> str:
    """The text of a file in UTF-8, UTF-16 or UTF-32."""
    if path.stat().st_size > FILE_LIMIT:
        raise source.bad(f" is larger than {FILE_LIMIT >> 20} MiB.", "A spec is a page of text, or a card.")
    raw = path.read_bytes()
    try:
        return decoded(raw)
    except UnicodeDecodeError as error:
        if raw.startswith(b"%PDF-"):
            raise source.bad(
                ": This is a PDF, not a persona.", f"Save its text as Markdown: {source.command('SOUL.md')}"
            ) from None
        quoted = shlex.quote(str(path))
        raise BadInput(
            f"{path} is not UTF-8: byte {error.start} cannot be read.",
            f"Convert it: iconv -f ISO-8859-1 -t UTF-8 {quoted} > fixed && {source.command('fixed')}",
        ) from None


def _from_text(source: Source, text: str) -> SpecReading:
    start = text.lstrip()[:1]
    suffix = source.path.suffix.lower()
    if start in ("{", "[") and not (suffix in MARKDOWN and not _is_json(text)) and not text.startswith("{\\rtf"):
        if start == "[" and (error := refused.text_error(source, text)):
            raise error
        return _from_json(source, text)
    if error := refused.text_error(source, text):
        raise error
    if modelfile.is_modelfile(text):
        return modelfile.read(source, text)
    if suffix in (".yaml", ".yml") or (suffix not in MARKDOWN and _is_yaml(text)):
        return _from_yaml(source, text)
    return markdown.read(source, {source.path.name: text})


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _is_yaml(text: str) -> bool:
    """Whether a text whose file's name does not say so is YAML: it begins so, and holds a block or a known format."""
    if not YAML_START.match(refused.beginning(text)):
        return False
    if YAML_BLOCK.search(text):
        return True
    try:
        value = parse_yaml(text)
    except yaml.YAMLError:
        return False
    return isinstance(value, dict) and (formats.detect(value) is not None or refused.is_known(value))


def _from_yaml(source: Source, text: str) -> SpecReading:
    try:
        value = parse_yaml(text)
    except yaml.YAMLError:
        return _persona(source.path)  # its error names the line
    if (
        isinstance(value, dict)
        and "system_prompt" in value
        and ("traits" in value or set(value) <= set(Spec.model_fields))
    ):
        return _persona(source.path)
    if isinstance(value, dict) and (
        formats.detect(value) or refused.is_known(value) or not {"traits", "system_prompt"} & set(value)
    ):
        return formats.read_value(source, {str(key): item for key, item in value.items()})
    if isinstance(value, list):
        return formats.read_value(source, value)
    return _persona(source.path)


def _persona(path: Path) -> SpecReading:
    spec = specs.read(path)
    return SpecReading(spec, "persona.yaml", names=(spec.name,))


def _folder(source: Source) -> SpecReading:
    path = source.path
    if (path / "persona.yaml").is_file():
        return _persona(path / "persona.yaml")
    names = {item.name.lower(): item for item in path.iterdir() if item.is_file()}
    files = [names[name.lower()] for name in FILES if name.lower() in names]
    if not files:
        raise BadInput(f"{path} has no persona.yaml, SOUL.md or IDENTITY.md.", f"Name one of: {formats.SUPPORTED}.")
    return markdown.read(source, {file.name: _text(source, file) for file in files})


def _from_json(source: Source, text: str) -> SpecReading:
    try:
        value = json.loads(text)
    except RecursionError:
        raise source.bad(": nested too deep to be a spec.", f"Name one of: {formats.SUPPORTED}.") from None
    except ValueError:
        value = [_line(source, number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
        return formats.read_value(source, value)
    if (
        isinstance(value, dict)
        and "system_prompt" in value
        and isinstance(value.get("traits"), list)
        and set(value) <= set(Spec.model_fields)
    ):
        return _persona(source.path)
    return formats.read_value(source, value)


def _line(source: Source, number: int, line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise source.bad(
            f", line {number}: not valid JSON ({str(error)[:80]}).",
            f"Look at it: sed -n {number}p {shlex.quote(str(source.path))}",
        ) from None
