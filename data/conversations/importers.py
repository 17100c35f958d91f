"""The user's own conversations, as people have them, into exchanges: streamed, cleaned and accounted for.

`sources` opens files, folders and archives, `formats` and `transcripts` know what is in them, `redact` removes what
must not be trained on, and `near` tells what was there before.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

from moltlm.data.config import ImportConfig
from moltlm.data.conversations import formats, transcripts
from moltlm.data.conversations.formats import Conversation, FileReport, Turn
from moltlm.data.conversations.near import DuplicateIndex
from moltlm.data.conversations.redact import redact
from moltlm.data.conversations.sources import LIMIT, Source, head, json_lines, json_values, parse, sources
from moltlm.data.errors import BadInput
from moltlm.data.types import Exchange, Message


@dataclass
class ImportReport:
    """What became of everything that was read. Grows while `read` goes on."""

    files: list[FileReport] = field(default_factory=list)
    redacted: Counter[str] = field(default_factory=Counter)
    """Marks put in, by kind (EMAIL, PHONE, CARD, IBAN, SECRET), in turns of either side."""
    skipped: dict[str, str] = field(default_factory=dict)
    """Files that were passed over, and why."""

    @property
    def conversations(self) -> int:
        return sum(file.conversations for file in self.files)

    @property
    def turns(self) -> int:
        """Assistant turns: as many as exchanges and dropped ones together."""
        return sum(file.turns for file in self.files)

    @property
    def exchanges(self) -> int:
        return sum(file.exchanges for file in self.files)

    @property
    def dropped(self) -> Counter[str]:
        """Assistant turns that became no exchange, by reason."""
        return sum((file.dropped for file in self.files), Counter())

    @property
    def noise(self) -> Counter[str]:
        """What was taken out and is no assistant turn, by kind."""
        return sum((file.noise for file in self.files), Counter())

    @property
    def formats(self) -> Counter[str]:
        """Exchanges by format."""
        found: Counter[str] = Counter()
        for file in self.files:
            found[file.format] += file.exchanges
        return found

    def rows(self) -> list[dict[str, Any]]:
        """One flat row a file, for a table."""
        return [
            {
                "file": file.name,
                "format": file.format,
                "conversations": file.conversations,
                "turns": file.turns,
                "exchanges": file.exchanges,
                "dropped": ", ".join(f"{count} {reason}" for reason, count in sorted(file.dropped.items())),
                "removed": ", ".join(f"{count} {kind}" for kind, count in sorted(file.noise.items()) if count),
            }
            for file in self.files
        ]


def read(paths: list[Path], config: ImportConfig, report: ImportReport) -> Iterator[Exchange]:
    """Every assistant turn that follows a user turn, with up to `max_context_turns` turns before it, in sorted order.

    Formats are told by content. Turns of one side in a row are one turn. An empty turn breaks the conversation: what
    follows it starts without context. Holds one conversation of a JSON file at a time, or one turn of any other.
    Raises BadInput naming file and place for anything malformed, a folder or archive without a conversation, and an
    unknown format where the user named the file itself; in folders and archives such files are skipped and reported.
    """
    if not paths:
        raise BadInput("No conversations to read.", f"Name at least one of: {formats.SUPPORTED}.")
    with DuplicateIndex(config.near_duplicate) as index:
        for path in paths:
            before = report.conversations
            with sources(path, report.skipped.__setitem__) as found:
                for source in found:
                    yield from _file(source, config, report, index)
            if report.conversations == before:
                raise _nothing(path, report)


def _nothing(path: Path, report: ImportReport) -> BadInput:
    skipped = [f"{name}: {why}" for name, why in report.skipped.items() if name.startswith(str(path))]
    there = f" Skipped: {'; '.join(skipped[:3])}{'; ...' if len(skipped) > 3 else ''}." if skipped else ""
    return BadInput(f"No conversations in {path}.{there}", f"Put there any of: {formats.SUPPORTED}.")


def _file(source: Source, config: ImportConfig, report: ImportReport, index: DuplicateIndex) -> Iterator[Exchange]:
    file = FileReport(source.name)
    found = _conversations(source, file)
    if found is None:
        if source.named:
            raise _unknown(source)
        report.skipped[source.name] = "no known format"
        return
    report.files.append(file)
    for conversation in found:
        yield from _exchanges(conversation, source, config, report, index)


def _conversations(source: Source, file: FileReport) -> Iterator[Conversation] | None:
    """The conversations of a file, by what it begins with; None for an unknown format, or nothing at all."""
    start = head(source)
    text = start.decode(errors="replace").lstrip()
    if text[:1] == "{":
        return formats.conversations(_objects(source, text), source, file)
    if text[:1] == "[" and text[1:].lstrip()[:1] in ("{", ""):
        return formats.conversations(json_values(source), source, file)
    spoken = transcripts.style_of(text)
    return transcripts.conversations(*spoken, source, file) if spoken else None


def _objects(source: Source, text: str) -> Iterator[tuple[str, Any]]:
    """Of a file that begins with an object: JSONL if the first line is whole, else JSON over several lines."""
    first, ended, _ = text.partition("\n")
    if ended:
        try:
            parse(first)
        except ValueError:
            return json_values(source)
    return json_lines(source)


def _unknown(source: Source) -> BadInput:
    text = " ".join(head(source).decode(errors="replace").split())
    found = f"It begins with: {text[:60]!r}" if text else "It is empty"
    return source.bad(f" holds no conversation of a known format. {found}.", f"Known are: {formats.SUPPORTED}.")


def _exchanges(
    conversation: Conversation, source: Source, config: ImportConfig, report: ImportReport, index: DuplicateIndex
) -> Iterator[Exchange]:
    """Each assistant turn becomes an exchange, or is counted as dropped."""
    file = report.files[-1]
    context: deque[Message] = deque(maxlen=config.max_context_turns)
    for turn in _merged(conversation, source, file):
        text = _clean(turn.text, config, report)
        if turn.role == "user":
            if not text:
                context.clear()
            context.append({"role": "user", "content": text})
            continue
        prompt = list(context)
        if prompt and prompt[0]["role"] == "assistant":
            prompt = prompt[1:]
        reason = "" if turn.context_only else _reason(turn, text, prompt, config, index)
        if turn.context_only:
            file.noise["answer given as context"] += 1
        elif reason:
            file.drop(reason)
        else:
            file.turns += 1
            file.exchanges += 1
            yield Exchange(prompt, text, conversation.topic, conversation.trait, conversation.source)
        if text and prompt and prompt[-1]["content"]:
            context.append({"role": "assistant", "content": text})
        else:
            context.clear()


def _reason(turn: Turn, text: str, prompt: list[Message], config: ImportConfig, index: DuplicateIndex) -> str:
    """Why an assistant turn is no exchange; "" if it is one."""
    if not text:
        return "only tools or thinking" if turn.noisy else "empty"
    if not prompt:
        return "no user turn before"
    if not prompt[-1]["content"]:
        return "empty question"
    if len(text) > config.max_answer_chars:
        return "too long"
    return index.classify(prompt[-1]["content"], text)


def _merged(conversation: Conversation, source: Source, file: FileReport) -> Iterator[Turn]:
    """Turns of one role in a row as one, with a blank line between them. Raises BadInput for one over LIMIT."""
    for role, run in groupby(conversation.turns, key=lambda turn: turn.role):
        texts, size, noisy, context_only = [], 0, False, True
        for count, turn in enumerate(run):
            file.noise[f"{role} turn joined to the one before"] += count > 0
            size += len(turn.text)
            if size > LIMIT:
                raise source.bad(f", {conversation.place}: one turn is larger than {LIMIT >> 20} MiB.")
            texts.append(turn.text.strip())
            noisy, context_only = noisy or turn.noisy, context_only and turn.context_only
        yield Turn(role, "\n\n".join(filter(None, texts)), noisy, context_only)


def _clean(text: str, config: ImportConfig, report: ImportReport) -> str:
    """Redacted, and without half characters, which JSON can hold and UTF-8 cannot."""
    if not text.isascii():
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if config.redact:
        text, counts = redact(text)
        report.redacted += counts
    return text


def write(exchanges: Iterable[Exchange], path: Path) -> int:
    """Write exchanges as JSONL with `messages`, one a line, and return how many. Streamed; all or nothing is there.

    Answers in the context have `"weight": 0`, as in OpenAI's fine-tuning format: no turns to learn. Reading the file
    with the same configuration gives the same exchanges.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    count = 0
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as out:
            for exchange in exchanges:
                out.write(json.dumps(_row(exchange), ensure_ascii=False) + "\n")
                count += 1
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return count


def _row(exchange: Exchange) -> dict[str, Any]:
    context = [{**turn, "weight": 0} if turn["role"] == "assistant" else turn for turn in exchange.prompt]
    told = {key: value for key in ("source", "topic", "trait") if (value := getattr(exchange, key))}
    return {"messages": [*context, {"role": "assistant", "content": exchange.answer}], **told}
