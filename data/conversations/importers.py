"""Import conversations: from chat exports to clean exchanges, streamed, with a count of everything that is left out.

`sources` opens files, folders and archives, `formats` and `transcripts` read what they contain, `redact` removes what
must not be trained on, and `near` finds duplicates.
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
from moltlm.data.conversations.near import DuplicateIndex
from moltlm.data.conversations.redact import redact
from moltlm.data.conversations.sources import LIMIT, Source, head, json_lines, json_values, parse, sources
from moltlm.data.conversations.turns import Conversation, FileReport, Turn
from moltlm.data.errors import BadInput
from moltlm.data.types import Exchange, Message


@dataclass
class ImportReport:
    """What happened to everything that was read. It fills up while `read` is iterated."""

    files: list[FileReport] = field(default_factory=list)
    redacted: Counter[str] = field(default_factory=Counter)
    """Number of redactions by kind (`redact.MARKS`), in turns of both sides."""
    skipped: dict[str, str] = field(default_factory=dict)
    """Files that were not read, and why."""

    @property
    def conversations(self) -> int:
        return sum(file.conversations for file in self.files)

    @property
    def turns(self) -> int:
        """Number of assistant turns: each is an exchange or dropped."""
        return sum(file.turns for file in self.files)

    @property
    def exchanges(self) -> int:
        return sum(file.exchanges for file in self.files)

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
    """Read every assistant turn that follows a user turn, with up to `max_context_turns` turns before it.

    Files are read in sorted order, and their formats are detected from their content. Consecutive turns of one side are
    joined. An empty turn ends the context: the turns after it start without any. Memory holds one conversation of a
    JSON file at a time, or one turn of any other file.

    Args:
        paths: files, folders or zip archives.
        report: is filled while the exchanges are consumed.

    Raises:
        BadInput: naming file and place, for anything malformed; for a folder or archive without conversations; and for
            an unknown format, if the user named the file itself. In folders and archives such files are skipped and
            reported.
    """
    if not paths:
        raise BadInput("No conversations to read.", f"Name at least one of: {formats.SUPPORTED}.")
    with DuplicateIndex(config.near_duplicate) as index:
        for path in paths:
            before = report.conversations
            with sources(path, report.skipped.__setitem__) as files:
                for source in files:
                    yield from _file(source, config, report, index)
            if report.conversations == before:
                raise _nothing(path, report)


def _nothing(path: Path, report: ImportReport) -> BadInput:
    skipped = [f"{name}: {why}" for name, why in report.skipped.items() if name.startswith(str(path))]
    reasons = f" Skipped: {'; '.join(skipped[:3])}{'; ...' if len(skipped) > 3 else ''}." if skipped else ""
    return BadInput(f"No conversations in {path}.{reasons}", f"Supported are: {formats.SUPPORTED}.")


def _file(source: Source, config: ImportConfig, report: ImportReport, index: DuplicateIndex) -> Iterator[Exchange]:
    file = FileReport(source.name)
    conversations = _conversations(source, file)
    if conversations is None:
        if source.named:
            raise _unknown(source)
        report.skipped[source.name] = "no known format"
        return
    report.files.append(file)
    for conversation in conversations:
        yield from _exchanges(conversation, source, config, report, index)


def _conversations(source: Source, file: FileReport) -> Iterator[Conversation] | None:
    """The conversations of a file, whose format is detected from its beginning; None for an unknown format."""
    start = head(source)
    text = start.decode(errors="replace").lstrip()
    if text[:1] == "{":
        return formats.conversations(_objects(source, text), source, file)
    if text[:1] == "[" and text[1:].lstrip()[:1] in ("{", ""):
        return formats.conversations(json_values(source), source, file)
    style = transcripts.style_of(text)
    return transcripts.conversations(*style, source, file) if style else None


def _objects(source: Source, text: str) -> Iterator[tuple[str, Any]]:
    """The values of a file that begins with an object: JSONL if the first line is whole, else JSON of several lines."""
    first, ended, _ = text.partition("\n")
    if ended:
        try:
            parse(first)
        except ValueError:
            return json_values(source)
    return json_lines(source)


def _unknown(source: Source) -> BadInput:
    text = " ".join(head(source).decode(errors="replace").split())
    beginning = f"It begins with: {text[:60]!r}" if text else "It is empty"
    return source.bad(f" holds no conversation of a known format. {beginning}.", f"Known are: {formats.SUPPORTED}.")


def _exchanges(
    conversation: Conversation, source: Source, config: ImportConfig, report: ImportReport, index: DuplicateIndex
) -> Iterator[Exchange]:
    """Make each assistant turn an exchange, or count it as dropped."""
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
    """Why an assistant turn is dropped; "" if it is an exchange."""
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
    """Join consecutive turns of one role, with a blank line between them. Raises BadInput for a turn over LIMIT."""
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
    """The text redacted, and without lone surrogates, which JSON can hold and UTF-8 cannot."""
    if not text.isascii():
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if config.redact:
        text, counts = redact(text)
        report.redacted += counts
    return text


def write(exchanges: Iterable[Exchange], path: Path) -> int:
    """Write exchanges as JSONL with `messages`, one a line.

    Answers in the context have `"weight": 0`, as in OpenAI's fine-tuning format, and are not learned. Reading the file
    with the same configuration gives the same exchanges. The exchanges are streamed, and the file appears only once it
    is complete.

    Returns:
        The number of exchanges.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    count = 0
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as out:
            for exchange in exchanges:
                out.write(json.dumps(_message_row(exchange), ensure_ascii=False) + "\n")
                count += 1
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return count


def _message_row(exchange: Exchange) -> dict[str, Any]:
    context = [{**turn, "weight": 0} if turn["role"] == "assistant" else turn for turn in exchange.prompt]
    labels = {key: value for key in ("source", "topic", "trait") if (value := getattr(exchange, key))}
    return {"messages": [*context, {"role": "assistant", "content": exchange.answer}], **labels}
