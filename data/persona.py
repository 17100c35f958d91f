"""A written personality: its spec, its prompts with answers in its voice, and who else there is to confuse it with."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from data import spec as specs
from data.config import PersonaConfig
from data.errors import BadInput
from data.io import read_jsonl
from data.spec import Spec
from data.types import Exchange, Message


@dataclass(frozen=True)
class Persona:
    """A spec with its material. `others` are answers of other characters, `neutral_*` prompts without persona pull."""

    folder: Path
    spec: Spec
    train: list[Exchange]
    heldout: list[Exchange]
    others: list[Exchange]
    neutral_train: list[list[Message]]
    neutral_eval: list[list[Message]]


def load(config: PersonaConfig) -> Persona:
    """Read a persona folder. Raises BadInput with file and line for anything missing, empty or malformed."""
    folder = locate(config.spec)
    spec = specs.read(folder / "persona.yaml")
    train = exchanges(folder / "train.jsonl")
    train += [Exchange(list(turns[:end]), turns[end]["content"], "dialogue") for turns, end in _dialogue_turns(spec)]
    shared = folder.parent if (folder.parent / "neutral.jsonl").is_file() else Path(str(_shipped()))
    neutral = read_jsonl(shared / "neutral.jsonl", "neutral prompts")
    for number, row in enumerate(neutral, start=1):
        if not isinstance(row.get("prompt"), str) or row.get("split") not in ("train", "eval"):
            raise BadInput(
                f"{shared / 'neutral.jsonl'}, record {number}: it needs a prompt and a split.",
                'Write lines of {"prompt": "...", "split": "train"} or "eval".',
            )
    return Persona(
        folder=folder,
        spec=spec,
        train=spread(train, config.train_limit),
        heldout=spread(exchanges(folder / "heldout.jsonl"), config.heldout_limit),
        others=exchanges(shared / "others.jsonl"),
        neutral_train=[user(row["prompt"]) for row in neutral if row["split"] == "train"],
        neutral_eval=[user(row["prompt"]) for row in neutral if row["split"] == "eval"],
    )


def locate(name: str) -> Path:
    """The folder of a persona: a path, or the name of a shipped one."""
    for folder in (Path(name).expanduser(), Path(str(_shipped().joinpath(name)))):
        if (folder / "persona.yaml").is_file():
            return folder
    raise BadInput(f"No persona {name}: no persona.yaml there.", "Give persona.spec a folder with one, or: claudio")


def exchanges(path: Path) -> list[Exchange]:
    """Lines of `{"prompt": text, "answer": text, "topic", "trait"}`. Raises BadInput naming the line that is wrong."""
    rows = []
    for number, row in enumerate(read_jsonl(path, "persona file"), start=1):
        for key in ("prompt", "answer"):
            if not isinstance(row.get(key), str) or not row[key].strip():
                raise BadInput(f"{path}, record {number}: {key} is missing or empty.", "Write a text there.")
        rows.append(
            Exchange(
                user(row["prompt"]),
                row["answer"].strip(),
                str(row.get("topic", "")),
                str(row.get("trait", "")),
                str(row.get("persona", "")),
            )
        )
    return rows


def user(text: str) -> list[Message]:
    return [{"role": "user", "content": text.strip()}]


def spread(rows: list[Exchange], limit: int | None) -> list[Exchange]:
    """`limit` rows taken in turns over the topics, in file order within each; all of them for None."""
    if limit is None or limit >= len(rows):
        return rows
    rank: dict[str, int] = {}
    order = []
    for index, row in enumerate(rows):
        order.append((rank.setdefault(row.topic, 0), index))
        rank[row.topic] += 1
    return [rows[index] for _, index in sorted(order)[:limit]]


def _dialogue_turns(spec: Spec) -> list[tuple[list[Message], int]]:
    """Each assistant turn of the spec's dialogues, with what came before it."""
    found = []
    for dialogue in spec.dialogues:
        turns: list[Message] = [{"role": turn.role, "content": turn.content} for turn in dialogue]
        found += [(turns, index) for index, turn in enumerate(turns) if turn["role"] == "assistant" and index > 0]
    return found


def _shipped() -> Any:
    return resources.files("configs").joinpath("personas")
