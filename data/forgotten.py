"""What was forgotten, remembered by hash alone: whatever reads conversations leaves it out."""

from __future__ import annotations

import hashlib
import secrets
import unicodedata
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path

from moltlm.data.errors import BadInput
from moltlm.data.io import read_json, to_json, utc_now, write_text

LONG = 24
"""A text of this many characters stands for itself; a shorter one counts only as a question with its answer."""
REASON = "forgotten"


def normalised(text: str) -> str:
    """The text as it is compared: compatible characters are one, and case, white space and invisible characters do not
    count."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
        text = "".join(char for char in text if unicodedata.category(char) != "Cf")
    return " ".join(text.casefold().split())


@dataclass(frozen=True)
class Removal:
    """One removal.

    Attributes:
        time: UTC, ISO 8601.
        hashes: of turns, and of questions with their answers.
        files: SHA-256 of the conversation files that held it.
    """

    time: str
    hashes: list[str]
    files: list[str]


@dataclass(frozen=True)
class Forgotten:
    """All removals. The salt keeps others from comparing the hashes with those of another project."""

    salt: str = ""
    removals: list[Removal] = field(default_factory=list)

    def covers(self, question: str, turns: Sequence[str]) -> bool:
        """Whether an exchange was forgotten.

        Args:
            turns: the texts of all its turns, the answer last.
        """
        if not self.removals:
            return False
        keys = {self.hash_of(text) for text in turns if len(normalised(text)) >= LONG}
        return not keys.isdisjoint(self._hashes) or self.hash_of(question, turns[-1]) in self._hashes

    @cached_property
    def _hashes(self) -> set[str]:
        return {each for removal in self.removals for each in removal.hashes}

    def hash_of(self, *texts: str) -> str:
        """The salted hash of a turn, or of a question and its answer."""
        joined = "\0".join(map(normalised, texts))
        return hashlib.blake2b(joined.encode(), key=self.salt.encode(), digest_size=16).hexdigest()

    def in_files(self, digests: Collection[str]) -> list[str]:
        """The hashes of what files held when it was forgotten: artifacts that were made from them before differ from
        those that are made now.

        Args:
            digests: SHA-256 of the files.
        """
        return sorted({each for one in self.removals if not set(one.files).isdisjoint(digests) for each in one.hashes})


def load(path: Path) -> Forgotten:
    """What was forgotten by this file; nothing if there is none. Raises BadInput for a damaged file."""
    if not path.is_file():
        return Forgotten()
    try:
        raw = read_json(path)
        return Forgotten(raw["salt"], [Removal(**removal) for removal in raw["removals"]])
    except (TypeError, KeyError, AttributeError):
        raise BadInput(
            f"{path} is damaged, so it is not known what was forgotten.",
            f"Forget it again, after this: mv {path} {path}.damaged",
        ) from None


def remember(path: Path, turns: Iterable[str], exchanges: Iterable[tuple[str, str]], files: Iterable[str]) -> None:
    """Add a removal to the file, which its owner alone can read.

    Args:
        turns: texts; the short ones among them are left out.
        exchanges: questions with their answers.
        files: SHA-256 of the conversation files that held them.
    """
    before = load(path)
    ledger = Forgotten(before.salt or secrets.token_hex(16), before.removals)
    hashes = {ledger.hash_of(text) for text in turns if len(normalised(text)) >= LONG}
    hashes |= {ledger.hash_of(*pair) for pair in exchanges}
    removal = Removal(utc_now(), sorted(hashes), sorted(set(files)))
    write_text(path, to_json(asdict(Forgotten(ledger.salt, [*ledger.removals, removal]))) + "\n", private=True)
