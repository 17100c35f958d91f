"""What is wrong with a configuration: every setting at once, with the nearest known key. Imports no torch."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticCustomError

from moltlm.data.errors import BadInput
from moltlm.pipeline.fields import known_keys, matches


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: the dotted key of a setting (empty if it is of no single one), the reason as a sentence
    without its full stop, what may have been meant, and the file or override that it comes from."""

    key: str
    reason: str
    nearest: str = ""
    source: str = ""

    def __str__(self) -> str:
        hint = f" Did you mean {self.nearest}?" if self.nearest else ""
        source = "" if self.reason.startswith(self.source) else f"{self.source}: "
        return f"{source}{self.reason}.{hint}"


def inconsistent(problems: Sequence[tuple[str, str]]) -> PydanticCustomError:
    """The error to raise in a validator for several problems at once, each a key and a reason."""
    text = "; ".join(reason for _, reason in problems)
    return PydanticCustomError("inconsistent", "{text}", {"text": text, "problems": list(problems)})


def problems_of(kind: type[BaseModel], raw: dict[str, Any]) -> list[Problem]:
    """Everything that is wrong with the values of a section; empty if nothing is."""
    try:
        kind.model_validate(raw)
    except ValidationError as error:
        return [problem for each in error.errors() for problem in _problems(kind, each)]
    return []


def _problems(kind: type[BaseModel], error: Any) -> list[Problem]:
    """Those of one of pydantic's errors."""
    key = ".".join(map(str, error["loc"]))
    context = error.get("ctx") or {}
    if error["type"] == "inconsistent":
        return [Problem(f"{key}.{part}".strip("."), reason) for part, reason in context["problems"]]
    if error["type"] == "extra_forbidden":
        return [Problem(key, f"unknown setting {key}", nearest_key(kind, key))]
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "value_error":
        return [Problem(key, f"{key}: {message}" if key else message)]
    if error["type"] == "missing":
        return [Problem(key, f"{key} is missing")]
    nearest = ""
    if error["type"] == "literal_error":
        choices = [choice.strip("' ") for choice in context["expected"].replace(" or ", ",").split(",")]
        nearest = next(iter(difflib.get_close_matches(str(error["input"]), choices, n=1)), "")
    reason = message.replace("Input should be", "must be").replace("'", "")
    return [Problem(key, f"{key}={error['input']} {reason}", nearest)]


def nearest_key(kind: type[BaseModel], key: str) -> str:
    """The known key that an unknown one is most like; empty if there is none. Names in the key stay as they are."""
    parts, keys = key.split("."), known_keys(kind)
    section = [one for one in keys if one.count(".") == key.count(".") and matches(one, ".".join([*parts[:-1], "*"]))]
    last = difflib.get_close_matches(parts[-1], [one.rsplit(".", 1)[-1] for one in section], n=1, cutoff=0.5)
    if last:
        return ".".join([*parts[:-1], last[0]])
    close = difflib.get_close_matches(key, keys, n=1, cutoff=0.5)
    ends = [one for one in keys if one.rsplit(".", 1)[-1] == parts[-1]]
    return next(iter([*close, *ends]), "")


def attributed(
    problems: Sequence[Problem], in_file: Sequence[Problem], file: str, overrides: list[str]
) -> list[Problem]:
    """The problems with their sources: the file where it has them by itself, else the overrides that cause them."""
    by_file = {(problem.key, problem.reason) for problem in in_file}
    return [
        replace(
            problem, source=file if (problem.key, problem.reason) in by_file else _causes(problem, overrides) or file
        )
        for problem in problems
    ]


def _causes(problem: Problem, overrides: list[str]) -> str:
    """The overrides of the settings that a problem names; of their section, if there are none; or all of them."""
    keys = {override: override.partition("=")[0] for override in overrides}
    named = [
        override
        for override, key in keys.items()
        if key in problem.reason or (problem.key and matches(key, problem.key))
    ]
    section = [override for override, key in keys.items() if key.split(".")[0] == problem.key.split(".")[0]]
    return " ".join(named or section or overrides)


def raise_for(problems: Sequence[Problem], within: str = "") -> None:
    """Raises BadInput that names every problem, if there is any.

    Args:
        within: what `molt config explain` calls the file, ending in a dot, if it is no configuration of a run.
    """
    if not problems:
        return
    key = next((problem.nearest or problem.key for problem in problems if problem.key), "")
    explain = f"molt config explain {within}{key.split('.')[0]}" if key else "molt config show demo"
    if len(problems) == 1:
        raise BadInput(str(problems[0]), f"See: {explain}")
    lines = [f"{len(problems)} settings are wrong.", *(f"  {problem}" for problem in problems)]
    raise BadInput("\n".join(lines), f"See: {explain}")
