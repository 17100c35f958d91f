"""What a personality takes along to another base: what it learned, its own best answers, and what measures it.

It is stored in a folder that `persona.carried` names.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors.numpy import load_file, save_file

from moltlm.data import topk
from moltlm.data.errors import BadInput
from moltlm.data.io import fingerprint, read_json, write_json
from moltlm.data.rows import read_rows, write_rows
from moltlm.data.topk import TopK
from moltlm.data.types import Exchange

TRAIN, HELDOUT, ARRAYS, IDS = "train.jsonl", "heldout.jsonl", "distributions.safetensors", "distributions.json"
OWN = "own answer"
"""Source of an exchange whose answer the personality gave on its former base."""
LEARNED = "learned before"
"""Source of an exchange that the personality learned on its former base, and that is not a written one."""


@dataclass(frozen=True)
class Carried:
    """What is carried.

    Attributes:
        train: exchanges to learn besides the persona's written ones; `source` is LEARNED or OWN.
        heldout: the exchanges that the personality was measured with, none of which is learned.
        distributions: those of the personality over its own answers, by `id_of`, where the bases share a vocabulary.
    """

    train: list[Exchange] = field(default_factory=list)
    heldout: list[Exchange] = field(default_factory=list)
    distributions: dict[str, TopK] = field(default_factory=dict)

    @property
    def lessons(self) -> tuple[list[Exchange], list[TopK]]:
        """The own answers whose distributions are stored, and these, in the same order."""
        stored = [item for item in self.train if item.source == OWN and id_of(item) in self.distributions]
        return stored, [self.distributions[id_of(item)] for item in stored]


def id_of(item: Exchange) -> str:
    """What a distribution is stored by."""
    return fingerprint([item.prompt, item.answer])


def save(carried: Carried, folder: Path, vocabulary: int) -> None:
    """Write it into a folder.

    Args:
        vocabulary: number of tokens of the model whose distributions they are.
    """
    write_rows(folder / TRAIN, carried.train)
    write_rows(folder / HELDOUT, carried.heldout)
    if carried.distributions:
        write_json(folder / IDS, list(carried.distributions))
        save_file(topk.pack(list(carried.distributions.values()), "int8", vocabulary), folder / ARRAYS)


def load(folder: Path) -> Carried:
    """Read what `save` wrote. Raises BadInput, naming the setting, for any other folder."""
    if not (folder / HELDOUT).is_file():
        raise BadInput(
            f"persona.carried: {folder} holds nothing that was carried from another base.",
            "Leave it out: persona.carried=null   or carry it there again: molt move CONFIG MODEL",
        )
    distributions: dict[str, TopK] = {}
    if (folder / ARRAYS).is_file():
        ids: Any = read_json(folder / IDS)
        distributions = dict(zip(ids, topk.unpack(load_file(folder / ARRAYS)), strict=True))
    train = read_rows(folder / TRAIN, Exchange) if (folder / TRAIN).is_file() else []
    return Carried(train, read_rows(folder / HELDOUT, Exchange), distributions)
