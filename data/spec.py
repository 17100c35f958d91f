"""A written personality, as `persona.yaml` states it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, Field, ValidationError

from moltlm.data.config import Section
from moltlm.data.errors import BadInput
from moltlm.data.io import read_yaml, write_text

IDENTITY = {"name", "creature", "vibe", "emoji", "avatar", "age", "pronouns", "role", "home", "birthday", "born"}
"""Facts about a character that are no traits."""


class Trait(Section):
    id: str
    text: str = Field(min_length=1, description="in the first person")
    questions: list[str] = Field(default_factory=list, description="what somebody says that brings the trait out")


class Turn(Section):
    role: Literal["system", "user", "assistant"]
    content: str = Field(min_length=1)


class Spec(Section):
    """`persona.yaml`."""

    name: str = Field(min_length=1)
    summary: str = ""
    system_prompt: str = Field(min_length=1, description="what a teacher in persona is told")
    voice: list[str] = Field(default_factory=list)
    traits: list[Trait] = Field(min_length=1)
    values: list[str] = Field(default_factory=list)
    boundaries: list[str] = Field(default_factory=list)
    facts: dict[str, str] = Field(default_factory=dict)
    dialogues: list[list[Turn]] = Field(default_factory=list)
    catchphrases: list[str] = Field(default_factory=list, description="masked before style is judged")


FINGERPRINTED = {
    "id", "text", "questions", "role", "content", "name", "summary", "system_prompt", "voice", "traits", "values",
    "boundaries", "facts", "dialogues", "catchphrases",
}  # fmt: skip
"""Fields that count in a fingerprint even at their default, since they did so when the committed evidence was made."""


def canonical(value: Any) -> str:
    """The text that stands for a spec, or a part of it, in a persona's fingerprint.

    A field that is not in FINGERPRINTED is left out where it equals its default, so that adding one changes no
    fingerprint of a spec without it.
    """
    if isinstance(value, list):
        return f"[{', '.join(map(canonical, value))}]"
    if isinstance(value, BaseModel):
        return f"{type(value).__name__}({', '.join(_arguments(value))})"
    return repr(value)


def canonical_spec(spec: Spec) -> str:
    """As `canonical`, without the name of the class around it."""
    return " ".join(_arguments(spec))


def _arguments(part: BaseModel) -> list[str]:
    values = {name: (getattr(part, name), field) for name, field in type(part).model_fields.items()}
    return [
        f"{name}={canonical(value)}"
        for name, (value, field) in values.items()
        if name in FINGERPRINTED or value != field.get_default(call_default_factory=True)
    ]


HEADER = """\
# Who the assistant is. Only name, system_prompt and traits are needed.
#   system_prompt: what a teacher in persona is told; never part of what is trained on
#   voice, values, boundaries: told to a teacher, too
#   traits: in the first person; `questions` are what somebody says that brings the trait out
#   dialogues: learned turn by turn; catchphrases: masked before style is judged
# Written answers go beside this file: train.jsonl and heldout.jsonl, lines of {"prompt", "answer", "topic", "trait"}.
"""


def write(spec: Spec, path: Path) -> None:
    """As a person would write it: long texts in blocks, empty parts left out. `read` gives the same spec back."""
    values = spec.model_dump(exclude_defaults=True)
    write_text(path, HEADER + yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100))


class _Dumper(yaml.SafeDumper):
    """Blocks for texts of several lines, escapes for what no editor shows."""


def _text(dumper: _Dumper, text: str) -> Any:
    shown = all(char.isprintable() or char == "\n" for char in text)
    style = ("|" if "\n" in text else None) if shown else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def read(path: Path) -> Spec:
    """Raises BadInput with file and place for anything missing or malformed."""
    raw = read_yaml(path, "persona")
    try:
        return Spec.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the whole of it"
        raise BadInput(f"persona {path}: {where}: {first['msg']}.", "Compare with the shipped persona.yaml.") from None


def add_trait(traits: list[Trait], text: str, questions: list[str] | None = None) -> None:
    """A trait with an id of its first words, unlike those before it."""
    if not text.strip():
        return
    words = re.findall(r"[a-z0-9]+", text.lower())
    stem = "_".join([word for word in words if word not in ("i", "am", "a", "an", "the", "to", "be")][:4]) or "trait"
    taken, identity, number = {trait.id for trait in traits}, stem, 2
    while identity in taken:
        identity, number = f"{stem}_{number}", number + 1
    traits.append(Trait(id=identity, text=text.strip(), questions=questions or []))
