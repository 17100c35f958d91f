"""The spec of a written personality: `persona.yaml`."""

from __future__ import annotations

import re
import shlex
import unicodedata
from collections.abc import Iterable
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, Field, ValidationError

from moltlm.data.config import Section
from moltlm.data.errors import BadInput
from moltlm.data.io import read_yaml, write_text

IDENTITY = {"name", "creature", "vibe", "emoji", "avatar", "age", "pronouns", "role", "home", "birthday", "born"}
"""Keys of facts about a character that are not traits."""


class Trait(Section):
    """One trait of a personality."""

    id: str
    text: str = Field(min_length=1, description="in the first person")
    questions: list[str] = Field(default_factory=list, description="messages to which an answer shows the trait")


class Turn(Section):
    """One turn of an example dialogue."""

    role: Literal["system", "user", "assistant"]
    content: str = Field(min_length=1)


class Spec(Section):
    """A personality, as `persona.yaml` states it."""

    name: str = Field(min_length=1)
    summary: str = ""
    system_prompt: str = Field(min_length=1, description="instructions for a teacher that answers in persona")
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
"""Fields that count in a fingerprint even at their default: the committed evidence is keyed that way."""


def canonical(value: Any) -> str:
    """The text that represents a part of a spec in a persona's fingerprint.

    A field that is not in FINGERPRINTED is left out where it equals its default, so that adding one changes no
    fingerprint.
    """
    if isinstance(value, list):
        return f"[{', '.join(map(canonical, value))}]"
    if isinstance(value, BaseModel):
        return f"{type(value).__name__}({', '.join(_arguments(value))})"
    return repr(value)


def canonical_spec(spec: Spec) -> str:
    """The text that represents a spec in a persona's fingerprint: `canonical` without the name of the class."""
    return " ".join(_arguments(spec))


def _arguments(part: BaseModel) -> list[str]:
    values = {name: (getattr(part, name), field) for name, field in type(part).model_fields.items()}
    return [
        f"{name}={canonical(value)}"
        for name, (value, field) in values.items()
        if name in FINGERPRINTED or value != field.get_default(call_default_factory=True)
    ]


HEADER = """\
# Who the assistant is. Only name, system_prompt and traits are required.
#   system_prompt: instructions for a teacher that answers in persona; never part of the training data
#   voice, values, boundaries: further instructions for the teacher
#   traits: in the first person; `questions` are messages to which an answer shows the trait
#   dialogues: learned turn by turn; catchphrases: masked before style is judged
# Written answers go into files next to this one: train.jsonl and heldout.jsonl, lines of
# {"prompt", "answer", "topic", "trait"}.
"""


def write(spec: Spec, path: Path) -> None:
    """Write a spec as a person would: long texts in blocks, empty parts left out. `read` returns the same spec."""
    values = spec.model_dump(exclude_defaults=True)
    write_text(path, HEADER + yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100))


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines as blocks, and escapes characters that an editor does not show."""


def _text(dumper: _Dumper, text: str) -> Any:
    printable = all(char.isprintable() or char == "\n" for char in text)
    style = ("|" if "\n" in text else None) if printable else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def read(path: Path) -> Spec:
    """Read a spec. Raises BadInput naming file and field for anything missing or malformed."""
    raw = read_yaml(path, "persona")
    try:
        return Spec.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the whole file"
        raise BadInput(
            f"persona {path}: {where}: {first['msg']}.", f"Open it: ${{EDITOR:-vi}} {shlex.quote(str(path))}"
        ) from None


def traits_from(texts: Iterable[str], questions: Iterable[list[str]] = ()) -> list[Trait]:
    """Traits whose ids are made of their first words and differ from each other. Empty texts are skipped.

    Args:
        questions: those of each text, in the same order.
    """
    traits: list[Trait] = []
    numbers: dict[str, int] = {}
    for text, asked in zip_longest(texts, questions, fillvalue=None):
        if text and text.strip():
            traits.append(Trait(id=_identity(text, numbers), text=text.strip(), questions=asked or []))
    return traits


def _identity(text: str, numbers: dict[str, int]) -> str:
    """An id that is not in `numbers`, which holds the ids so far and the last number that was added to each."""
    plain = unicodedata.normalize("NFKD", text[:400].lower().replace("ß", "ss")).encode("ascii", "ignore").decode()
    words = [word for word in re.findall(r"[a-z0-9]+", plain) if word not in ("i", "am", "a", "an", "the", "to", "be")]
    stem = identity = "_".join(words[:4]) or "trait"
    while identity in numbers:
        numbers[stem] += 1
        identity = f"{stem}_{numbers[stem]}"
    numbers[identity] = 1
    return identity
