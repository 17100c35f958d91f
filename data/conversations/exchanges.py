"""From the turns of a file to clean exchanges: redacted, compared with all earlier ones, and each loss counted.

Turns are read ahead up to a quarter of a million letters, since redaction and the search for duplicates are many times
faster on many texts at once.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from moltlm.data import forgotten
from moltlm.data.config import ImportConfig
from moltlm.data.conversations.near import Compared, DuplicateIndex
from moltlm.data.conversations.pairing import Unwanted
from moltlm.data.conversations.redact import redact_all
from moltlm.data.conversations.report import ImportReport
from moltlm.data.conversations.turns import EQUAL, MACHINE, OTHER, REJECTED_ANSWER, Conversation, FileReport, Turn
from moltlm.data.conversations.words import Bytes, word_hashes
from moltlm.data.errors import BadInput
from moltlm.data.forgotten import Forgotten
from moltlm.data.io import without_surrogates
from moltlm.data.types import EDITED, GIVEN, Exchange, Message

AHEAD = 1 << 18
"""Letters that are read ahead."""

TERMINAL = re.compile(r"\x1b(?:\[[0-?]{0,30}[ -/]{0,5}[@-~]|\][^\x07\x1b]{0,300}(?:\x07|\x1b\\)|[@-Z\\-_])?")
"""Codes of a terminal, for colours, titles and the like (ECMA-48)."""

Steps = Iterable[tuple[Conversation, Turn]]
"""The turns of a file, each with its conversation."""


class Text(NamedTuple):
    """A clean text, and the hashes of its words, by which exchanges are compared."""

    text: str
    words: np.ndarray


NOTHING = Text("", np.empty(0, np.uint64))


class Candidate(NamedTuple):
    """An exchange that is learned if it is no duplicate."""

    exchange: Exchange
    compared: Compared
    turn: Turn


@dataclass
class Dialogue:
    """The turns before an answer, of one conversation."""

    conversation: Conversation
    context: deque[Message]
    question: Text = NOTHING
    """The last turn, if it is the user's."""

    def clear(self) -> None:
        self.context.clear()
        self.question = NOTHING

    def prompt(self) -> list[Message]:
        """The turns, from the first of the user."""
        messages = list(self.context)
        return messages[1:] if messages and messages[0]["role"] == "assistant" else messages


@dataclass
class Reading:
    """How the turns of one file become exchanges."""

    config: ImportConfig
    report: ImportReport
    file: FileReport
    index: DuplicateIndex
    forgotten: Forgotten
    dialogue: Dialogue | None = field(default=None, init=False)

    def exchanges(self, steps: Steps) -> Iterator[Exchange | Unwanted]:
        """Make each assistant turn an exchange, or count it as dropped."""
        for batch in batches(steps):
            texts = iter(self._clean(batch))
            items = [
                item
                for conversation, turn in batch
                for item in self._step(conversation, turn, next(texts), next(texts) if turn.rejected else NOTHING)
            ]
            yield from self._compared(items)

    def _clean(self, batch: list[tuple[Conversation, Turn]]) -> list[Text]:
        """The texts of turns, each followed by its rejected answer if it has one."""
        texts = [text for _, turn in batch for text in (turn.text, turn.rejected)[: 1 + bool(turn.rejected)]]
        texts = [plain_text(text).strip() for text in texts]
        in_bytes, redacted = Bytes.of(texts), texts
        if self.config.redact:
            redacted, counts = redact_all(texts, in_bytes)
            self.report.redacted += counts
        if self.config.near_duplicate == 1:
            return [Text(text, NOTHING.words) for text in redacted]
        return [*map(Text, redacted, _words_of(redacted, texts, in_bytes))]

    def _step(
        self, conversation: Conversation, turn: Turn, text: Text, rejected: Text
    ) -> Iterator[Candidate | Unwanted]:
        """What a turn gives. It becomes part of the context of the next one."""
        dialogue = self.dialogue
        if dialogue is None or dialogue.conversation is not conversation:
            dialogue = self.dialogue = Dialogue(conversation, deque(maxlen=self.config.max_context_turns))
        if turn.role == "user":
            self._add_question(dialogue, turn, text)
            return
        prompt = dialogue.prompt()
        if turn.unwanted:  # another answer to the same question may follow
            self._drop(turn, turn.unwanted)
            yield Unwanted(prompt, text.text, turn.unwanted)
            return
        reason = self._reason(turn, text.text, rejected.text, prompt)
        if turn.context_only:
            self.file.noise["answer given as context"] += 1
            drop_rejected(turn, self.file)
        elif reason:
            self._drop(turn, reason)
        else:
            yield _candidate(conversation, turn, prompt, dialogue.question, text, rejected)
        if turn.role == "assistant" and text.text and prompt and dialogue.question.text:
            dialogue.context.append({"role": "assistant", "content": text.text})
            dialogue.question = NOTHING
        else:
            dialogue.clear()

    def _add_question(self, dialogue: Dialogue, turn: Turn, text: Text) -> None:
        follows_question = bool(dialogue.context) and dialogue.context[-1]["role"] == "user"
        if not text.text or turn.unwanted or follows_question:
            dialogue.clear()
        if turn.unwanted:
            self.file.noise[f"question {turn.unwanted}"] += 1
        else:
            dialogue.context.append({"role": "user", "content": text.text})
            dialogue.question = text

    def _reason(self, turn: Turn, text: str, rejected: str, prompt: list[Message]) -> str:
        """Why an assistant turn is dropped before it is compared with others, or ""."""
        if turn.role in (OTHER, MACHINE):
            return "answer to another speaker" if turn.role == OTHER else "answer to a machine"
        if not text:
            return "only tools, thinking or attachments" if turn.noisy else "empty"
        if not prompt or prompt[-1]["role"] != "user":
            return "no user turn before"
        if not prompt[-1]["content"]:
            return "empty question"
        if len(text) > self.config.max_answer_chars:
            return "too long"
        if rejected == text:  # redaction can make them equal
            return EQUAL
        turns = [*(each["content"] for each in prompt), rejected, text]
        return forgotten.REASON if self.forgotten.covers(prompt[-1]["content"], turns) else ""

    def _compared(self, items: list[Candidate | Unwanted]) -> Iterator[Exchange | Unwanted]:
        """Drop the duplicates."""
        reasons = iter(self.index.classify_all([item.compared for item in items if isinstance(item, Candidate)]))
        for item in items:
            if isinstance(item, Unwanted):
                yield item
            elif reason := next(reasons):
                self._drop(item.turn, reason)
            else:
                self.file.keep(item.exchange)
                yield item.exchange

    def _drop(self, turn: Turn, reason: str) -> None:
        self.file.drop(reason)
        drop_rejected(turn, self.file)


def batches(steps: Steps) -> Iterator[list[tuple[Conversation, Turn]]]:
    """Lists of about AHEAD letters. What stands before a fault in the file comes before its error."""
    steps = iter(steps)
    batch, letters = list[tuple[Conversation, Turn]](), 0
    while True:
        try:
            step = next(steps, None)
        except BadInput:
            yield batch
            raise
        if step is None:
            yield batch
            return
        batch.append(step)
        letters += len(step[1].text) + len(step[1].rejected)
        if letters >= AHEAD:
            yield batch
            batch, letters = [], 0


def _words_of(texts: list[str], before: list[str], in_bytes: Bytes) -> list[np.ndarray]:
    """The hashes of the words of each text; those of ASCII texts that are as before are in `in_bytes`."""
    words = [in_bytes.words_of(place) for place in range(len(texts))]
    others = [place for place, text in enumerate(texts) if text is not before[place] or not text.isascii()]
    for place, of_text in zip(others, word_hashes([texts[place] for place in others]), strict=True):
        words[place] = of_text
    return words


def _candidate(
    conversation: Conversation, turn: Turn, prompt: list[Message], question: Text, text: Text, rejected: Text
) -> Candidate:
    """A pair of answers is no duplicate of one answer, and a correction is often near to what it corrects."""
    labels = (conversation.topic, conversation.trait, conversation.source)
    exchange = Exchange(prompt, text.text, *labels, rejected.text, EDITED if turn.edited else GIVEN)
    question_text, words = question
    if rejected.text:
        question_text, words = f"{question_text}\n{rejected.text}", np.concatenate([words, rejected.words])
    return Candidate(exchange, Compared(question_text, text.text, words, text.words, not turn.edited), turn)


def drop_rejected(turn: Turn, file: FileReport) -> None:
    """Count the rejected answer of a turn that is not learned."""
    if turn.rejected:
        file.drop(REJECTED_ANSWER)


def plain_text(text: str) -> str:
    """The text without what no reader sees: codes of a terminal, zeros, byte order marks; its lines end in `\\n`."""
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    if "\x1b" in text:
        text = TERMINAL.sub("", text)
    if "\0" in text:
        text = text.replace("\0", "")
    return text if text.isascii() else without_surrogates(text.replace("\ufeff", ""))
