"""The settings of a configuration class: their dotted keys and types. Imports no torch."""

from __future__ import annotations

import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

TYPES = {"int": "integer", "float": "number", "str": "text", "bool": "true or false", "Any": "any value"}
BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}


def settings_of(kind: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """The settings of a section and of the sections in it, by dotted key; `*` stands for a name that the user gives."""
    for name, field in kind.model_fields.items():
        section, by_name = section_of(field.annotation)
        if section is None:
            yield prefix + name, field
        else:
            yield from settings_of(section, f"{prefix}{name}.*." if by_name else f"{prefix}{name}.")


def section_of(annotation: Any) -> tuple[type[BaseModel] | None, bool]:
    """The class of a nested section, if the type of a field is one; and whether there may be several, by name."""
    if isinstance(annotation, type) and not get_args(annotation) and issubclass(annotation, BaseModel):
        return annotation, False
    if get_origin(annotation) is dict and (section := section_of(get_args(annotation)[1])[0]):
        return section, True
    return None, False


def known_keys(kind: type[BaseModel]) -> list[str]:
    """The dotted keys of all sections and settings."""
    keys = [key for key, _ in settings_of(kind)]
    sections = [".".join(key.split(".")[:count]) for key in keys for count in range(1, key.count(".") + 1)]
    return list(dict.fromkeys([*sections, *keys]))


def matches(key: str, other: str) -> bool:
    """Whether one of two dotted keys is the other or a section of it; `*` is any name."""
    return all(a == b or "*" in (a, b) for a, b in zip(key.split("."), other.split("."), strict=False))


def choices_of(field: FieldInfo) -> list[Any]:
    """The values that a setting can have, if they are listed."""
    return list(get_args(field.annotation)) if get_origin(field.annotation) is Literal else []


def default_of(field: FieldInfo) -> Any:
    """The default of a setting as JSON has it; None where there is none."""
    default = None if field.is_required() else field.get_default(call_default_factory=True)
    return str(default) if isinstance(default, Path) else default


def type_text(field: FieldInfo) -> str:
    """The type of a setting with its bounds, in words: `number, above 0`."""
    bounds = [
        f"{word} {getattr(rule, name):g}"
        for rule in field.metadata
        for name, word in BOUNDS.items()
        if getattr(rule, name, None) is not None
    ]
    return ", ".join([_type_name(field.annotation), *bounds])


def _type_name(annotation: Any) -> str:
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return "one of " + ", ".join(map(str, inner))
    if origin in (Union, types.UnionType):
        return " or ".join("null" if one is type(None) else _type_name(one) for one in inner)
    if origin is list:
        return f"list of {_type_name(inner[0])}"
    if origin is dict:
        return f"{_type_name(inner[0])} to {_type_name(inner[1])}"
    if origin is not None:  # Annotated
        return _type_name(inner[0])
    name = getattr(annotation, "__name__", str(annotation))
    return TYPES.get(name, name.lower())
