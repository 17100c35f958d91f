"""A written personality: its spec, prompts with answers in its voice, attacks on it, and answers of other
characters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from importlib import resources
from pathlib import Path
from typing import Any

from moltlm.data import spec as specs
from moltlm.data.config import PersonaConfig
from moltlm.data.errors import BadInput
from moltlm.data.io import fingerprint, read_jsonl, round_robin
from moltlm.data.rows import Row, at_default
from moltlm.data.spec import Spec
from moltlm.data.types import Exchange, Message

EXCHANGE_DEFAULTS = {"topic": "", "trait": "", "source": ""}
ATTACK_DEFAULTS = {"prefill": "", "language": ""}
"""What a persona's fingerprint adds to a row: the committed evidence is keyed by rows with these fields."""


CONTRAST = 60
"""Answers of another shipped persona that a persona is told from."""


@dataclass(frozen=True)
class Attack(Row):
    """An attempt to make the model drop the personality.

    The answer has to begin with `prefill`, if there is one. `language` (ISO 639-1) is set if the attack asks for an
    answer in another language.
    """

    id: str
    kind: str
    prompt: list[Message]
    prefill: str = ""
    language: str = ""


@dataclass(frozen=True)
class Persona:
    """A spec with its material.

    `train` and `heldout` are exchanges with a written answer; a dialogue is one exchange for each of its answers.
    `other_characters` are answers of other characters, and `neutral_*` are prompts that bring out no personality.
    """

    folder: Path
    spec: Spec
    train: list[Exchange]
    heldout: list[Exchange]
    heldout_dialogues: list[Exchange]
    attacks: list[Attack]
    other_characters: list[Exchange]
    neutral_train: list[list[Message]]
    neutral_eval: list[list[Message]]

    @property
    def fingerprint(self) -> str:
        """The fingerprint of all content, without the folder.

        A field that is added to this class, the spec, an exchange or an attack counts only where it differs from its
        default, so that adding one changes no fingerprint.
        """
        first = {  # the committed evidence is keyed by these names
            "folder": None,
            "spec": specs.canonical_spec(self.spec),
            "train": _full_rows(self.train, EXCHANGE_DEFAULTS),
            "heldout": _full_rows(self.heldout, EXCHANGE_DEFAULTS),
            "heldout_dialogues": _full_rows(self.heldout_dialogues, EXCHANGE_DEFAULTS),
            "attacks": _full_rows(self.attacks, ATTACK_DEFAULTS),
            "others": _full_rows(self.other_characters, EXCHANGE_DEFAULTS),
            "neutral_train": self.neutral_train,
            "neutral_eval": self.neutral_eval,
        }
        later = {
            item.name: getattr(self, item.name)
            for item in fields(self)
            if item.name not in (*first, "other_characters") and not at_default(self, item)
        }
        return fingerprint({**first, **later})


def _full_rows(items: Sequence[Row], defaults: dict[str, str]) -> list[dict[str, Any]]:
    return [{**defaults, **item.to_row()} for item in items]


def load(config: PersonaConfig) -> Persona:
    """Read a persona folder: `persona.yaml` and, where they exist, `train.jsonl`, `heldout.jsonl`, `dialogues.jsonl`
    and `attacks.jsonl`.

    Raises:
        BadInput: naming file and record, for anything empty or malformed.
    """
    folder = locate(config.spec)
    spec = specs.read(folder / "persona.yaml")
    train = _read_if_present(folder / "train.jsonl", exchanges)
    train += [turn for dialogue in spec.dialogues for turn in turns([dict(turn) for turn in dialogue], "dialogue")]
    dialogues = _read_if_present(folder / "dialogues.jsonl", _dialogues)
    train += [turn for split, turn in dialogues if split == "train"]
    shared = folder.parent if (folder.parent / "neutral.jsonl").is_file() else Path(str(_shipped()))
    neutral = _neutral(shared / "neutral.jsonl")
    return Persona(
        folder=folder,
        spec=spec,
        train=spread(train, config.train_limit),
        heldout=spread(_read_if_present(folder / "heldout.jsonl", exchanges), config.heldout_limit),
        heldout_dialogues=[turn for split, turn in dialogues if split == "heldout"],
        attacks=_read_if_present(folder / "attacks.jsonl", _attacks),
        other_characters=exchanges(shared / "others.jsonl"),
        neutral_train=[user(text) for split, text in neutral if split == "train"],
        neutral_eval=[user(text) for split, text in neutral if split == "eval"],
    )


def shipped_characters(persona: Persona, limit: int = CONTRAST) -> dict[str, list[Exchange]]:
    """Answers of the shipped personas, by name, to tell `persona` from. They are no part of its fingerprint. `persona`
    itself, known by its name, and a renamed copy of it, known by a common answer, are left out.

    Only answers to prompts that every shipped persona answers are taken, so that the characters differ in voice and
    not in topics.

    Args:
        limit: answers of each at most, spread over the topics.
    """
    answers = {item.answer for item in [*persona.train, *persona.heldout]}
    folders = [path.parent for path in sorted(Path(str(_shipped())).glob("*/persona.yaml"))]
    written = {folder: _read_if_present(folder / "train.jsonl", exchanges) for folder in folders}
    common = set.intersection(*({row.question for row in rows} for rows in written.values()))
    return {
        folder.name: spread([row for row in rows if row.question in common], limit)
        for folder, rows in written.items()
        if specs.read(folder / "persona.yaml").name != persona.spec.name
        and not any(row.answer in answers for row in rows)
    }


def locate(name: str) -> Path:
    """The folder of a persona, from a path or the name of a shipped persona. Raises BadInput if there is none."""
    for folder in (Path(name).expanduser(), Path(str(_shipped().joinpath(name)))):
        if (folder / "persona.yaml").is_file():
            return folder
    raise BadInput(f"No persona {name}: no persona.yaml there.", f"Give persona.spec a folder with one, or: {_names()}")


def exchanges(path: Path) -> list[Exchange]:
    """Read lines of `{"prompt": text, "answer": text, "topic", "trait", "rejected"}`; the last three are optional.
    Raises BadInput naming the wrong record."""
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
                str(row.get("rejected", "")).strip(),
            )
        )
    return rows


def user(text: str) -> list[Message]:
    """A prompt of one user turn."""
    return [{"role": "user", "content": text.strip()}]


def spread(rows: list[Exchange], limit: int | None) -> list[Exchange]:
    """The first `limit` rows in round-robin order over the topics; all rows, in their order, for None."""
    if limit is None or limit >= len(rows):
        return rows
    return [rows[place] for place in round_robin(row.topic for row in rows)[:limit]]


def turns(messages: list[Any], topic: str = "", trait: str = "") -> list[Exchange]:
    """One exchange for each assistant turn after a user turn, with all turns before it as its prompt."""
    clean: list[Message] = [{"role": turn["role"], "content": turn["content"].strip()} for turn in messages]
    return [
        Exchange(clean[:place], turn["content"], topic, trait)
        for place, turn in enumerate(clean)
        if turn["role"] == "assistant" and place and clean[place - 1]["role"] == "user"
    ]


def _read_if_present(path: Path, read: Any) -> list[Any]:
    return read(path) if path.exists() else []


def _dialogues(path: Path) -> list[tuple[str, Exchange]]:
    """Lines of `{"messages": [...], "split": "train" or "heldout", "topic", "trait"}`: each exchange with its split."""
    exchanges = []
    for number, row in enumerate(read_jsonl(path, "dialogues"), start=1):
        messages = _messages(row, path, number)
        if row.get("split") not in ("train", "heldout"):
            raise BadInput(f"{path}, record {number}: split is neither train nor heldout.", 'Write "split": "train".')
        rows = turns(messages, str(row.get("topic", "dialogue")), str(row.get("trait", "")))
        if not rows:
            raise BadInput(f"{path}, record {number}: no assistant turn after a user turn.", "Write the answers, too.")
        exchanges += [(row["split"], item) for item in rows]
    return exchanges


def _attacks(path: Path) -> list[Attack]:
    """Lines of `{"id", "kind", "messages": [..., a user turn], "prefill", "language"}`; the last two are optional."""
    attacks = []
    for number, row in enumerate(read_jsonl(path, "attacks"), start=1):
        messages = _messages(row, path, number)
        if messages[-1]["role"] != "user" or not row.get("id") or not row.get("kind"):
            raise BadInput(
                f"{path}, record {number}: it needs an id, a kind, and messages that end with a user turn.",
                'Write {"id": "a1", "kind": "drop_the_act", "messages": [{"role": "user", "content": "..."}]}.',
            )
        optional = [str(row.get(key, "")) for key in ("prefill", "language")]
        attacks.append(Attack(str(row["id"]), str(row["kind"]), messages, *optional))
    return attacks


def _messages(row: dict[str, Any], path: Path, number: int) -> list[Message]:
    messages = row.get("messages")
    if not isinstance(messages, list) or not messages or not all(map(_is_turn, messages)):
        raise BadInput(
            f"{path}, record {number}: messages must be a list of role (system, user, assistant) and text.",
            f"Look at it: sed -n {number}p {path}",
        )
    return messages


def _is_turn(turn: Any) -> bool:
    if not isinstance(turn, dict) or turn.get("role") not in ("system", "user", "assistant"):
        return False
    return isinstance(turn.get("content"), str) and bool(turn["content"].strip())


def _neutral(path: Path) -> list[tuple[str, str]]:
    prompts = []
    for number, row in enumerate(read_jsonl(path, "neutral prompts"), start=1):
        if not isinstance(row.get("prompt"), str) or row.get("split") not in ("train", "eval"):
            raise BadInput(
                f"{path}, record {number}: it needs a prompt and a split.",
                'Write lines of {"prompt": "...", "split": "train"} or "eval".',
            )
        prompts.append((row["split"], row["prompt"]))
    return prompts


def _names() -> str:
    return ", ".join(sorted(path.parent.name for path in Path(str(_shipped())).glob("*/persona.yaml")))


def _shipped() -> Any:
    return resources.files("moltlm.configs").joinpath("personas")
