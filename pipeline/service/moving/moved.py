"""The configuration of a personality on another base: which settings change, and the file that it is written to."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import yaml

from moltlm.adapters import architecture
from moltlm.data.errors import BadInput
from moltlm.data.io import write_text
from moltlm.pipeline.config import Config, vary, with_overrides

JOINT = "-on-"
"""Between a name and the base that it was moved to."""
HEADER = "# Written by molt move: the configuration of {name} on {base}.\n"


def named(name: str, base: str) -> str:
    """A name with the base in it, in place of the one that an earlier move put there."""
    last = re.sub(r"[^a-z0-9.]+", "-", Path(base).name.lower()).strip("-.") or "base"
    return f"{name.partition(JOINT)[0]}{JOINT}{last}"


def moved(config: Config, base: str, settings: list[str]) -> Config:
    """The configuration on another base, in a run folder of its own; the registry stays, so that it has the lineage.

    What depends on a base by itself goes back to its default: revision, chat template, shape. What was read from
    conversations and asked of a teacher is carried, and not read again.

    Args:
        settings: further changes, as KEY=VALUE.

    Raises:
        BadInput: for a base that cannot be used, or settings that do not fit.
    """
    folder = config.run.folder
    changes = {
        "model.id": base,
        "model.revision": None,
        "model.chat_template": "",
        "run.folder": str(folder.with_name(named(folder.name, base))),
        "persona.carried": None,
        "dpo.distill_weight": 0.0,
        "conversations.paths": [],
        "teacher.kind": "none",
    }
    result = with_overrides(vary(config, changes, "molt move"), settings)
    if result.run.folder.resolve() == folder.resolve():
        raise BadInput(
            f"{folder} is the run on the former base, whose artifacts belong to that.",
            f"Name another folder: --set run.folder={changes['run.folder']}",
        )
    shape = architecture.facts(result.model, result.lora).shape
    return vary(result, {"model.shape": shape.model_dump()} if shape else {}, "molt move")


def file_of(name: str, base: str) -> Path:
    """Where the configuration is written: beside the former one, or in the current folder for a shipped one."""
    path = Path(name)
    stem = named(path.stem, base)
    return path.with_name(f"{stem}.yaml") if path.is_file() else Path(f"{stem}.yaml")


def text_of(config: Config, name: str) -> str:
    """The settings that differ from the defaults, as YAML."""
    values = config.model_dump(mode="json", exclude_defaults=True)
    header = HEADER.format(name=Path(name).stem.partition(JOINT)[0], base=config.model.id)
    return header + yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def write(path: Path, text: str, retry: str) -> None:
    """Write the file; the same text again changes nothing.

    Args:
        retry: the command with the name of a file left out.

    Raises:
        BadInput: if there is another file already.
    """
    if not path.is_file():
        write_text(path, text)
    elif path.read_text(encoding="utf-8") != text:
        other = shlex.quote(str(path.with_name(f"{path.stem}-2{path.suffix}")))
        raise BadInput(f"{path} exists, and has other settings.", f"Write another file: {retry} --out {other}")
