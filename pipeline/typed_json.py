"""JSON documents that hold dataclasses.

Numbers that are not finite, such as the bounds of an unknown interval, are written as null (`data.io.to_json`), and
null is read as NaN where a field is a float.
"""

from __future__ import annotations

import json
import math
from dataclasses import is_dataclass
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError

from moltlm.data.errors import BadInput
from moltlm.data.io import read_json, write_json

T = TypeVar("T")


def read_document(path: Path, kind: type[T]) -> T:
    """Read a JSON file that holds a value of one type, such as a dataclass or a list of them.

    Raises:
        BadInput: if the file is missing, malformed, or of another type; it names the first field that is wrong.
    """
    try:
        return from_plain(read_json(path), kind)
    except ValidationError as error:
        raise BadInput(f"{path}: {first_problem(error)}.", f"Look at it: cat {path}") from None


def write_document(path: Path, value: Any) -> None:
    """Write a dataclass, or a list of them, as indented JSON."""
    write_json(path, to_plain(value))


def from_plain(value: Any, kind: type[T]) -> T:
    """A value of `kind` from what JSON holds: dicts, lists, texts and numbers. Types are not coerced, keys that are no
    field are ignored.

    Raises:
        ValidationError: (pydantic's) naming each field that is wrong.
    """
    return _adapter(kind).validate_json(json.dumps(_with_nan(value, kind), default=str), strict=True)


def first_problem(error: ValidationError) -> str:
    """The first field that is wrong, and why."""
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg'].lower()}"


def to_plain(value: Any) -> Any:
    """The inverse of `from_plain`; what is not finite stays so."""
    return TypeAdapter(Any).dump_python(value)


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _with_nan(value: Any, kind: Any) -> Any:
    """NaN in place of null wherever `kind` has a float that is not optional."""
    origin, arguments = get_origin(kind), get_args(kind)
    if value is None:
        return math.nan if kind is float else None
    if origin in (Union, UnionType):
        return _with_nan(value, next((one for one in arguments if one is not type(None)), Any))
    if isinstance(value, dict):
        if is_dataclass(kind):
            hints = _hints(kind)  # type: ignore[arg-type]
            return {key: _with_nan(item, hints.get(key, Any)) for key, item in value.items()}
        return {key: _with_nan(item, arguments[1] if origin is dict else Any) for key, item in value.items()}
    if isinstance(value, list) and arguments:
        kinds = arguments if origin is tuple and Ellipsis not in arguments else [arguments[0]] * len(value)
        return [_with_nan(item, one) for item, one in zip(value, kinds, strict=False)]
    return value
