"""A written personality, as `persona.yaml` states it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError

from data.config import Section
from data.errors import BadInput
from data.io import read_text


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


def read(path: Path) -> Spec:
    """Raises BadInput with file and place for anything missing or malformed."""
    try:
        raw: Any = yaml.safe_load(read_text(path, "persona"))
        return Spec.model_validate(raw)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise BadInput(f"persona {path}{line}: not valid YAML.", f"Open it: ${{EDITOR:-vi}} {path}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BadInput(f"persona {path}: {where}: {first['msg']}.", "Compare with the shipped persona.yaml.") from None
