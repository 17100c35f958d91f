"""What was said to the server, for the next retraining: one file for each conversation, as the importer reads it.

Clients send the whole conversation again with every turn. A file is therefore found by its content, and grows. Answers
that this server did not give, or that nobody should learn, have `"weight": 0`: they are context.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from threading import Lock
from typing import Any

from moltlm.data import forgotten
from moltlm.data.conversations.redact import redact
from moltlm.data.io import fingerprint, write_text
from moltlm.data.types import Message

SOURCE = FOLDER = "served"
UP, DOWN = "thumbs_up", "thumbs_down"
Turn = dict[str, Any]
"""A message, perhaps with `said_by`, `weight`, `feedback` (UP or DOWN) and `finish_reason`."""


@dataclass(frozen=True)
class Archive:
    """Conversations in a folder that their owner alone can read.

    Attributes:
        redacts: whether private things become marks before anything is written.
        forgotten: the file of what was forgotten, which is not written again; clients still send it as context.
    """

    folder: Path
    redacts: bool
    forgotten: Path | None = None
    _lock: Lock = field(default_factory=Lock)

    def add(self, prompt: list[Message], answer: str, said_by: str, is_learned: bool, is_whole: bool) -> None:
        """Store an answer. One that is given again to the same messages replaces the former, unless that has a thumb.

        Args:
            is_learned: whether a retraining may learn it.
            is_whole: whether it ended by itself.
        """
        turns = self._turns(prompt)
        if not _is_question(turns) or not answer.strip() or self._is_forgotten(prompt, answer):
            return
        turn: Turn = {"role": "assistant", "content": self._clean(answer), "said_by": said_by}
        turn |= {} if is_learned else {"weight": 0}
        turn |= {} if is_whole else {"finish_reason": "length"}
        with self._lock:
            path, messages = self._conversation(turns)
            last = messages[-1]
            if last["role"] == "assistant":
                if last["content"] == turn["content"] or last.get("feedback") == UP:
                    return
                messages = messages if last.get("feedback") == DOWN else messages[:-1]
            self._write(path, [*messages, turn])

    def mark(self, prompt: list[Message], answer: str, said_by: str, feedback: str | None) -> None:
        """Note what the user thinks of an answer: UP is learned, DOWN never is, None takes the mark back."""
        turns, content = self._turns(prompt), self._clean(answer)
        if not _is_question(turns) or self._is_forgotten(prompt, answer):
            return
        with self._lock:
            path, messages, place = self._answer(turns, content)
            if place is None:
                if feedback is None:
                    return
                path, messages = self._conversation(turns)
                place = _place_beside(messages, feedback)
                messages.insert(place, {"role": "assistant", "content": content, "said_by": said_by, "weight": 0})
            messages[place] = _marked(messages[place], feedback)
            self._write(path, messages)

    def correct(self, prompt: list[Message], answer: str, better: str) -> None:
        """Put the user's version in place of an answer, as context: the correction itself is learned elsewhere."""
        turns = self._turns(prompt)
        with self._lock:
            path, messages, place = self._answer(turns, self._clean(answer))
            if place is not None:
                messages[place] = {"role": "assistant", "content": self._clean(better), "said_by": "user", "weight": 0}
                self._write(path, messages)

    def _is_forgotten(self, prompt: list[Message], answer: str) -> bool:
        if self.forgotten is None:
            return False
        removals = forgotten.load(self.forgotten)
        turns = [turn["content"] for turn in prompt if turn["role"] != "system"]
        forms = ([*turns, answer], [self._clean(text) for text in [*turns, answer]])
        return any(removals.covers(form[-2], form) for form in forms)

    def _turns(self, prompt: list[Message]) -> list[Turn]:
        """What the two sides said, without system messages, which clients change from turn to turn."""
        turns = [turn for turn in prompt if turn["role"] in ("user", "assistant")]
        return [{"role": turn["role"], "content": self._clean(turn["content"])} for turn in turns]

    def _clean(self, text: str) -> str:
        text = text.strip().encode(errors="replace").decode()
        return redact(text)[0] if self.redacts else text

    def _conversation(self, turns: list[Turn]) -> tuple[Path, list[Turn]]:
        """The file of a conversation, and its messages with these turns at the end; after them, perhaps, the answer
        that was given before to the same turns."""
        best: tuple[Path, list[Turn]] | None = None
        for path, messages in self._files(turns):
            shown_turns = _shown_turns(messages)
            if shown_turns[-1]["role"] == "assistant" and _same(shown_turns[:-1], turns):
                return path, messages
            length = len(shown_turns)
            if _same(shown_turns, turns[:length]) and length > (len(_shown_turns(best[1])) if best else 0):
                best = path, messages
        path, messages = best or (self._new(turns), [])
        rest = turns[len(_shown_turns(messages)) :]
        return path, messages + [{**turn, "weight": 0} if turn["role"] == "assistant" else turn for turn in rest]

    def _answer(self, turns: list[Turn], content: str) -> tuple[Path, list[Turn], int | None]:
        """The file and the place of an answer to these turns; None where it is in no file."""
        for path, messages in self._files(turns):
            for place, turn in enumerate(messages):
                if turn["role"] != "assistant" or turn["content"] != content:
                    continue
                before = messages[:place]
                while before and before[-1]["role"] == "assistant":
                    before = before[:-1]
                if _same(_shown_turns(before), turns):
                    return path, messages, place
        return self._new(turns), [], None

    def _files(self, turns: list[Turn]) -> Iterator[tuple[Path, list[Turn]]]:
        """The conversations that begin as these turns do."""
        for path in sorted(self.folder.glob(f"{_beginning(turns)}-*.json")):
            try:
                messages = json.loads(path.read_text(encoding="utf-8"))["messages"]
                if messages and all({"role", "content"} <= turn.keys() for turn in messages):
                    yield path, messages
            except (OSError, ValueError, LookupError, AttributeError, TypeError):
                continue  # the user changed it; it stays as it is

    def _new(self, turns: list[Turn]) -> Path:
        beginning, number = _beginning(turns), 1
        while (path := self.folder / f"{beginning}-{number}.json").exists():
            number += 1
        return path

    def _write(self, path: Path, messages: list[Turn]) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        document = {"source": SOURCE, "messages": messages}
        write_text(path, json.dumps(document, ensure_ascii=False, indent=1) + "\n", private=True)


def _beginning(turns: list[Turn]) -> str:
    """Names the conversations that are the same up to their first question."""
    first = next((place for place, turn in enumerate(turns) if turn["role"] == "user"), 0)
    return fingerprint([[turn["role"], turn["content"]] for turn in turns[: first + 1]])[:16]


def _is_question(turns: Sequence[Turn]) -> bool:
    return bool(turns) and turns[-1]["role"] == "user" and bool(turns[-1]["content"])


def _shown_turns(messages: Sequence[Turn]) -> list[Turn]:
    """The messages as a client sees them: of several answers to one question, the last."""
    ends: list[Turn] = [{"role": ""}]
    return [one for one, after in pairwise([*messages, *ends]) if not one["role"] == after["role"] == "assistant"]


def _same(one: Sequence[Turn], other: Sequence[Turn]) -> bool:
    def plain(turns: Sequence[Turn]) -> list[tuple[str, str]]:
        return [(turn["role"], turn["content"]) for turn in turns]

    return plain(one) == plain(other)


def _place_beside(messages: list[Turn], feedback: str) -> int:
    """Where a marked answer goes: beside one with the opposite mark, which makes a preference, in place of any other,
    or at the end."""
    last = messages[-1]
    if last["role"] == "assistant" and {feedback, last.get("feedback")} != {UP, DOWN}:
        del messages[-1]
    return len(messages) - (last.get("feedback") == UP != feedback)


def _marked(turn: Turn, feedback: str | None) -> Turn:
    """An answer with a mark. One that is context otherwise is learned by UP, and is context again without it."""
    marked = {key: value for key, value in turn.items() if key != "feedback"}
    if "weight" in turn:
        marked["weight"] = 1 if feedback == UP else 0
    return marked | ({"feedback": feedback} if feedback else {})


def answers(folder: Path) -> tuple[list[str], set[str]]:
    """What models said in the stored conversations, and what of it the user gave a thumb up. Damaged files are left
    out: the importer names them."""
    texts, liked = [], set()
    for path in sorted(folder.glob("*.json")):
        try:
            messages = json.loads(path.read_text(encoding="utf-8"))["messages"]
            turns = [
                turn
                for turn in messages
                if turn["role"] == "assistant" and turn.get("said_by") not in ("", "user", None)
            ]
            texts += [turn["content"] for turn in turns]
            liked |= {turn["content"].strip() for turn in turns if turn.get("feedback") == UP}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
    return texts, liked
