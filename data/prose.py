"""Ordinary prose, in passages: what a model continues where general ability is anchored, or where a text is a task."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from importlib import resources
from pathlib import Path

from moltlm.data.errors import BadInput
from moltlm.data.io import read_jsonl, read_text
from moltlm.data.types import RAW, Exchange

WORDS, PREFIX_WORDS = 96, 1
"""Length of a passage of an anchor, and how much of it the model is given. It predicts the rest."""


def shipped() -> Path:
    """The prose that comes with the project: a hundred passages, written for it, of fiction, reference and news."""
    return Path(str(resources.files("moltlm").joinpath("configs/prose.jsonl")))


def anchor(path: str = "") -> list[Exchange]:
    """The passages of a file: its beginning as the prompt, the rest as the answer, without a chat template.

    Args:
        path: JSON lines with a `text`, or plain text with an empty line between paragraphs; "" for what is shipped.

    Raises:
        BadInput: if there is no passage in it.
    """
    file = source(path)
    texts = [str(row.get("text", "")) for row in read_jsonl(file, "prose")] if _is_lines(file) else paragraphs(file)
    if rows := list(passages(texts, WORDS, PREFIX_WORDS)):
        return rows
    raise BadInput(f"{file} holds no prose.", "Set train.prose= for what is shipped, or name a file with text")


def source(path: str = "") -> Path:
    """The file that `anchor` reads."""
    return Path(path) if path else shipped()


def paragraphs(path: Path) -> list[str]:
    """What empty lines separate."""
    return re.split(r"\n\s*\n", read_text(path))


def passages(texts: Iterable[str], words: int, prefix_words: int) -> Iterator[Exchange]:
    """Each text in passages of `words` words, the first `prefix_words` of which are the prompt. A short rest is
    dropped."""
    for text in texts:
        parts = text.split()
        for first in range(0, len(parts), words):
            piece = parts[first : first + words]
            if len(piece) >= max(16, 2 * prefix_words):
                begin, rest = " ".join(piece[:prefix_words]), " ".join(piece[prefix_words:])
                yield Exchange([{"role": RAW, "content": begin}], f" {rest}")


def _is_lines(file: Path) -> bool:
    return file.suffix in (".jsonl", ".json")
