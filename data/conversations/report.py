"""What became of everything that an import read, and the one way in which it is told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from moltlm.data.conversations.turns import OTHER, FileReport
from moltlm.data.errors import BadInput
from moltlm.data.io import without_surrogates

SHOWN_FILES = 50
"""At most this many files are told one by one."""


@dataclass
class ImportReport:
    """What happened to everything that was read. It fills up while `importers.read` is iterated."""

    files: list[FileReport] = field(default_factory=list)
    redacted: Counter[str] = field(default_factory=Counter)
    """Number of redactions by kind (EMAIL, PHONE, CARD, IBAN, SECRET), in turns of both sides."""
    skipped: dict[str, str] = field(default_factory=dict)
    """Files that were not read, or not to their end, and why."""
    fixes: dict[str, str] = field(default_factory=dict)
    """For skipped files, what makes them readable."""

    def pass_over(self, name: str, error: BadInput) -> None:
        """Note that a file is not read, or not to its end."""
        self.skipped[name] = error.what.removeprefix(name).lstrip(",: ").rstrip(".")
        self.fixes[name] = error.fix

    @property
    def conversations(self) -> int:
        return sum(file.conversations for file in self.files)

    @property
    def turns(self) -> int:
        """Number of assistant turns: each is an exchange, the rejected side of one, or dropped."""
        return sum(file.turns for file in self.files)

    @property
    def exchanges(self) -> int:
        return sum(file.exchanges for file in self.files)

    @property
    def rejected(self) -> Counter[str]:
        """Number of exchanges with a rejected answer of their own, by its provenance."""
        return sum((file.rejected for file in self.files), Counter())

    @property
    def dropped(self) -> Counter[str]:
        """Number of assistant turns that became no exchange, by reason."""
        return sum((file.dropped for file in self.files), Counter())

    @property
    def noise(self) -> Counter[str]:
        """Number of things that were removed and are no assistant turn, by kind."""
        return sum((file.noise for file in self.files), Counter())

    @property
    def formats(self) -> Counter[str]:
        """Number of exchanges by format."""
        counts: Counter[str] = Counter()
        for file in self.files:
            counts[file.format] += file.exchanges
        return counts

    def rows(self) -> list[dict[str, Any]]:
        """One flat row for each file, for a table."""
        return [
            {
                "file": without_surrogates(file.name),
                "format": file.format,
                "conversations": file.conversations,
                "turns": file.turns,
                "exchanges": file.exchanges,
                "rejected": dict(file.rejected),
                "dropped": _counted(file.dropped),
                "removed": _counted(file.noise),
                "speakers": without_surrogates(_speakers(file.speakers)),
            }
            for file in self.files
        ]

    def facts(self) -> dict[str, Any]:
        """Everything as plain values, which `lines` tells."""
        return {
            "turns": self.turns,
            "exchanges": self.exchanges,
            "rejected": dict(self.rejected),
            "dropped": dict(self.dropped),
            "removed": dict(+self.noise),
            "redacted": dict(self.redacted),
            "files": self.rows(),
            "skipped": {without_surrogates(name): without_surrogates(why) for name, why in self.skipped.items()},
        }

    def nothing_learned(self, paths: list[str]) -> BadInput | None:
        """The error for conversations of which not one answer can be learned; None if there is one."""
        if self.exchanges:
            return None
        reasons = _counted(self.dropped) or _counted(self.noise) or "there is no answer in them"
        what = f"Nothing can be learned from {', '.join(paths)}: of {self.turns} answers none is left ({reasons})."
        what += self.passed_over("")
        return BadInput(what, next(iter(self.fixes.values()), "Name conversations with other answers."))

    def passed_over(self, path: str) -> str:
        """A sentence about the files in a folder or archive that were passed over, or ""."""
        skipped = [f"{name}: {why}" for name, why in self.skipped.items() if name.startswith(path)]
        return f" Passed over: {'; '.join(skipped[:3])}{'; ...' if len(skipped) > 3 else ''}." if skipped else ""


def lines(facts: Mapping[str, Any]) -> list[str]:
    """What was read, in which format and whose voice, and what was left out and why: one line for each file, and each
    kind of loss.

    Args:
        facts: what `ImportReport.facts` returns.
    """
    files, skipped = facts.get("files", []), facts.get("skipped", {})
    text = [_file(row) for row in files[:SHOWN_FILES]]
    text += [f"{name}: passed over, {why}" for name, why in list(skipped.items())[:SHOWN_FILES]]
    more = [(len(files), "more files read"), (len(skipped), "more files passed over")]
    text += [f"{count - SHOWN_FILES} {what}" for count, what in more if count > SHOWN_FILES]
    if facts.get("redacted"):
        text.append(f"redacted: {_counted(facts['redacted'])}")
    if len(files) > 1:
        text += [f"{name}: {_counted(facts[name])}" for name in ("dropped", "removed") if facts.get(name)]
    return text


def _file(row: Mapping[str, Any]) -> str:
    parts = [f"{key} {row[key]}" for key in ("dropped", "removed") if row[key]]
    if row.get("rejected"):
        parts.insert(0, f"with a worse answer: {_counted(row['rejected'])}")
    parts += [row["speakers"]] if row.get("speakers") else []
    left_out = f" ({'; '.join(parts)})" if parts else ""
    return (
        f"{row['file']}: {row['format']}, {row['conversations']} conversations, {row['exchanges']} exchanges{left_out}"
    )


def _counted(counts: Mapping[str, int]) -> str:
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count} {name}" for name, count in ordered if count)


def _speakers(roles: Mapping[str, str]) -> str:
    """Who was taken for the persona, the user and neither, of speakers who are only named."""
    return "; ".join(_named(roles))


def _named(roles: Mapping[str, str]) -> Iterator[str]:
    for role, title in (("assistant", "persona"), ("user", "user"), (OTHER, "neither")):
        names = [name for name, each in roles.items() if each == role]
        if names:
            yield f"{title}: {', '.join(names[:5])}{' ...' if len(names) > 5 else ''}"
