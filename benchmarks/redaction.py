"""Precision and recall of redaction by kind, and its speed: `python benchmarks/redaction.py [FILE.jsonl ...]`.

The labelled lines are in `tests/redaction.jsonl`. ⟦ ⟧ stand around what is private, and `{A36}` for 36 random letters
and digits, so that no scanner takes the file for a leak.
"""

from __future__ import annotations

import json
import random
import re
import string
import sys
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from moltlm.data.conversations.redact import redact

LINES = Path(__file__).resolve().parent.parent / "tests" / "redaction.jsonl"
LETTERS = {
    "A": string.ascii_letters + string.digits,
    "L": string.ascii_letters,
    "W": string.ascii_letters + string.digits,
    "H": "0123456789abcdef",
    "D": "123456789",
    "U": string.ascii_uppercase + "234567",
    "B": "QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L",
}


@dataclass(frozen=True)
class Line:
    kind: str
    language: str
    before: str
    private: str
    """"" for a public line."""
    after: str

    @property
    def text(self) -> str:
        return self.before + self.private + self.after

    def removed(self, redacted: str) -> bool:
        """Whether the private value is gone, and nothing else is."""
        marked = rf"{re.escape(self.before)}\[[A-Z]+\]{re.escape(self.after)}"
        return re.fullmatch(marked, redacted) is not None


def lines(seed: int = 0) -> list[Line]:
    """The labelled lines, with random tokens of a seed."""
    rng = random.Random(seed)

    def filled(match: re.Match[str]) -> str:
        return "".join(rng.choices(LETTERS[match[1]], k=int(match[2])))

    result = []
    for row in map(json.loads, LINES.read_text(encoding="utf-8").splitlines()):
        text = re.sub(r"\{([A-Z])(\d+)\}", filled, row["text"])
        before, _, rest = text.partition("⟦")
        private, _, after = rest.partition("⟧")
        result.append(Line(row["kind"], row["language"], before, private, after))
    return result


def counts(labelled: list[Line]) -> dict[str, dict[str, int]]:
    """By kind: the lines, and how many of them are redacted exactly, missed or partly missed, or redacted falsely."""
    table: dict[str, dict[str, int]] = defaultdict(lambda: {"lines": 0, "exact": 0, "missed": 0, "false": 0})
    for line in labelled:
        redacted, _ = redact(line.text)
        row = table[line.kind]
        row["lines"] += 1
        row["exact"] += bool(line.private) and line.removed(redacted)
        row["missed"] += bool(line.private) and line.private in redacted
        row["false"] += not line.private and redacted != line.text
    return dict(table)


def quality(seeds: int = 5) -> tuple[float, float]:
    """Precision (private among the redacted lines) and recall (private values that are gone, and nothing else)."""
    exact = false = private = 0
    for seed in range(seeds):
        table = counts(lines(seed)).values()
        exact += sum(row["exact"] for row in table)
        false += sum(row["false"] for row in table)
        private += sum(1 for line in lines(seed) if line.private)
    return exact / (exact + false), exact / private


def megabytes_a_second(texts: list[str]) -> float:
    """The best of five, of processor time."""
    size, seconds = sum(len(text.encode()) for text in texts), []
    for _ in range(5):
        began = time.process_time()
        for text in texts:
            redact(text)
        seconds.append(time.process_time() - began)
    return size / min(seconds) / 1e6


def texts(path: Path) -> list[str]:
    """The texts of 40 characters and more in a JSONL file, as in a file of conversations."""
    result: list[str] = []

    def collect(value: object) -> None:
        if isinstance(value, str) and len(value) >= 40:
            result.append(value)
        elif isinstance(value, dict):
            for each in value.values():
                collect(each)
        elif isinstance(value, list):
            for each in value:
                collect(each)

    for row in path.read_text(encoding="utf-8").splitlines():
        collect(json.loads(row))
    return result


def main() -> None:
    for name in sys.argv[1:]:
        print(f"{name}: {megabytes_a_second(texts(Path(name))):.1f} MB/s")
    labelled = lines()
    private = {line.kind for line in labelled if line.private}
    print(f"{'kind':16s} lines  exact missed  false")
    for kind, row in sorted(counts(labelled).items(), key=lambda item: (item[0] not in private, item[0])):
        figures = f"{row['exact']:6d} {row['missed']:6d}" if kind in private else f"{'':13s} {row['false']:6d}"
        print(f"{kind:16s} {row['lines']:5d} {figures}")
    precision, recall = quality()
    print(f"precision {precision:.3f}, recall {recall:.3f}")


if __name__ == "__main__":
    main()
